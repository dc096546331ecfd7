# SPDX-License-Identifier: GPL-3.0-or-later
"""The process at the other end of a Unix socket, by a descriptor of the kernel's that no other process can take over."""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import suppress
from typing import Final, Self

SO_PEERPIDFD: Final = 77
"""Since Linux 6.5: a pidfd of the process that connected, without a moment in which its pid could be used again."""
_UCRED: Final = struct.Struct("3i")
_START: Final = 19
"""The place of `starttime` in /proc/PID/stat, counted behind the name of the program."""


class Peer:
    """The process that connected. Its descriptor is held until `close`; from then on it counts as gone.

    Before Linux 6.5 the descriptor is opened by pid, so the pid is compared by its uid right after: a process that took the
    pid in between belongs to the same user, or is refused.
    """

    def __init__(self, pid: int, uid: int, descriptor: int) -> None:
        self.pid = pid
        self.uid = uid
        self._descriptor = descriptor
        self.start = _start_time(pid) if self.alive else 0

    @classmethod
    def of(cls, connection: socket.socket, *, by_descriptor: bool = True) -> Self | None:
        """The process that connected; None where it is gone, or can't be told from another one."""
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if pid <= 0:
            return None
        if by_descriptor:
            with suppress(OSError):
                return cls(pid, uid & 0xFFFFFFFF, _peer_descriptor(connection))
        return cls._by_pid(pid, uid & 0xFFFFFFFF)

    @classmethod
    def _by_pid(cls, pid: int, uid: int) -> Self | None:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        peer = cls(pid, uid, descriptor)
        if peer.start and _owner(pid) == uid and peer.alive:
            return peer
        peer.close()
        return None

    @property
    def alive(self) -> bool:
        """Whether it still runs: as long as it does, its pid means nobody else."""
        if self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Let go of it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _peer_descriptor(connection: socket.socket) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)


def _start_time(pid: int) -> int:
    """When a process started; 0 where /proc hides it (ProtectProc=invisible)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_START])
    except (OSError, ValueError, IndexError):
        return 0


def _owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1
