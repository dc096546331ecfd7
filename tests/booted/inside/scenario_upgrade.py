# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer on a machine that runs: over what is there, and away again; the last of the scenarios."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.booted.inside.machine import answer, copied, eventually, git, glixctl, main_pid, run, unit

INSTALLER = "/checkout/scripts/install-system"
LISTED = Path("/usr/lib/glixd/installed-files")
LIVE = ("glixd.socket", "glixd-eval.socket", "glixd-activate.socket", "glixd-export.socket")
OURS = (
    "/checkout",
    "/shared",
    "/wheels",
    "/pytest",
    "/proc",
    "/sys",
    "/nix",
    "/srv",
    "/home",
    "/root",
    "/tmp",
    "/var/tmp",
)
"""Where the scenarios themselves have things of that name."""

pytestmark = pytest.mark.usefixtures("repository")


def _named_like_us() -> list[str]:
    """Every file of the machine with our name, but for what the scenarios made."""
    pruned = [word for folder in OURS for word in ("-path", folder, "-o")][:-1]
    found = run(
        "find", "/", "(", *pruned, ")", "-prune", "-o", "-iname", "*glix*", "!", "-name", "glix-test*", "-print"
    ).stdout.splitlines()
    return [path for path in found if not re.match(r"/run/systemd/|/var/log/|/dev/|/run/log/", path)]


def test_an_installation_over_what_is_there_goes_on_with_all_of_it() -> None:
    glixctl("add", "hello")
    head, before = git("rev-parse", "main"), main_pid()
    run("systemctl", "enable", "--now", "glixd-update.timer")
    listed = set(LISTED.read_text().split())
    said = run(INSTALLER, "--wheels", "/wheels", timeout=300).stdout
    assert "enabled and started" in said
    assert set(LISTED.read_text().split()) == listed
    assert {name: unit(name, "ActiveState") for name in LIVE} == dict.fromkeys(LIVE, "active")
    assert unit("glixd-update.timer", "ActiveState") == "active", "what an administrator enabled stays so"
    assert {package["name"] for package in answer("list")["packages"]} == {"hello"}
    assert git("rev-parse", "main") == head
    assert main_pid() not in (0, before)
    glixctl("remove", "hello")
    eventually(copied, "the newest commit in the copy")


def test_what_is_taken_away_leaves_nothing_but_what_it_says() -> None:
    head = git("rev-parse", "main")
    listed = LISTED.read_text().split()
    said = run(INSTALLER, "--uninstall").stdout
    left = [word.rstrip(",:") for word in said.split() if word.startswith("/")]
    assert len(left) == 6
    assert [path for path in listed if Path("/", path).exists() or Path("/", path).is_symlink()] == []
    unsaid = [path for path in _named_like_us() if not any(path == one or path.startswith(f"{one}/") for one in left)]
    assert "\n".join(unsaid) == ""
    for name in ("glixd.service", "glixd-update.timer", *LIVE):
        assert unit(name, "ActiveState") == "inactive", name
    failed = run("systemctl", "list-units", "--failed", "--no-legend", "--plain", "*glix*").stdout
    assert failed == ""
    assert git("rev-parse", "main") == head, "the repository is kept"
    for user in ("glixd", "glixd-eval"):
        assert user in said
        assert run("id", "-u", user).stdout.strip().isdecimal()
    refused = run(
        "busctl", "call", "org.glixos.Glix1", "/org/glixos/Glix1", "org.freedesktop.DBus.Peer", "Ping", check=False
    )
    assert refused.returncode != 0
