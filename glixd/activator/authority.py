# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks, and whether polkit lets them: the kernel and the bus say who, never the order; every doubt is a no."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from glixd.activator.order import Refused

TIMEOUT: Final = 120.0
WISH_TIMEOUT: Final = 10.0
_ANSWERS: Final = {
    1: ("the caller may not do this", "NotAuthorised"),
    2: ("this needs a password, and there is nobody to ask for it", "NotAuthorised"),
    3: ("the password dialogue was closed", "AuthorisationDismissed"),
}
_ASK_BUS: Final = ("busctl", "--system", "--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus")


def subject_of(caller: str) -> tuple[list[str], int]:
    """The words by which polkit knows a caller, and the caller's uid; raises Refused when there is no such caller."""
    try:
        if caller.startswith(":"):
            words = [*_ASK_BUS, "org.freedesktop.DBus", "GetConnectionUnixUser", "s", caller]
            said = subprocess.run(words, capture_output=True, timeout=10, check=True, stdin=subprocess.DEVNULL).stdout
            return ["--system-bus-name", caller], int(json.loads(said)["data"][0])
        process = Path("/proc") / caller.removeprefix("pid:")
        start, uid = _start(process), (process / "status").read_text().partition("\nUid:\t")[2].split()[0]
        if start != _start(process):
            raise ValueError
        return ["--process", f"{process.name},{start},{uid}"], int(uid)
    except (OSError, ValueError, LookupError, subprocess.SubprocessError):
        raise Refused("the caller is gone, so nobody can be asked") from None


def ask(action: str, subject: list[str], details: dict[str, str], connection: socket.socket, *, may: bool) -> None:
    """Ask polkit for as long as somebody waits at the connection; raises Refused for every answer but yes."""
    words = ["pkcheck", "--action-id", f"org.glixos.glix1.{action}", *subject]
    words += ["--allow-user-interaction"] if may else []
    words += [word for name, value in details.items() for word in ("--detail", name, value)]
    deadline = time.monotonic() + TIMEOUT
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while child.poll() is None:
            if time.monotonic() > deadline:
                raise Refused("nobody answered the password dialogue in time", "AuthorisationTimedOut")
            if select.select([connection], [], [], 0.05)[0]:
                raise Refused("the transaction was cancelled", "Cancelled")
    finally:
        child.kill()
        child.wait()
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
