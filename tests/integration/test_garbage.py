# SPDX-License-Identifier: GPL-3.0-or-later
"""Collecting garbage: a dry run says what the real run then does, and nothing that is in use is touched."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RpcError, RunningDaemon, Site, new_site
from tests.support.hermetic import HermeticNix
from tests.support.plain import make_plain_repository

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MONTH = 31 * 86400
PACKAGE = """name: content: derivation {
  inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${content} > $out" ];
}"""


class Shop:
    """A site with a store of its own, a profile of three generations, one dead path and the tags of two generations."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.nix = site.nix
        login = pwd.getpwuid(os.getuid()).pw_name
        self.profile = self.nix.root / "state" / "profiles" / "per-user" / login / "profile"
        self.profile.parent.mkdir(parents=True)
        for number in (1, 2, 3):
            self.must(
                "nix-env", "--profile", str(self.profile), "--set", self.built(f"tool-{number}", "x" * 1000 * number)
            )
            self.age(number, 0)
        self.kept = self.built("kept", "k" * 100, "--out-link", str(self.nix.root / "result"))
        self.dead = self.built("dead", "d" * 5000, "--no-out-link")

    def must(self, *words: str) -> str:
        done = self.nix.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def built(self, name: str, content: str, *flags: str) -> str:
        expression = f'({PACKAGE}) "{name}" "{content}"'
        return self.must("nix-build", "-E", expression, *(flags or ("--no-out-link",))).splitlines()[-1]

    def age(self, number: int, seconds: float) -> None:
        """Let a generation be that old."""
        then = time.time() - seconds
        os.utime(f"{self.profile}-{number}-link", (then, then), follow_symlinks=False)

    def generations(self) -> list[int]:
        return sorted(int(path.name.split("-")[1]) for path in self.profile.parent.glob("profile-*-link"))

    def store(self) -> set[str]:
        return {path.name.split("-", 1)[1] for path in (self.nix.root / "store").iterdir() if "-" in path.name}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    nix = HermeticNix(tmp_path / "nix")
    with new_site(tmp_path / "site", nix) as site:
        make_plain_repository(site.repository)
        yield Shop(site)
    nix.remove()


@pytest.fixture
def daemon(shop: Shop) -> Iterator[RunningDaemon]:
    with RunningDaemon(shop.site, extra={"GLIXD_INDEX": "false"}) as running:
        yield running


def garbage(transaction: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = transaction["outcome"]["garbage"]
    return found


def test_without_a_rule_only_what_nothing_uses_goes(shop: Shop, daemon: RunningDaemon) -> None:
    before = shop.store()
    dry = daemon.done("CollectGarbage", dry_run=True)
    assert shop.store() == before
    assert garbage(dry)["freed"] > 5000
    assert garbage(dry)["generations"] == []
    done = daemon.done("CollectGarbage")
    assert garbage(done) == garbage(dry)
    assert "commit" not in done
    assert not Path(shop.dead).exists()
    assert {"tool-1", "tool-2", "tool-3", "kept"} <= shop.store()
    assert any(root.endswith(f"result -> {shop.kept}") for root in garbage(done)["roots"])
    again = daemon.done("CollectGarbage")
    assert not again["outcome"]["changed"]
    assert again["outcome"]["summary"] == "nothing to collect"


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"delete_old": True}, [3]),
        ({"keep": 2}, [2, 3]),
        ({"older_than": "30d"}, [2, 3]),
        ({"older_than": "30d", "keep": 3}, [1, 2, 3]),
    ],
)
def test_old_generations_go_by_the_rule_with_all_that_they_alone_used(
    shop: Shop, daemon: RunningDaemon, rule: dict[str, Any], left: list[int]
) -> None:
    shop.age(1, 3 * MONTH)
    shop.age(2, 2 * MONTH)
    before = shop.store()
    dry = daemon.done("CollectGarbage", **rule, dry_run=True)
    assert (shop.store(), shop.generations()) == (before, [1, 2, 3])
    done = daemon.done("CollectGarbage", **rule)
    assert shop.generations() == left
    assert garbage(done) == garbage(dry)
    assert garbage(done)["generations"] == [
        f"{shop.profile}-{number}-link" for number in (1, 2, 3) if number not in left
    ]
    assert {f"tool-{number}" for number in left} <= shop.store()
    assert not {f"tool-{number}" for number in (1, 2, 3) if number not in left} & shop.store()
    assert os.readlink(shop.profile) == "profile-3-link"
    assert done["digest"] == dry["digest"]


def test_the_current_generation_stays_when_it_is_not_the_newest(shop: Shop, daemon: RunningDaemon) -> None:
    shop.must("nix-env", "--profile", str(shop.profile), "--switch-generation", "1")
    daemon.done("CollectGarbage", delete_old=True)
    assert shop.generations() == [1]
    assert "tool-1" in shop.store()


def test_tags_of_generations_that_are_gone_are_pruned(shop: Shop, daemon: RunningDaemon) -> None:
    for name in ("laptop/1", "laptop/7", "laptop/x", "pi/7"):
        shop.site.git("tag", f"glix/gen/{name}")
    assert not daemon.done("CollectGarbage", dry_run=True)["outcome"]["garbage"]["tags"], "there is no system profile"
    system = shop.nix.root / "state" / "profiles" / "system"
    shop.must("nix-env", "--profile", str(system), "--set", shop.kept)
    head = shop.site.git("rev-parse", "HEAD")
    trace = shop.site.trace()
    dry = daemon.done("CollectGarbage", dry_run=True)
    assert shop.site.trace() == trace
    done = daemon.done("CollectGarbage")
    assert garbage(done)["tags"] == garbage(dry)["tags"] == ["refs/tags/glix/gen/laptop/7"]
    assert shop.site.git("tag", "--list").split() == ["glix/gen/laptop/1", "glix/gen/laptop/x", "glix/gen/pi/7"]
    assert shop.site.git("rev-parse", "HEAD") == head


def test_tags_that_can_not_be_deleted_are_told_and_not_counted(shop: Shop, daemon: RunningDaemon) -> None:
    shop.site.git("tag", "glix/gen/laptop/7")
    system = shop.nix.root / "state" / "profiles" / "system"
    shop.must("nix-env", "--profile", str(system), "--set", shop.kept)
    (shop.site.repository / ".git" / "packed-refs.lock").touch()
    done = daemon.done("CollectGarbage")
    assert garbage(done)["tags"] == []
    assert done["warnings"] == ["git could not delete 1 tags of generations that are gone; they stay."]
    assert shop.site.git("tag", "--list") == "glix/gen/laptop/7"


def test_an_interrupted_collection_does_not_claim_that_nothing_changed(shop: Shop) -> None:
    with RunningDaemon(shop.site) as daemon:
        shop.site.git("tag", "glix/gen/laptop/7")
        system = shop.nix.root / "state" / "profiles" / "system"
        shop.must("nix-env", "--profile", str(system), "--set", shop.kept)
        with shop.site.locked(), daemon.connect() as client:
            transaction = client.call("CollectGarbage")["transaction"]
            client.reach(transaction, "running")
            daemon.kill()
        daemon.start()
        record = daemon.call("GetTransaction", transaction=transaction)
    assert (record["state"], record["error"]["name"]) == ("failed", "Interrupted")
    assert "what was deleted stays deleted" in record["error"]["message"]


@pytest.mark.parametrize(
    "rule",
    [
        {"older_than": "soon"},
        {"older_than": "0d"},
        {"older_than": "-1d"},
        {"keep": 0},
    ],
)
def test_a_rule_that_means_nothing_is_refused_at_once(shop: Shop, daemon: RunningDaemon, rule: dict[str, Any]) -> None:
    with pytest.raises(RpcError, match="InvalidArgument"):
        daemon.call("CollectGarbage", **rule)


def test_a_rule_that_contradicts_itself_or_means_another_machine_is_refused(shop: Shop, daemon: RunningDaemon) -> None:
    before = shop.store()
    with pytest.raises(RpcError, match="delete_old"):
        daemon.call("CollectGarbage", delete_old=True, keep=2)
    assert daemon.failed("CollectGarbage", host="pi")["details"]["argument"] == "host"
    assert shop.store() == before


def test_garbage_is_collected_without_a_repository_and_beside_a_change_that_waits(tmp_path: Path) -> None:
    nix = HermeticNix(tmp_path / "nix")
    with new_site(tmp_path / "site", nix) as site:
        make_plain_repository(site.repository)
        shop = Shop(site)
        with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon, daemon.connect() as client, site.locked():
            waiting = client.call("Regenerate")["transaction"]
            client.reach(waiting, "running")
            assert garbage(client.run("CollectGarbage"))["paths"] >= 1
            client.call("Cancel", transaction=waiting)
            client.wait(waiting)
        site.repository.rename(tmp_path / "elsewhere")
        with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as daemon:
            assert daemon.done("CollectGarbage", delete_old=True)["outcome"]["changed"]
        assert shop.generations() == [3]
    nix.remove()


def test_a_store_that_can_not_be_swept_is_told_in_the_words_of_nix(shop: Shop) -> None:
    (shop.site.root / "file").touch()
    with RunningDaemon(shop.site, extra={"NIX_STATE_DIR": str(shop.site.root / "file")}) as daemon:
        error = daemon.failed("CollectGarbage")
    assert error["message"].startswith("nix-store failed: ")
    assert error["hint"]


def test_glixctl_tells_what_was_freed(shop: Shop, daemon: RunningDaemon) -> None:
    dry = shop.site.glixctl("gc", "--keep", "1", "--dry-run")
    assert dry.returncode == Exit.DONE, dry.stderr
    assert f"  {shop.profile}-1-link" in dry.stdout
    assert dry.stdout.splitlines()[-1].startswith("dry run: would delete ")
    done = shop.site.glixctl("gc", "--keep", "1", "--roots")
    assert done.returncode == Exit.DONE
    assert "2 generations, " in done.stdout
    assert "kept alive by:" in done.stdout
    nothing = shop.site.glixctl("gc", "--json")
    assert nothing.returncode == Exit.NOTHING_TO_DO
    assert json.loads(nothing.stdout)["outcome"]["garbage"]["freed"] == 0
    wrong = shop.site.glixctl("gc", "--older-than", "soon")
    assert wrong.returncode == Exit.USAGE
    assert "30d" in wrong.stderr
