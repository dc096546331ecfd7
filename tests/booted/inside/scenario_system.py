# SPDX-License-Identifier: GPL-3.0-or-later
"""From a change to the running system: evaluated by one user, switched by root, asked for by somebody who is neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.booted.inside.conftest import HOST, PASSWORD
from tests.booted.inside.machine import (
    as_user,
    copied,
    eventually,
    glixctl,
    in_session,
    journal,
    run,
    unit,
)

CURRENT = Path("/run/current-system")
PROFILE = Path("/nix/var/nix/profiles/system")
EXPORT = Path("/etc/glixos")
SYSTEM = f"nixosConfigurations.{HOST}.config.system.build.toplevel"

pytestmark = pytest.mark.usefixtures("repository")


def _programs() -> set[str]:
    return set(os.listdir(CURRENT / "sw/bin"))


def _lines(instance: str) -> list[str]:
    return [str(entry.get("MESSAGE")) for entry in journal(f"SYSLOG_IDENTIFIER={instance}")]


@pytest.fixture(scope="module")
def running(repository: Path) -> None:
    """The machine runs a commit of the repository, switched to by root from /etc/glixos, without glixd."""
    assert repository.is_dir()
    eventually(copied, "the newest commit in the copy")
    built = run("nix", "build", "--no-link", "--print-out-paths", f"{EXPORT}#{SYSTEM}").stdout.strip()
    run("nix-env", "--profile", str(PROFILE), "--set", built)
    run(f"{built}/bin/switch-to-configuration", "switch")


def test_nix_locks_and_evaluates_as_another_user_who_sees_nothing() -> None:
    before = int(unit("glixd-eval.socket", "NAccepted"))
    glixctl("add", "firefox")
    users = {entry["_UID"] for entry in journal("SYSLOG_IDENTIFIER=glixd-eval", "_TRANSPORT=stdout")} | {
        str(Path("/var/lib/glixd-eval").stat().st_uid)
    }
    assert users == {run("id", "-u", "glixd-eval").stdout.strip()}
    assert int(unit("glixd-eval.socket", "NAccepted")) > before, "no evaluator was started"
    assert "nix" not in {path.name for path in Path("/var/lib/glixd/state/cache").glob("*")}
    for path in ("/var/lib/glixd/repo", "/var/lib/glixd/state/state.db", "/run/glixd/activate.sock"):
        assert as_user("glixd-eval", "cat", path, check=False).returncode != 0


@pytest.mark.usefixtures("rule", "running")
def test_somebody_who_is_not_root_switches_the_machine() -> None:
    in_session("alice", "glixctl", "add", "git", seat=True)
    assert "git" not in _programs()
    in_session("alice", "glixctl", "rebuild", seat=True)
    assert "git" in _programs()
    asked = [line for line in _lines("glixd-activate") if '"uid": 1000' in line or '"uid":1000' in line]
    assert asked
    assert unit("nixos-rebuild-switch-to-configuration.service", "LoadState") == "not-found"


@pytest.mark.usefixtures("rule", "running")
def test_somebody_without_the_right_does_not_switch_the_machine() -> None:
    before = os.path.realpath(CURRENT)
    in_session("alice", "glixctl", "add", "perl", seat=True)
    for seat in (True, False):
        assert in_session("bob", "glixctl", "rebuild", seat=seat, check=False).returncode in (3, 12)
    assert os.path.realpath(CURRENT) == before
    assert "perl" not in _programs()


def test_an_ordinary_user_reaches_neither_evaluator_nor_activator() -> None:
    for name in ("eval", "activate"):
        done = as_user("bob", "python3", "-c", _CONNECT.format(f"/run/glixd/{name}.sock"), check=False)
        assert "PermissionError" in done.stderr, done


_CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect({!r})"


def test_no_password_is_anywhere_in_the_journal() -> None:
    assert not [entry for entry in journal() if PASSWORD in str(entry.get("MESSAGE"))]
