# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates that nobody watches: only what builds is committed, then staged for a user, or switched to."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site, new_site
from tests.support.hermetic import HermeticNix, commit_all, core_url, home_manager_url, nixpkgs_url
from tests.support.switching import Machine, switchable

pytestmark = [pytest.mark.integration, pytest.mark.nix]


class World:
    """A machine whose nixpkgs is followed by its branch, so that it can be updated."""

    def __init__(self, folder: Path, site: Site, machine: Machine) -> None:
        self.site = site
        self.machine = machine
        self.nixpkgs = folder / "nixpkgs"
        nixpkgs_url(self.nixpkgs)
        self.parameters = {
            "host": "laptop",
            "user": "alice",
            "system": "x86_64-linux",
            "nixpkgs": f"git+file://{self.nixpkgs}?ref=main",
            "core": core_url(folder / "core"),
            "home_manager": home_manager_url(folder / "home-manager"),
        }

    def publish(self, old: str, new: str) -> None:
        """Let nixpkgs say something else."""
        packages = self.nixpkgs / "pkgs.nix"
        text = packages.read_text()
        assert old in text
        packages.write_text(text.replace(old, new))
        commit_all(self.nixpkgs)

    def daemon(self, action: str, **extra: str) -> RunningDaemon:
        return RunningDaemon(self.site, extra={"GLIXD_AUTO_UPDATE": action, **extra})


@pytest.fixture
def world(tmp_path: Path, nix: HermeticNix) -> Iterator[World]:
    with new_site(tmp_path / "site", nix) as site, switchable(site) as machine:
        made = World(tmp_path, site, machine)
        with RunningDaemon(site) as daemon:
            daemon.done("Init", **made.parameters)
            daemon.done("Add", refs=["hello"], apply=True)
        yield made


def test_an_update_is_staged_told_and_switched_to_without_building(world: World) -> None:
    world.publish('mk "hello" "2.12"', 'mk "hello" "2.13"')
    with world.daemon("stage") as daemon, daemon.connect() as desktop:
        before = world.machine.running
        done = daemon.done("Update", unattended=True)
        assert world.machine.running == before, "a user decides"
        rebuilt = done["outcome"]["rebuild"]
        assert (rebuilt["action"], rebuilt["activated"]) == ("build", False)
        desktop.call("Ping")
        assert desktop.notified("Staged") == [{"host": "laptop"}]
        staged = daemon.call("ListGenerations")["staged"]
        assert (staged["commit"], staged["path"]) == (done["commit"], rebuilt["path"])
        told = world.site.glixctl("generations").stdout.splitlines()[-1]
        assert told.startswith(f"staged: {done['commit'][:7]}, built ")
        switched = daemon.done("Rebuild")
        assert switched["outcome"]["rebuild"]["path"] == staged["path"]
        assert switched["outcome"]["rebuild"]["builds"] == [], "it was built already"
        assert "staged" not in daemon.call("ListGenerations")
        kinds = {one["name"]: one["kind"] for one in switched["outcome"]["rebuild"]["change"]["packages"]}
        assert kinds == {"hello": "upgraded"}


def test_a_staged_update_is_overtaken_by_a_later_generation_even_of_the_same_second(world: World) -> None:
    world.publish('mk "hello" "2.12"', 'mk "hello" "2.13"')
    link = Path(f"{world.machine.profile}-1-link")
    with world.daemon("stage") as daemon:
        begun = time.time()
        os.utime(link, (begun, begun), follow_symlinks=False)
        daemon.done("Update", unattended=True)
        built = datetime.datetime.fromisoformat(daemon.call("ListGenerations")["staged"]["built"]).timestamp()
        assert built > begun
        for later, staged in ((-0.002, True), (0.002, False)):
            os.utime(link, (built + later, built + later), follow_symlinks=False)
            assert ("staged" in daemon.call("ListGenerations")) is staged, later


def test_an_update_that_does_not_build_is_not_committed(world: World) -> None:
    world.publish('mk "hello" "2.12" {', 'mk "hello" "2.13" { broken = throw "not today";')
    head = world.site.git("rev-parse", "HEAD")
    with world.daemon("switch") as daemon:
        error = daemon.failed("Update", unattended=True)
    assert error["name"] in ("EvaluationFailed", "BuildFailed")
    assert world.site.git("rev-parse", "HEAD") == head
    assert world.site.git("status", "--porcelain") == ""
    assert world.machine.current.endswith("-1-link")


def test_an_update_switches_where_the_settings_say_so_and_does_nothing_where_nothing_is_new(world: World) -> None:
    world.publish('mk "hello" "2.12"', 'mk "hello" "2.13"')
    with world.daemon("switch") as daemon:
        done = daemon.done("Update", unattended=True)
        assert done["outcome"]["rebuild"]["generation"] == 2
        assert world.machine.current.endswith("-2-link")
        again = daemon.done("Update", unattended=True)
        assert not again["outcome"]["changed"]
        assert world.site.glixctl("update", "--unattended").returncode == Exit.NOTHING_TO_DO
        assert world.machine.current.endswith("-2-link")


def test_young_inputs_are_left_alone(world: World) -> None:
    world.publish('mk "hello" "2.12"', 'mk "hello" "2.13"')
    with world.daemon("switch", GLIXD_AUTO_UPDATE_AGE="10000") as daemon:
        assert not daemon.done("Update", unattended=True)["outcome"]["changed"]


def test_it_is_off_unless_the_settings_say_otherwise(world: World) -> None:
    with RunningDaemon(world.site) as daemon:
        error = daemon.failed("Update", unattended=True)
    assert error["name"] == "UnsupportedHere"
    assert "auto_update" in error["hint"]
