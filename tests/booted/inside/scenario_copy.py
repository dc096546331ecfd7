# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy in /etc/glixos: it is what the branch is, soon after every change, and everybody can build from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.booted.inside.conftest import HOST
from tests.booted.inside.machine import (
    as_user,
    copied,
    eventually,
    git,
    glixctl,
    journal,
    main_pid,
    owner,
    run,
    stop,
    unit,
)

COPY = Path("/etc/glixos")
SETTINGS = Path("/etc/glixd/config.toml")
FIFO = Path("/run/glixd/export")
EXPORT = "glixd-export.service"
SYSTEM = f"nixosConfigurations.{HOST}.config.system.build.toplevel"
MANY = 30

pytestmark = pytest.mark.usefixtures("repository")


def _at_rest() -> bool:
    return unit(EXPORT, "ActiveState") == "inactive"


def test_the_copy_is_roots_and_without_a_history_and_the_bell_is_the_daemons() -> None:
    eventually(copied, "the newest commit in the copy")
    assert owner(COPY) == (0, 0, 0o755)
    assert owner(FIFO) == (int(run("id", "-u", "glixd").stdout), 0, 0o600)
    assert (COPY / "flake.nix").read_text() == Path("/var/lib/glixd/repo/flake.nix").read_text()
    assert not (COPY / ".git").exists()


def test_the_copy_is_the_newest_of_many_quick_changes() -> None:
    before = git("rev-parse", "main")
    for number in range(MANY):
        glixctl("add" if number % 2 == 0 else "remove", "ripgrep", "--no-evaluate")
    assert git("rev-list", "--count", f"{before}..main") == str(MANY)
    eventually(copied, "the newest commit in the copy")
    assert (COPY / f"hosts/{HOST}/glix.toml").read_text() == git("show", f"main:hosts/{HOST}/glix.toml") + "\n"


def test_a_flood_of_rings_stops_nobody_from_listening() -> None:
    with FIFO.open("wb", buffering=0) as bell:
        for _ in range(100):
            bell.write(b"\n")
    eventually(_at_rest, "the end of the last pass")
    assert unit("glixd-export.socket", "ActiveState") == "active"
    glixctl("add", "ripgrep", "--no-evaluate")
    eventually(copied, "the newest commit in the copy")
    glixctl("remove", "ripgrep", "--no-evaluate")


def test_a_change_that_no_pass_was_told_of_is_copied_when_the_daemon_starts() -> None:
    eventually(_at_rest, "the end of the last pass")
    run("systemctl", "stop", "glixd-export.socket")
    glixctl("add", "ripgrep", "--no-evaluate")
    assert not copied()
    run("systemctl", "start", "glixd-export.socket")
    stop()
    glixctl("ping")
    assert main_pid()
    eventually(copied, "the newest commit in the copy")
    glixctl("remove", "ripgrep", "--no-evaluate")


def test_broken_settings_are_a_sentence_in_the_journal_and_the_copy_stays() -> None:
    eventually(_at_rest, "the end of the last pass")
    before, copy = SETTINGS.read_text(), (COPY / ".glixd-revision").read_text()
    cursor = journal("--lines=1")[0]["__CURSOR"]
    SETTINGS.write_text("host =\n")
    try:
        assert run("systemctl", "start", EXPORT, check=False).returncode != 0
        said = [entry["MESSAGE"] for entry in journal("SYSLOG_IDENTIFIER=glixd-export", after=cursor)]
        assert len(said) == 1, said
        assert said[0].startswith(f"glixd-export: {SETTINGS} has to be corrected: ")
        assert "at line 1, column 7" in said[0]
        assert (COPY / ".glixd-revision").read_text() == copy
    finally:
        SETTINGS.write_text(before)
        run("systemctl", "reset-failed", EXPORT)
    run("systemctl", "start", EXPORT)
    eventually(copied, "the newest commit in the copy")


def test_a_boot_brings_the_copy_up_to_date() -> None:
    assert run("systemctl", "is-enabled", EXPORT).stdout.strip() == "enabled"
    assert EXPORT in run("systemctl", "show", "--property=Wants", "multi-user.target").stdout


@pytest.mark.parametrize("user", ["bob", "root"])
def test_everybody_builds_the_system_from_the_copy(user: str) -> None:
    eventually(copied, "the newest commit in the copy")
    build = ("nix", "build", "--no-link", "--print-out-paths", f"{COPY}#{SYSTEM}")
    built = Path((run(*build) if user == "root" else as_user(user, *build)).stdout.strip())
    assert (built / "etc/glixos-revision").read_text().strip() == git("rev-parse", "main")
    trusted = run("git", "config", "--system", "--get-all", "safe.directory", check=False).stdout.split()
    assert not {"*", "/etc/glixos", "/var/lib/glixd/repo"} & set(trusted)
    assert sorted(os.listdir(COPY)) == sorted([*git("ls-tree", "--name-only", "main").split(), ".glixd-revision"])
