# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks, and whether polkit lets them: the kernel and the bus say who, never the order; every doubt is a no."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from pathlib import Path
from subprocess import DEVNULL, Popen, SubprocessError, run
from typing import Final

from glixd.activator.order import Refused

TIMEOUT: Final = 120.0
WISH_TIMEOUT: Final = 10.0
_ANSWERS: Final = {
    1: ("the caller may not do this", "NotAuthorised"),
    2: ("this needs a password, and there is nobody to ask for it", "NotAuthorised"),
    3: ("the password dialogue was closed", "AuthorisationDismissed"),
}
_BUS: Final = "org.freedesktop.DBus"
_UID_OF: Final = ("busctl", "--json=short", "call", _BUS, "/org/freedesktop/DBus", _BUS, "GetConnectionUnixUser", "s")


def subject_of(caller: str) -> tuple[list[str], int]:
    """The words by which polkit knows a caller, and the caller's uid; raises Refused when there is no such caller."""
    try:
        if caller.startswith(":"):
            asked = run([*_UID_OF, caller], capture_output=True, timeout=10, check=True, stdin=DEVNULL)
            return ["--system-bus-name", caller], int(json.loads(asked.stdout)["data"][0])
        process = Path("/proc") / caller.removeprefix("pid:")
        start, uid = _start(process), (process / "status").read_text().partition("\nUid:\t")[2].split()[0]
        if start != _start(process):
            raise ValueError
        return ["--process", f"{process.name},{start},{uid}"], int(uid)
    except (OSError, ValueError, LookupError, SubprocessError):
        raise Refused("the caller is gone, so nobody can be asked") from None


def ask(action: str, subject: list[str], details: dict[str, str], connection: socket.socket, *, may: bool) -> None:
    """Ask polkit for as long as somebody waits at the connection; raises Refused for every answer but yes."""
    words = ["pkcheck", "--action-id", f"org.glixos.glix1.{action}", *subject]
    words += ["--allow-user-interaction"] if may else []
    words += [word for name, value in details.items() for word in ("--detail", name, value)]
    with Popen(words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as child:
        ended = os.pidfd_open(child.pid)
        ready = select.select([ended, connection.fileno()], [], [], TIMEOUT)[0]
        child.kill()
    if not ready:
        raise Refused("nobody answered the password dialogue in time", "AuthorisationTimedOut")
    if ended not in ready:
        raise Refused("the transaction was cancelled", "Cancelled")
    if child.returncode:
        raise Refused(*_ANSWERS.get(child.returncode, ("polkit gave no answer", "AuthorisationUnavailable")))


def take_wish(folder: Path, transaction: str) -> None:
    """Root says for itself, where only root can write, that it wants this; the daemon could name any process of root."""
    deadline = time.monotonic() + WISH_TIMEOUT
    while not (folder / transaction).exists():
        if time.monotonic() > deadline:
            raise Refused("root did not say that it wants this; as root, use glixctl or nixos-rebuild")
        time.sleep(0.05)
    if folder.stat().st_uid or folder.stat().st_mode & 0o022 or (folder / transaction).lstat().st_uid:
        raise Refused("others could say what root wants")
    (folder / transaction).unlink()


def _start(process: Path) -> str:
    return (process / "stat").read_bytes().rpartition(b")")[2].split()[19].decode()
