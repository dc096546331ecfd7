# SPDX-License-Identifier: GPL-3.0-or-later
"""Health: whether the hosts evaluate, found out in the background after each commit and shown with every answer about them."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import RunningDaemon, Site

pytestmark = [pytest.mark.integration, pytest.mark.nix]

BROKEN = '{ outputs = _: { packages.x86_64-linux.default = throw "this package is broken"; }; }\n'


def test_package_that_does_not_evaluate_is_committed_and_shows_in_the_words_of_nix(
    site: Site, daemon: RunningDaemon
) -> None:
    site.commit({"pkgs/bad/flake.nix": BROKEN})
    added = daemon.done("Add", refs=["path:./pkgs/bad"])
    health = daemon.health()
    assert (health["state"], health["commit"]) == ("failed", added["commit"])
    assert "this package is broken" in health["message"]
    assert daemon.call("List")["health"] == health
    assert daemon.call("Show", name="bad")["health"] == health
    assert [host["health"] for host in daemon.call("Info")["hosts"]] == [health]
    listed = site.glixctl("list")
    assert listed.returncode == 0
    assert "this package is broken" in listed.stderr

    removed = daemon.done("Remove", names=["bad"])
    assert daemon.health() == {"state": "ok", "commit": removed["commit"]}
    assert site.glixctl("list").stderr == "glixctl: no packages\n"


def test_only_the_host_that_changed_is_evaluated(site: Site, daemon: RunningDaemon) -> None:
    assert daemon.health("laptop")["state"] == "unknown"
    pi = daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    assert daemon.health("pi") == {"state": "ok", "commit": pi["commit"]}
    laptop = daemon.done("Add", refs=["hello"])
    assert daemon.health("laptop") == {"state": "ok", "commit": laptop["commit"]}
    assert daemon.health("pi")["commit"] == pi["commit"]


def test_evaluation_can_be_left_out(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"pkgs/bad/flake.nix": BROKEN})
    daemon.done("Add", refs=["path:./pkgs/bad"], evaluate=False)
    assert daemon.health()["state"] == "unknown"


def test_dry_run_evaluates_nothing_in_the_background(daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"], dry_run=True)
    assert daemon.health()["state"] == "unknown"


def test_health_survives_a_restart(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["hello"])
        health = daemon.health()
        daemon.stop()
        daemon.start()
        assert daemon.health() == health


def test_host_whose_manifest_is_broken_is_listed_with_the_reason(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"hosts/laptop/glix.toml": "schema = 1\n[packages.x]\nflake = 5\n"})
    (host,) = daemon.call("ListHosts")["hosts"]
    assert host["name"] == "laptop"
    assert "hosts/laptop/glix.toml" in host["problem"]
    info = json.loads(site.glixctl("info", "--json").stdout)
    assert info["hosts"][0]["problem"] == host["problem"]
    refused = daemon.failed("Add", refs=["hello"])
    assert refused["name"] == "ManifestInvalid"
