# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling back what others built upon, worked around or took back themselves."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Answer, RunningDaemon, Site
from tests.support.hermetic import git, make_git_flake
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()


def contents(site: Site, revision: str = "HEAD") -> dict[str, str]:
    """Every file of a commit with its mode and object."""
    lines = site.git("ls-tree", "-r", revision).splitlines()
    return {line.split("\t")[1]: line.split("\t")[0] for line in lines}


def packages(site: Site, host: str = "laptop") -> list[str]:
    """The packages of a host as they are committed."""
    return sorted(tomllib.loads(site.committed(f"hosts/{host}/glix.toml")).get("packages", {}))


def trailer(site: Site, name: str) -> list[str]:
    """The values of a trailer of the newest commit."""
    return site.git("log", "-1", f"--format=%(trailers:key={name},valueonly)").split()


def refused(daemon: RunningDaemon, **parameters: Any) -> Answer:
    """The error of a rollback that must fail and leave no trace."""
    daemon.run("Regenerate", dry_run=True)  # whatever comes first takes note of what people committed
    trace = daemon.site.trace()
    error = daemon.failed("Rollback", **parameters)
    assert daemon.site.trace() == trace
    return error


def nothing_to_undo(daemon: RunningDaemon, **parameters: Any) -> None:
    assert refused(daemon, **parameters)["name"] == "NothingToUndo"


def add_each(daemon: RunningDaemon, *names: str, host: str | None = None) -> None:
    """Add packages in a commit each."""
    for name in names:
        daemon.done("Add", refs=[name], evaluate=False, **({"host": host} if host else {}))


@pytest.fixture
def two(site: Site, daemon: RunningDaemon) -> Site:
    """A repository with the hosts laptop and pi."""
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    return site


# -- how far ---------------------------------------------------------------------------------------------------------


def test_change_after_a_rollback_is_what_the_next_one_undoes(site: Site, daemon: RunningDaemon) -> None:
    add_each(daemon, "hello", "git")
    daemon.done("Rollback")
    add_each(daemon, "tmux")
    daemon.done("Rollback")
    assert packages(site) == ["hello"]
    daemon.done("Rollback")
    assert packages(site) == []


def test_what_people_reverted_with_git_is_stepped_over(site: Site, daemon: RunningDaemon) -> None:
    add_each(daemon, "hello", "git")
    site.git("revert", "--no-edit", "HEAD")
    daemon.done("Rollback")
    assert packages(site) == []
    nothing_to_undo(daemon)


def test_rollback_that_people_reverted_with_git_can_be_made_again(site: Site, daemon: RunningDaemon) -> None:
    add_each(daemon, "hello")
    daemon.done("Rollback")
    site.git("revert", "--no-edit", "HEAD")
    assert packages(site) == ["hello"]
    daemon.done("Rollback")
    assert packages(site) == []


def test_change_that_somebody_took_back_by_hand_does_not_stand_in_the_way(site: Site, daemon: RunningDaemon) -> None:
    add_each(daemon, "hello")
    before = site.committed(MANIFEST)
    add_each(daemon, "git")
    site.commit({MANIFEST: "# mine\n" + before})
    daemon.done("Rollback", steps=2)
    assert packages(site) == []
    assert site.committed(MANIFEST).startswith("# mine\n")


# -- what is built upon ----------------------------------------------------------------------------------------------


def _set_by_hand(site: Site, _daemon: RunningDaemon) -> None:
    site.commit({MANIFEST: site.read(MANIFEST).replace("nixpkgs#hello", "nixpkgs#tmux")})


def _configured_by_hand(site: Site, _daemon: RunningDaemon) -> None:
    site.commit({MANIFEST: site.read(MANIFEST) + '\n[packages.hello.config]\na = "b"\n'})


def _edited(site: Site, _daemon: RunningDaemon) -> None:
    site.write({MANIFEST: site.read(MANIFEST).replace("nixpkgs#hello", "nixpkgs#git")})


@pytest.mark.parametrize("later", [_set_by_hand, _configured_by_hand, _edited])
def test_what_people_built_upon_is_refused_with_the_reason(
    site: Site, daemon: RunningDaemon, later: Callable[[Site, RunningDaemon], None]
) -> None:
    add_each(daemon, "hello")
    oid = site.git("rev-parse", "HEAD")
    later(site, daemon)
    error = refused(daemon)
    assert error["name"] == "Conflict"
    assert "glix add laptop: hello" in error["message"]
    assert error["message"].endswith("hello was changed again since.")
    assert error["details"] == {"commit": oid, "changed": "hello"}
    assert error["hint"]


def test_host_whose_manifest_people_edited_is_not_undone(two: Site, daemon: RunningDaemon) -> None:
    oid = two.git("rev-parse", "HEAD")
    add_each(daemon, "git", host="pi")
    daemon.done("Rollback", host="pi")  # the package goes first
    add_each(daemon, "tmux", host="pi")
    two.commit({"hosts/pi/glix.toml": "# mine\n" + two.read("hosts/pi/glix.toml")})
    daemon.done("Rollback", host="pi")
    error = refused(daemon, host="pi")
    assert (error["name"], error["details"]["commit"]) == ("Conflict", oid)
    assert "hosts/pi/glix.toml" in error["message"]


# -- of every kind ---------------------------------------------------------------------------------------------------


def test_input_comes_back_at_its_revision_though_another_was_locked_since(
    two: Site, daemon: RunningDaemon, tmp_path: Path
) -> None:
    for name in ("tool", "other"):
        make_git_flake(tmp_path / name, {"flake.nix": HELLO})
    first = git(tmp_path / "tool", "rev-parse", "HEAD")
    daemon.done("Add", refs=[f"git+file://{tmp_path}/tool?ref=main"], allow_local=True)
    make_git_flake(tmp_path / "tool", {"README": "more\n"})
    daemon.done("Remove", names=["tool"])
    daemon.done("Add", refs=[f"git+file://{tmp_path}/other?ref=main"], allow_local=True, host="pi")
    other = two.lock_nodes()["other"]
    daemon.done("Rollback", host="laptop")
    assert two.read("flake.lock") == two.committed("flake.lock")
    assert two.lock_nodes()["tool"]["locked"]["rev"] == first, "what comes back is what was there"
    assert two.lock_nodes()["other"] == other
    assert two.evaluated()["system"] == ["pkg-hello"]


def test_update_is_undone_alone_and_refused_where_its_input_moved_on(
    two: Site, daemon: RunningDaemon, tmp_path: Path
) -> None:
    make_git_flake(tmp_path / "tool", {"flake.nix": HELLO})
    daemon.done("Add", refs=[f"git+file://{tmp_path}/tool?ref=main"], allow_local=True)
    revisions = [two.lock_nodes()["tool"]["locked"]["rev"]]
    for number in range(2):
        make_git_flake(tmp_path / "tool", {"README": f"{number}\n"})
        daemon.done("Update", inputs=["tool"])
        revisions.append(two.lock_nodes()["tool"]["locked"]["rev"])
    lock = two.read("flake.lock").replace('"nixpkgs": [\n', '"nixpkgs": [ \n')
    two.commit({"flake.lock": lock})
    daemon.done("Rollback")
    assert two.lock_nodes()["tool"]["locked"]["rev"] == revisions[1]
    two.commit({"flake.lock": two.read("flake.lock").replace(revisions[1], revisions[2])})
    assert refused(daemon)["details"]["changed"] == "flake.lock"


def test_consent_goes_with_the_package_it_was_given_for(site: Site, daemon: RunningDaemon) -> None:
    before = contents(site)
    daemon.done("Add", refs=["needsunfree"], allow_unfree=True)
    assert "allow_unfree" in site.committed(MANIFEST)
    daemon.done("Rollback")
    assert contents(site) == before


def test_rename_with_something_built_upon_is_refused(two: Site, daemon: RunningDaemon) -> None:
    daemon.done("RenameHost", name="pi", to="attic")
    two.commit({"hosts/attic/default.nix": two.read("hosts/attic/default.nix") + "# mine\n"})
    error = refused(daemon)
    assert (error["name"], error["details"]["changed"]) == ("Conflict", "hosts/attic/default.nix")


def test_file_that_git_does_not_know_is_never_written_over(two: Site, daemon: RunningDaemon) -> None:
    daemon.done("RemoveHost", name="pi")
    two.write({"hosts/pi/default.nix": "mine\n"})
    daemon.run("Rollback")
    assert two.read("hosts/pi/default.nix") == "mine\n"


def test_client_goes_back_by_steps_and_to_a_commit(site: Site, daemon: RunningDaemon) -> None:
    add_each(daemon, "hello", "git", "tmux")
    target = site.git("rev-parse", "--short", "HEAD~2")
    done = site.glixctl("rollback")
    assert done.returncode == Exit.DONE, done.stderr
    assert packages(site) == ["git", "hello"]
    done = site.glixctl("rollback", "--to", target, "--reason", "too much")
    assert done.returncode == Exit.DONE, done.stderr
    assert packages(site) == ["hello"]
    assert site.git("log", "-1", "--format=%(trailers:key=Glix-Reason,valueonly)").strip() == "too much"
    assert site.glixctl("rollback", "--steps", "0").returncode == Exit.USAGE
