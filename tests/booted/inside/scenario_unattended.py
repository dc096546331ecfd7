# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates that nobody watches: the unit of the timer stages what was built, or switches where the administrator says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.inside.conftest import HOST
from tests.booted.inside.machine import answer, git, glixctl, journal, run, stop, unit
from tests.support.repositories import Sources

CURRENT = Path("/run/current-system")
SETTINGS = Path("/etc/glixd/config.toml")
UPDATE = "glixd-update.service"

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def settings() -> Iterator[None]:
    """The settings of the administrator, as they were afterwards."""
    before = SETTINGS.read_text()
    yield
    SETTINGS.write_text(before)
    stop()


def _set(action: str) -> None:
    SETTINGS.write_text(f'host = "{HOST}"\nauto_update = "{action}"\nauto_update_inputs = ["nixpkgs"]\n')
    stop()


def _publish(version: str) -> str:
    """Let nixpkgs have another hello; returns what was published."""
    folder = Path("/srv/sources/nixpkgs")
    packages = folder / "pkgs.nix"
    start, name, rest = packages.read_text().partition('mk "hello" "')
    packages.write_text(f"{start}{name}{version}{rest[rest.index(chr(34)) :]}")
    who = ("-c", "user.name=nixpkgs", "-c", "user.email=nixpkgs@example.org")
    run("git", "-C", str(folder), *who, "commit", "--quiet", "--all", f"--message=hello {version}")
    return run("git", "-C", str(folder), "rev-parse", "HEAD").stdout.strip()


def test_nothing_is_updated_unless_the_administrator_says_so(sources: Sources) -> None:
    assert sources.nixpkgs
    assert run("systemctl", "is-enabled", "glixd-update.timer", check=False).stdout.strip() == "disabled"
    before = git("rev-parse", "main")
    assert run("systemctl", "start", UPDATE, check=False).returncode != 0
    assert git("rev-parse", "main") == before
    said = [entry.get("MESSAGE") for entry in journal("SYSLOG_IDENTIFIER=glixd-update")]
    assert "glixctl: Updates that nobody watches are off." in said
    run("systemctl", "reset-failed", UPDATE)


@pytest.mark.usefixtures("settings")
def test_what_the_timer_starts_stages_an_update_and_root_gives_no_word_for_a_switch() -> None:
    glixctl("add", "hello")
    glixctl("rebuild")
    runs = os.path.realpath(CURRENT)
    revision = _publish("2.13")
    _set("stage")
    run("systemctl", "start", UPDATE)
    assert unit(UPDATE, "Result") == "success"
    assert revision in git("show", "main:flake.lock")
    assert os.path.realpath(CURRENT) == runs, "the switch is a person's to make"
    staged = answer("generations")["staged"]
    glixctl("rebuild")
    assert os.path.realpath(CURRENT) == staged["path"] != runs


@pytest.mark.usefixtures("settings")
def test_what_the_timer_starts_switches_where_the_administrator_says_so() -> None:
    runs = os.path.realpath(CURRENT)
    revision = _publish("2.14")
    _set("switch")
    run("systemctl", "start", UPDATE)
    assert unit(UPDATE, "Result") == "success"
    assert revision in git("show", "main:flake.lock")
    assert os.path.realpath(CURRENT) != runs
    assert (CURRENT / "etc/glixos-revision").read_text().strip() == git("rev-parse", "main")
    assert os.listdir("/run/glixd-activate") == []
    again = git("rev-parse", "main")
    run("systemctl", "start", UPDATE)
    assert git("rev-parse", "main") == again, "there was nothing new"
