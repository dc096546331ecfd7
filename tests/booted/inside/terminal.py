# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody at a terminal, who types a password when one is asked for."""

from __future__ import annotations

import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.booted.inside.machine import PATIENCE, session


def on_terminal(
    user: str, *command: str, passwords: Sequence[str], environment: Mapping[str, str] | None = None
) -> str:
    """Run a command in a session at the seat, on a terminal of its own; answer the questions for a password, and say what was shown."""
    words = [word if word != "--pipe" else "--pty" for word in session(user, seat=True, environment=environment)]
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [*words, *command], stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    said, answered, waiting, deadline = "", 0, list(passwords), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                said += os.read(leader, 4096).decode(errors="replace")
            except OSError:
                break
        elif process.poll() is not None:
            break
        if len(re.findall(r"Password: ", said)) > answered and waiting and _hears_a_password():
            os.write(leader, f"{waiting.pop(0)}\n".encode())
            answered += 1
    process.wait(PATIENCE)
    os.close(leader)
    assert not waiting, f"a password was asked for {answered} times:\n{said}"
    assert process.returncode == 0, said
    assert len(re.findall(r"Password: ", said)) == answered, f"it was asked for once more:\n{said}"
    return said


def _hears_a_password() -> bool:
    """Whether pkttyagent has got so far that its terminal shows nothing: what is typed before is thrown away."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text() != "pkttyagent\n":
                continue
            number = int((folder / "stat").read_text().rpartition(")")[2].split()[4])
            descriptor = os.open(f"/dev/pts/{os.minor(number)}", os.O_RDONLY | os.O_NOCTTY)
            try:
                return not termios.tcgetattr(descriptor)[3] & termios.ECHO
            finally:
                os.close(descriptor)
    return False
