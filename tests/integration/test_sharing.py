# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that wait share a commit point: one commit each, in their order, as if each had been alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Answer, RunningDaemon, Site
from tests.support.standing_git import StandingGit

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
Change = tuple[str, dict[str, Any]]


def added(name: str, **more: Any) -> Change:
    return "Add", {"refs": ["nixpkgs#hello"], "name": name, "evaluate": False, **more}


def packages(site: Site, revision: str = "HEAD") -> list[str]:
    return sorted(tomllib.loads(site.committed(MANIFEST, revision)).get("packages", {}))


def moves(site: Site) -> int:
    """How often the branch moved."""
    return len(site.git("reflog", "show", "main").splitlines())


@contextmanager
def waiting(daemon: RunningDaemon, changes: list[Change]) -> Iterator[list[str]]:
    """The transactions of changes that wait behind one which can't begin, until this ends."""
    with ExitStack() as stack, daemon.connect() as client:
        with daemon.site.locked():
            first = client.call("Add", refs=["firefox"], dry_run=True)["transaction"]
            client.reach(first, "running")
            started = []
            for method, parameters in changes:
                one = stack.enter_context(daemon.connect())
                started.append(one.call(method, **parameters)["transaction"])
                one.reach(started[-1], "queued")
            yield started
        assert client.wait(first)["state"] == "succeeded"


def ended(daemon: RunningDaemon, started: list[str]) -> list[Answer]:
    with daemon.connect() as client:
        return [client.wait(transaction) for transaction in started]


def test_each_has_its_commit_and_all_have_one_commit_point(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["git"], evaluate=False)
    before = moves(site)
    with waiting(daemon, [added("one"), added("two"), ("Disable", {"names": ["git"]})]) as started:
        pass
    done = ended(daemon, started)
    assert [one["state"] for one in done] == ["succeeded"] * 3
    commits = site.git("rev-list", "--reverse", "HEAD").splitlines()[-3:]
    assert [one["commit"] for one in done] == commits
    assert [packages(site, commit) for commit in commits] == [
        ["git", "one"],
        ["git", "one", "two"],
        ["git", "one", "two"],
    ]
    assert moves(site) == before + 1, "one commit point for all of them"
    for one, path in zip(done, commits, strict=True):
        assert site.git("diff", "--name-only", f"{path}~1", path) == MANIFEST
        assert one["outcome"]["diff"].count("@@ ") == 1
    assert site.git("status", "--porcelain") == ""
    assert site.read(MANIFEST) == site.committed(MANIFEST)
    site.git("fsck", "--strict")


def test_one_that_fails_leaves_the_others_as_they_would_be_without_it(site: Site, daemon: RunningDaemon) -> None:
    with waiting(daemon, [added("same"), added("same", scope="home"), added("other")]) as started:
        pass
    first, second, third = ended(daemon, started)
    assert (first["state"], third["state"]) == ("succeeded", "succeeded")
    assert (second["state"], second["error"]["name"], second.get("commit")) == ("failed", "AlreadyInstalled", None)
    assert packages(site) == ["other", "same"]
    assert site.git("rev-list", "--count", f"{first['commit']}..{third['commit']}") == "1"


def test_what_changes_nothing_is_told_so_and_has_no_commit(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["git"], evaluate=False)
    changes: list[Change] = [("Disable", {"names": ["git"]}), ("Disable", {"names": ["git"], "reason": "again"})]
    with waiting(daemon, changes) as started:
        pass
    first, second = ended(daemon, started)
    assert (first["outcome"]["changed"], second["outcome"]["changed"]) == (True, False)
    assert second.get("commit") is None
    assert site.git("rev-parse", "HEAD") == first["commit"]


def test_an_edit_by_hand_goes_along_with_the_first_of_them_and_is_kept(site: Site, daemon: RunningDaemon) -> None:
    with waiting(daemon, [added("one"), added("two")]) as started:
        site.write({MANIFEST: "# mine\n" + site.read(MANIFEST)})
    done = ended(daemon, started)
    assert [one["state"] for one in done] == ["succeeded"] * 2
    assert site.read(MANIFEST).startswith("# mine\n")
    assert site.committed(MANIFEST).startswith("# mine\n")
    assert packages(site) == ["one", "two"]
    assert site.git("status", "--porcelain") == ""


def test_a_commit_of_a_person_in_the_middle_is_kept_and_each_gets_its_own_chance(site: Site, tmp_path: Path) -> None:
    git = StandingGit(tmp_path / "programs", "before the commit point")
    with RunningDaemon(site, extra={"PATH": git.path, "GLIXD_INDEX": "false"}) as daemon:
        with waiting(daemon, [added("one"), added("two")]) as started:
            git.arm()
        with git.standing():
            mine = site.commit({"notes": "mine\n"})
        done = ended(daemon, started)
        assert [one["state"] for one in done] == ["succeeded"] * 2
        assert site.git("rev-list", "HEAD").splitlines()[:3] == [done[1]["commit"], done[0]["commit"], mine]
        assert site.read("notes") == site.committed("notes") == "mine\n"
        assert packages(site) == ["one", "two"]
        assert site.git("status", "--porcelain") == ""


def test_one_that_is_cancelled_while_it_waits_is_left_out(site: Site, daemon: RunningDaemon) -> None:
    with waiting(daemon, [added("one"), added("two"), added("three")]) as started:
        daemon.call("Cancel", transaction=started[1])
    states = [one["state"] for one in ended(daemon, started)]
    assert states == ["succeeded", "cancelled", "succeeded"]
    assert packages(site) == ["one", "three"]


def test_new_inputs_are_locked_one_after_the_other(site: Site, daemon: RunningDaemon, sources: Any) -> None:
    local = {"allow_local": True}
    changes: list[Change] = [
        ("Add", {"refs": [sources.hello], "name": "one", "evaluate": False, **local}),
        ("Add", {"refs": [sources.greeting], "name": "two", "evaluate": False, **local}),
    ]
    with waiting(daemon, changes) as started:
        pass
    done = ended(daemon, started)
    assert [one["state"] for one in done] == ["succeeded"] * 2, [one["error"] for one in done]
    assert {"one", "two"} <= set(site.lock_nodes())
    assert set(site.lock_nodes(done[0]["commit"])) & {"one", "two"} == {"one"}
