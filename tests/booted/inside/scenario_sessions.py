# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may install what: it depends on the person, on where they sit, and on what it is; polkit and logind say so."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.booted.inside.conftest import HOST, PASSWORD
from tests.booted.inside.machine import (
    PATIENCE,
    Done,
    answer,
    as_user,
    eventually,
    in_session,
    journal,
    run,
    session,
    subject,
)
from tests.booted.inside.terminal import on_terminal

WITHOUT_AGENT = 12
"""How glixctl ends where a password is needed and nothing could ask for it."""


def _installed() -> set[str]:
    return {package["name"] for package in answer("list")["packages"]}


def _refused(done: Done) -> bool:
    return done.returncode == WITHOUT_AGENT and "A password is needed" in done.stderr


@pytest.mark.usefixtures("repository")
def test_root_installs_and_the_commit_says_who_it_was() -> None:
    run("glixctl", "add", "hello")
    assert "hello" in _installed()
    assert (
        "root" in run("git", "-c", "safe.directory=*", "-C", "/var/lib/glixd/repo", "log", "-1", "--format=%an").stdout
    )


@pytest.mark.usefixtures("repository", "rule")
def test_a_member_of_wheel_at_the_machine_installs_a_trusted_package_without_a_password() -> None:
    in_session("alice", "glixctl", "add", "cowsay", seat=True)
    assert "cowsay" in _installed()


@pytest.mark.usefixtures("repository", "rule")
def test_a_member_of_wheel_is_refused_an_untrusted_package(stranger: str) -> None:
    before = subject()
    done = in_session(
        "alice", "glixctl", "add", "--yes", f"{stranger}/hello.tar.gz", "--name", "stranger", seat=True, check=False
    )
    assert _refused(done), done
    assert subject() == before


@pytest.mark.usefixtures("repository", "rule")
@pytest.mark.parametrize("seat", [True, False])
def test_somebody_else_is_refused_a_trusted_package(seat: bool) -> None:
    before = subject()
    assert _refused(in_session("bob", "glixctl", "add", "tmux", seat=seat, check=False))
    assert subject() == before


@pytest.mark.usefixtures("repository", "rule")
def test_a_member_of_wheel_who_does_not_sit_at_the_machine_is_refused() -> None:
    before = subject()
    assert _refused(in_session("alice", "glixctl", "add", "tmux", seat=False, check=False))
    assert _refused(as_user("alice", "glixctl", "add", "tmux", check=False))
    assert subject() == before


@pytest.mark.usefixtures("repository", "rule")
def test_a_member_of_wheel_whose_session_is_not_active_is_refused() -> None:
    before = subject()
    ask = [*session("alice", seat=True), "sh", "-c", "echo $XDG_SESSION_ID; read word; glixctl add tmux"]
    waiting = subprocess.Popen(ask, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stdout
    first = waiting.stdout.readline().strip()
    with subprocess.Popen([*session("carol", seat=True), "sleep", "infinity"]) as other:
        try:
            second = eventually(lambda: _session_of("carol"), "the session of the other")
            run("loginctl", "activate", second)
            eventually(lambda: _property(first, "Active") == "no", "the change of sessions")
            said, problem = waiting.communicate("go\n", timeout=PATIENCE)
        finally:
            run("loginctl", "terminate-user", "carol", check=False)
            other.terminate()
            waiting.kill()
    assert waiting.returncode == WITHOUT_AGENT, said + problem
    assert subject() == before


def _session_of(user: str) -> str:
    for line in run("loginctl", "list-sessions", "--no-legend").stdout.splitlines():
        if line.split()[2] == user:
            return line.split()[0]
    return ""


def _property(session_id: str, name: str) -> str:
    return run("loginctl", "show-session", "--value", f"--property={name}", session_id).stdout.strip()


@pytest.mark.usefixtures("repository", "rule")
def test_the_absence_of_polkit_lets_nobody_but_root_do_anything() -> None:
    before = subject()
    run("systemctl", "mask", "--runtime", "--now", "polkit.service")
    try:
        done = in_session("alice", "glixctl", "add", "ripgrep", seat=True, check=False)
        assert done.returncode == 12, done
        assert subject() == before
        assert answer("ping")["version"]
    finally:
        run("systemctl", "unmask", "--runtime", "polkit.service")


@pytest.mark.usefixtures("repository", "rule")
def test_a_polkit_that_was_restarted_is_asked_again() -> None:
    run("systemctl", "restart", "polkit.service")
    in_session("alice", "glixctl", "add", "ripgrep", seat=True)
    assert "ripgrep" in _installed()


@pytest.mark.usefixtures("repository")
def test_every_action_is_registered_with_polkit() -> None:
    actions = run("pkaction").stdout.split()
    shipped = Path("/usr/share/polkit-1/actions/org.glixos.glix1.policy").read_text()
    named = set(re.findall(r'<action id="([^"]+)"', shipped))
    assert named
    assert named <= set(actions)


@pytest.mark.usefixtures("repository")
def test_a_password_on_a_terminal_installs_what_is_not_trusted(stranger: str) -> None:
    command = ("glixctl", "add", "--yes", f"{stranger}/greeting.tar.gz", "--name", "greeting")
    said = on_terminal("alice", *command, passwords=[PASSWORD])
    assert "greeting" in _installed(), said
    assert PASSWORD not in said
    assert not [entry for entry in journal() if PASSWORD in str(entry.get("MESSAGE"))]


@pytest.mark.usefixtures("repository")
def test_the_repository_is_the_daemons_alone() -> None:
    for path in ("/var/lib/glixd", "/var/lib/glixd/repo", "/var/lib/glixd/state"):
        assert as_user("bob", "ls", path, check=False).returncode != 0
    assert HOST in os.listdir("/var/lib/glixd/repo/hosts")
