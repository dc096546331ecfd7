# SPDX-License-Identifier: GPL-3.0-or-later
"""glixctl on a terminal: it brings an agent that asks for the password of an administrator, and says how that went."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.machine import PASSWORD
from tests.support.system import System

pytestmark = [pytest.mark.integration, pytest.mark.nix]

PATIENCE = 60.0
ADD = ("add", "hello", "--scope", "system", "--dry-run")


_TAKE_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal that of the session, as a login does, and becomes the program."""


class Terminal:
    """A program on a terminal, and what it has shown so far."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.shown = ""

    def expect(self, text: str) -> None:
        """Wait until something is shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert self._read(deadline - time.monotonic()), f"{text!r} is not shown, but: {self.shown}"

    def type(self, text: str) -> None:
        """Type a line, once nothing that is typed is shown: what comes before that is thrown away."""
        deadline = time.monotonic() + PATIENCE
        while self.echoes():
            assert time.monotonic() < deadline, f"what is typed would be shown: {self.shown}"
            time.sleep(0.01)
        os.write(self._master, text.encode() + b"\n")

    def ended(self) -> int:
        """The exit code, with all that was shown until the end."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._master, 4096)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def glixctl(at: System, user: str, *words: str) -> Iterator[Terminal]:
    """glixctl of a user on a terminal of its own."""
    program = Path(sys.executable).parent / "glixctl"
    command = at.machine.command(user, os.fspath(program), "--mode", "system", "--transport", "bus", *words)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_TERMINAL, *command],
        env=at.machine.environment({"TERM": "xterm"}),
        cwd="/",
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_the_password_of_an_administrator_lets_a_user_install(at: System) -> None:
    with glixctl(at, "alice", *ADD) as terminal:
        terminal.expect("Authentication is required to install hello on laptop")
        terminal.expect("Password:")
        terminal.type(PASSWORD)
        assert terminal.ended() == Exit.DONE, terminal.shown
        assert "AUTHENTICATION COMPLETE" in terminal.shown
        assert "dry run: added hello to laptop" in terminal.shown
        assert PASSWORD not in terminal.shown


def test_a_wrong_password_is_a_refusal(at: System) -> None:
    with glixctl(at, "bob", *ADD) as terminal:
        terminal.expect("Password:")
        terminal.type("wrong")
        assert terminal.ended() == Exit.NOT_AUTHORISED, terminal.shown


def test_nobody_is_asked_who_says_so(at: System) -> None:
    with glixctl(at, "bob", *ADD, "--no-ask") as terminal:
        assert terminal.ended() == Exit.NOT_AUTHORISED, terminal.shown
        assert "Password" not in terminal.shown
        assert "glixctl: That needs a password" in terminal.shown


def test_an_interruption_while_a_password_is_asked_for_leaves_the_terminal_as_it_was(at: System) -> None:
    with glixctl(at, "bob", *ADD) as terminal:
        terminal.expect("Password:")
        os.write(terminal._master, b"\x03")
        assert terminal.ended() == Exit.INTERRUPTED, terminal.shown
        assert terminal.echoes()


def test_in_a_pipe_there_is_no_agent_and_nobody_to_ask(at: System) -> None:
    done = at.glixctl("bob", *ADD)
    assert done.returncode == Exit.UNAVAILABLE, done.stderr
    assert "there is nothing that could ask for it" in done.stderr


def test_root_is_asked_nothing(at: System) -> None:
    with glixctl(at, "root", *ADD) as terminal:
        assert terminal.ended() == Exit.DONE, terminal.shown
        assert "AUTHENTICAT" not in terminal.shown


def test_a_transaction_of_somebody_else_may_be_read_with_a_password(at: System) -> None:
    with at.as_root() as root:
        ended = root.run("Add", refs=["hello"], dry_run=True)
    with glixctl(at, "bob", "transaction", "show", ended["id"]) as terminal:
        terminal.expect("Authentication is required to look at a change that the user with the id 0 made")
        terminal.expect("Password:")
        terminal.type(PASSWORD)
        assert terminal.ended() == Exit.DONE, terminal.shown
        assert ended["id"] in terminal.shown
