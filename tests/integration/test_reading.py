# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading, end to end: lists, inputs, differences and what a package is, from the daemon and by glixctl."""

from __future__ import annotations

import json

import pytest

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
