# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading, end to end: lists, inputs, differences and what a package is, from the daemon and by glixctl."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from glixd.backends.evaluator import OwnEvaluator
from glixd.backends.index import Indexes
from glixd.backends.nix import Contribution, Nix
from glixd.backends.process import Cancellation, Processes
from glixd.backends.registry import Registries
from glixd.backends.repository import Repository
from glixd.backends.state import Database
from glixd.resolvers.asking import Asking, Facts
from tests.support.daemon import RunningDaemon, Site
from tests.support.hermetic import make_git_flake
from tests.support.repositories import EXAMPLES, Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
PACKAGE = """{ outputs = _: { packages.x86_64-linux.default = derivation {
  name = "tool"; system = "x86_64-linux"; builder = "/bin/sh"; } // { version = "1.2"; meta.description = "A tool"; };
}; }
"""
MODULES = "{ outputs = _: { nixosModules.default = { }; homeModules.extra = { }; }; }\n"
BROKEN = '{ outputs = _: throw "broken"; }\n'


def test_show_says_what_a_package_contributes(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"pkgs/tool/flake.nix": PACKAGE, "pkgs/modules/flake.nix": MODULES, "pkgs/broken/flake.nix": BROKEN})
    daemon.done("Add", refs=["hello", "path:./pkgs/tool", "path:./pkgs/modules", "path:./pkgs/broken"])
    daemon.done("Add", refs=["path:./pkgs/modules#homeModules.extra"], name="extra", scope="home")
    tool = daemon.call("Show", name="tool")
    assert (tool["contributes"], tool["version"], tool["description"]) == ("package", "1.2", "A tool")
    assert daemon.call("Show", name="modules")["contributes"] == "nixosModule"
    assert daemon.call("Show", name="extra")["contributes"] == "homeModule"
    assert daemon.call("Show", name="hello")["contributes"] == "package"
    broken = daemon.call("Show", name="broken")
    assert broken["input"] == "broken"
    assert "contributes" not in broken
    shown = site.glixctl("show", "tool").stdout
    assert "contributes: package" in shown
    assert "description: A tool" in shown


class CountingNix(Nix):
    """A nix that says how often it was asked what a package is."""

    asked = 0

    def contribution(self, commit: str, wanted: Contribution, *, timeout: float) -> dict[str, str | None]:
        """The number of the question."""
        self.asked += 1
        return {"kind": "package", "version": str(self.asked), "description": None}


def test_what_a_folder_of_the_repository_is_is_remembered_for_its_tree(site: Site, tmp_path: Path) -> None:
    """A nix from 2.26 on locks `path:./folder` without revision and hash: it is what the commit holds."""
    lock = json.loads(site.read("flake.lock"))
    folder = {"path": "./pkgs/tool", "type": "path"}
    lock["nodes"]["tool"] = {"locked": folder, "original": folder, "parent": []}
    lock["nodes"]["root"]["inputs"]["tool"] = "tool"
    processes = Processes({**site.environment(), "HOME": os.fspath(site.home)})
    repository, nix = (
        Repository(site.repository, processes),
        CountingNix(processes, OwnEvaluator(processes, site.repository, site.root)),
    )
    database = Database(tmp_path / "state.db")
    facts = Facts(nix, database, Indexes(tmp_path), Registries(tmp_path, (), {}, age=0, allow_files=False))
    wanted = Contribution("tool", None, "x86_64-linux", "system")

    def version(files: dict[str, str]) -> str | None:
        site.commit(files)
        asking = Asking(facts, repository.snapshot(), "laptop", "x86_64-linux", Cancellation())
        return asking.contribution(wanted)["version"]

    with closing(repository), closing(database):
        assert version({"flake.lock": json.dumps(lock), "pkgs/tool/flake.nix": PACKAGE}) == "1"
        assert version({"pkgs/other": "beside it"}) == "1", "what is known is not asked again"
        assert version({"pkgs/tool/flake.nix": PACKAGE.replace("1.2", "1.3")}) == "2"
        assert version({"pkgs/tool/flake.nix": PACKAGE}) == "1", "the tree of the first commit is back"


def test_what_a_package_is_is_asked_of_nix_once_for_each_revision(site: Site, daemon: RunningDaemon) -> None:
    source = site.root / "tool"
    make_git_flake(source, {"flake.nix": PACKAGE})
    daemon.done("Add", refs=[f"git+file://{source}?ref=main"], allow_local=True)
    assert daemon.call("Show", name="tool")["version"] == "1.2"
    make_git_flake(source, {"flake.nix": PACKAGE.replace("1.2", "1.3")})
    assert daemon.call("Show", name="tool")["version"] == "1.2", "what is locked counts"
    daemon.done("Update", inputs=["tool"])
    assert daemon.call("Show", name="tool")["version"] == "1.3"


def test_inputs_tell_who_uses_them(site: Site, daemon: RunningDaemon, sources: Sources) -> None:
    site.commit({"pkgs/tool/flake.nix": (EXAMPLES / "pkg-hello/flake.nix").read_text()})
    daemon.done("Add", refs=["path:./pkgs/tool", "hello"])
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    inputs = {entry["name"]: entry for entry in daemon.call("ListInputs")["inputs"]}
    assert set(inputs) == {"glixos-core", "home-manager", "nixpkgs", "tool"}
    assert inputs["tool"]["managed"]
    assert (inputs["tool"]["packages"], inputs["tool"]["hosts"], inputs["tool"]["uses"]) == (
        ["laptop/tool"],
        ["laptop"],
        1,
    )
    nixpkgs = inputs["nixpkgs"]
    assert not nixpkgs["managed"]
    assert (nixpkgs["packages"], nixpkgs["hosts"]) == (["laptop/hello"], ["laptop", "pi"])
    assert nixpkgs["age"] >= 0
    assert nixpkgs["revision"] == site.lock_nodes()["nixpkgs"]["locked"]["rev"]
    told = site.glixctl("inputs")
    assert told.returncode == 0
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["NAME", *sorted(inputs)]


def test_glixctl_reads_lists_history_and_differences(site: Site, daemon: RunningDaemon) -> None:
    first = site.git("rev-parse", "HEAD")
    daemon.done("Add", refs=["hello", "git"], reason="To begin with")
    daemon.done("Add", refs=["tmux"], scope="home")
    listed = json.loads(site.glixctl("list", "--json", "--sort", "scope").stdout)["packages"]
    assert [entry["name"] for entry in listed] == ["tmux", "git", "hello"]
    assert "tmux" not in site.glixctl("list", "--scope", "system").stdout
    history = site.glixctl("history", "git", "--long").stdout
    assert "reason:      To begin with" in history
    assert history.count("commit:") == 1
    site.write({MANIFEST: site.read(MANIFEST) + "# mine\n"})
    assert "+# mine" in site.glixctl("diff").stdout
    assert '+flake = "nixpkgs#tmux"' in site.glixctl("diff", first[:10]).stdout
    between = site.glixctl("diff", first, site.git("rev-parse", "HEAD~1")).stdout
    assert '+flake = "nixpkgs#git"' in between
    assert "tmux" not in between
    assert "mine" not in between
