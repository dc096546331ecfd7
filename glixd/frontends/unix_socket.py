# SPDX-License-Identifier: GPL-3.0-or-later
"""The Unix socket itself: a listener that replaces the file of a dead daemon, and who is at the other end."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from glixd.errors import Failed
from glixd.protocol import ErrorCode

_UCRED: Final = struct.Struct("3i")
_BACKLOG: Final = 128


def listen(path: str | Path, *, mode: int = 0o600) -> socket.socket:
    """Listen at `path`, in a folder that only we can write to; raises Busy when another daemon answers there.

    The socket is made beside and renamed into place: nobody ever sees it with other permissions, and a socket file that
    a killed daemon left is replaced in one step. Daemons that start at the same moment take turns. A socket for everybody
    (mode 0o666) is in a folder that everybody can pass through, where that is made here.
    """
    path = Path(path)
    _check_length(path)
    _prepare_folder(path.parent, 0o755 if mode & 0o007 else 0o700)
    with _turn(path):
        _check_dead(path)
        return _bind(path, mode)


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process that connected, as the kernel recorded it then."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    return int(uid) & 0xFFFFFFFF


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > 100:  # the kernel takes 107 bytes; a few are for the name while it is made
        raise Failed(
            f"The path of the socket is too long for the kernel: {path}", hint="Choose a shorter runtime folder."
        )


def _prepare_folder(folder: Path, mode: int) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
        folder.chmod(mode)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Failed(
            f"Others could replace the socket: {folder} has to belong to uid {os.geteuid()} and be writable to it alone.",
            code=ErrorCode.READ_ONLY,
            hint=f"chmod go-w {folder}",
        )


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One daemon at a time looks for a dead socket and replaces it."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Failed(f"{path} is there and is no socket.", hint="Move it away, or choose another path.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        answer = probe.connect_ex(os.fspath(path))
    if answer in (errno.ECONNREFUSED, errno.ENOENT):
        return
    raise Failed(f"Another daemon answers at {path}.", code=ErrorCode.BUSY, details={"path": os.fspath(path)})


def _bind(path: Path, mode: int) -> socket.socket:
    beside = path.with_name(f".{secrets.token_hex(2)}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.bind(os.fspath(beside))
        beside.chmod(mode)
        listener.listen(_BACKLOG)
        beside.replace(path)
    except BaseException:
        listener.close()
        beside.unlink(missing_ok=True)
        raise
    return listener
