# SPDX-License-Identifier: GPL-3.0-or-later
"""From a change to the running system: evaluated by one user, switched by root, asked for by somebody who is neither."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.inside.clones import clone, commit, push
from tests.booted.inside.conftest import HOST, PASSWORD
from tests.booted.inside.machine import (
    PATIENCE,
    UNIT,
    answer,
    as_user,
    copied,
    eventually,
    git,
    glixctl,
    in_session,
    journal,
    main_pid,
    owner,
    run,
    unit,
)
from tests.booted.inside.terminal import on_terminal

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
    run("systemctl", "stop", "glixd.service")  # and with it whoever waits for a job of it
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


@pytest.mark.usefixtures("running")
def test_root_switches_by_its_own_word() -> None:
    glixctl("add", "tmux")
    glixctl("rebuild")
    assert "tmux" in _programs()
    assert os.listdir("/run/glixd-activate") == [], "a wish is heard once"
    assert owner("/run/glixd-activate") == (0, 0, 0o700)
    results = Path("/var/lib/glixd-activate")
    assert owner(results) == (0, results.parent.joinpath("glixd").stat().st_gid, 0o750)


@pytest.fixture
def restarting() -> Iterator[None]:
    """A configuration whose activation starts the daemon anew, pushed by root."""
    folder = clone("root", "restarting")
    file = f"hosts/{HOST}/default.nix"
    before = (folder / file).read_text()
    head, end, tail = before.rpartition("}")
    text = f'{head}  system.extraActivation = "systemctl restart glixd.service";\n{end}{tail}'
    commit(folder, file, text, "Restart glixd")
    push(folder)
    yield
    commit(folder, file, before, "Do not restart glixd")
    push(folder)


@pytest.mark.usefixtures("running", "restarting")
def test_a_switch_that_restarts_the_daemon_itself_is_told_to_its_end() -> None:
    before = main_pid()
    said = on_terminal("alice", "glixctl", "rebuild", passwords=[PASSWORD])  # what people push is not trusted
    assert "switched" in said
    assert main_pid() not in (0, before)
    assert (CURRENT / "etc/glixos-revision").read_text().strip() == git("rev-parse", "main")
    last = answer("transaction", "list", "--limit", "1")["transactions"][0]
    assert (last["operation"], last["state"], last["login"]) == ("Rebuild", "succeeded", "alice")


def test_a_daemon_that_is_killed_in_the_middle_of_changes_loses_none_that_it_promised() -> None:
    there = {package["name"] for package in answer("list", "--all")["packages"]}
    names = sorted({"hello", "cowsay", "ripgrep", "firefox", "polkit", "tmux", "git", "perl"} - there)[:5]
    eventually(lambda: not _evaluates(), "the end of what was evaluated before")
    before, restarts = main_pid(), int(unit(UNIT, "NRestarts"))
    evaluations = int(unit("glixd-eval.socket", "NAccepted"))
    adding = {
        name: subprocess.Popen(["glixctl", "add", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in names
    }
    eventually(lambda: int(unit("glixd-eval.socket", "NAccepted")) > evaluations, "an evaluation")
    os.kill(before, signal.SIGKILL)
    ended = {name: process.wait(PATIENCE) for name, process in adding.items()}
    assert main_pid() not in (0, before)
    assert int(unit(UNIT, "NRestarts")) > restarts
    packages = {package["name"] for package in answer("list", "--all")["packages"]}
    assert {name for name, status in ended.items() if status == 0} == packages & set(names)
    assert set(ended.values()) - {0}, "nothing was interrupted"
    transactions = answer("transaction", "list", "--limit", str(len(names)))["transactions"]
    assert {one["state"] for one in transactions} <= {"failed", "succeeded"}
    assert git("status", "--porcelain") == ""
    assert git("fsck", "--strict", "--no-dangling") == ""
    left = sorted(set(names) - packages)
    glixctl("add", *left)
    assert set(left) <= {package["name"] for package in answer("list", "--all")["packages"]}


def _evaluates() -> bool:
    units = run("systemctl", "list-units", "--no-legend", "--plain", "--state=running", "glixd-eval@*").stdout
    return bool(units.strip())


def test_an_ordinary_user_reaches_neither_evaluator_nor_activator() -> None:
    for name in ("eval", "activate"):
        done = as_user("bob", "python3", "-c", _CONNECT.format(f"/run/glixd/{name}.sock"), check=False)
        assert "PermissionError" in done.stderr, done


_CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect({!r})"


def test_no_password_is_anywhere_in_the_journal() -> None:
    assert not [entry for entry in journal() if PASSWORD in str(entry.get("MESSAGE"))]
