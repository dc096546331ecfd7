# SPDX-License-Identifier: GPL-3.0-or-later
"""Locking inputs anew: only what was named moves, and every name is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Answer, RunningDaemon, Site, Template, new_site
from tests.support.hermetic import git, make_git_flake
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()
NESTED = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs";
  inputs.below = { url = "git+file://@BELOW@?ref=main"; inputs.nixpkgs.follows = "nixpkgs"; };
  outputs = { self, nixpkgs, below }: { packages = below.packages; };
}
"""


@dataclass
class Sources:
    """Repositories that move on: two packages, one of which takes an input of its own along."""

    folder: Path
    count: int = 0
    names: tuple[str, ...] = field(default=("one", "two", "below"))

    def __post_init__(self) -> None:
        for name in ("one", "below"):
            make_git_flake(self.folder / name, {"flake.nix": HELLO})
        make_git_flake(self.folder / "two", {"flake.nix": NESTED.replace("@BELOW@", str(self.folder / "below"))})

    def reference(self, name: str) -> str:
        """The reference to a branch, which follows it."""
        return f"git+file://{self.folder / name}?ref=main"

    def move(self, *names: str) -> None:
        """Let repositories have another commit."""
        self.count += 1
        for name in names:
            make_git_flake(self.folder / name, {"README": f"{self.count}\n"})

    def head(self, name: str) -> str:
        """The newest commit of one."""
        return git(self.folder / name, "rev-parse", "HEAD")


@pytest.fixture
def moving(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "moving")


@pytest.fixture
def stocked(tmp_path: Path, template: Template, moving: Sources) -> Iterator[RunningDaemon]:
    """A daemon on a repository with a package from each."""
    with new_site(tmp_path / "stocked", template.nix, template) as site, RunningDaemon(site) as daemon:
        daemon.done("Add", refs=[moving.reference("one")], allow_local=True)
        daemon.done("Add", refs=[moving.reference("two")], allow_local=True)
        yield daemon


def revisions(site: Site, revision: str = "HEAD") -> dict[str, str]:
    """The locked revision of every node."""
    return {name: node["locked"]["rev"] for name, node in site.lock_nodes(revision).items() if "locked" in node}


def moved(site: Site) -> set[str]:
    """The nodes in which the last commit differs from the one before."""
    before, after = revisions(site, "HEAD~1"), revisions(site)
    assert before.keys() == after.keys()
    return {name for name in after if before[name] != after[name]}


def told(transaction: Answer) -> list[tuple[str, str]]:
    return [(change["action"], change["name"]) for change in transaction["outcome"]["changes"]]


def test_only_the_named_input_moves(stocked: RunningDaemon, moving: Sources) -> None:
    moving.move("one", "two", "below")
    before = revisions(stocked.site)
    done = stocked.done("Update", inputs=["one"])
    site = stocked.site
    assert moved(site) == {"one"}
    assert revisions(site)["one"] == moving.head("one")
    assert told(done) == [("updated", "one")]
    (lock,) = done["outcome"]["lock"]
    assert lock == {"input": "one", "before": before["one"], "after": moving.head("one")}
    assert site.git("diff", "--name-only", "HEAD~1").splitlines() == ["flake.lock"]
    assert site.commits()[-1].startswith("glix update all-hosts: one (")


def test_nested_inputs_of_what_is_updated_move_with_it_and_of_others_do_not(
    stocked: RunningDaemon, moving: Sources
) -> None:
    moving.move("below")
    assert stocked.done("Update", inputs=["two"])["outcome"]["changed"] is False, "two itself did not move"
    moving.move("two")
    stocked.done("Update", inputs=["two"])
    assert moved(stocked.site) == {"two", "below"}
    moving.move("one", "below")
    stocked.done("Update", inputs=["one"])
    assert moved(stocked.site) == {"one"}


def test_all_inputs_move_where_none_is_named(stocked: RunningDaemon, moving: Sources) -> None:
    moving.move("one", "two", "below")
    done = stocked.done("Update")
    assert moved(stocked.site) == {"one", "two", "below"}
    assert sorted(told(done)) == [("updated", "one"), ("updated", "two")]


def test_package_names_the_input_it_comes_from(stocked: RunningDaemon, moving: Sources) -> None:
    stocked.done("Add", refs=[moving.reference("one")], name="another", allow_local=True)
    stocked.done("Init", host="pi", user="bob", system="aarch64-linux")
    stocked.done("Add", refs=[moving.reference("below")], name="one", host="pi", allow_local=True)
    own = next(name for name in stocked.site.lock_nodes() if name.startswith("one-"))
    moving.move("one", "below")
    stocked.done("Update", inputs=["another"])
    assert moved(stocked.site) == {"another"}
    stocked.done("Update", inputs=["one"], host="pi")
    assert moved(stocked.site) == {own}
    stocked.done("Update", inputs=["one", "one"])
    assert moved(stocked.site) == {"one"}


def test_nothing_that_moved_is_no_commit(stocked: RunningDaemon) -> None:
    site = stocked.site
    trace = site.trace()
    for words in (("update",), ("update", "one", "nixpkgs")):
        done = site.glixctl(*words)
        assert (done.returncode, done.stderr) == (Exit.NOTHING_TO_DO, "")
    assert site.trace() == trace


def test_unknown_input_is_refused_with_the_closest(stocked: RunningDaemon, moving: Sources) -> None:
    moving.move("one")
    site = stocked.site
    trace = site.trace()
    done = site.glixctl("update", "one", "nixpkg")
    assert done.returncode == Exit.NOT_FOUND
    assert "has no input nixpkg." in done.stderr
    assert "nixpkgs" in done.stderr.split("hint:")[1]
    assert site.trace() == trace


def test_package_of_the_hosts_own_nixpkgs_has_no_input_to_update(stocked: RunningDaemon) -> None:
    stocked.done("Add", refs=["hello"])
    error = stocked.failed("Update", inputs=["hello"])
    assert error["name"] == "UnknownInput"
    assert error["hint"].endswith("glixctl update nixpkgs")


def test_source_that_is_gone_fails_and_leaves_no_trace(stocked: RunningDaemon, moving: Sources) -> None:
    moving.move("one")
    (moving.folder / "two").rename(moving.folder / "gone")
    trace = stocked.site.trace()
    assert stocked.failed("Update")["name"] == "LockFailed"
    assert stocked.site.trace() == trace
    stocked.done("Update", inputs=["one"])


def test_update_takes_over_an_edit_of_the_inputs_in_the_same_commit(
    stocked: RunningDaemon, moving: Sources, tmp_path: Path
) -> None:
    site = stocked.site
    make_git_flake(tmp_path / "mine", {"flake.nix": "{ outputs = _: { }; }"})
    text = site.read("flake.nix")
    marker = next(line for line in text.splitlines(keepends=True) if "# >>> glix-managed inputs" in line)
    mine = f'    mine.url = "git+file://{tmp_path}/mine?ref=main";\n'
    site.write({"flake.nix": text.replace(marker, mine + marker)})
    moving.move("one")
    stocked.done("Update", inputs=["one"])
    assert "Glix-Adopted: flake.nix" in site.git("log", "-1", "--format=%b").splitlines()
    assert site.lock_nodes()["mine"]["locked"]["rev"] == git(tmp_path / "mine", "rev-parse", "HEAD")
    make_git_flake(tmp_path / "mine", {"README": "newer\n"})
    stocked.done("Update", inputs=["mine"])
    assert moved(site) == {"mine"}
