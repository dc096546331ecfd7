# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at chosen system calls of a whole process tree; see faultat.c."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.hermetic import PROJECT

SOURCE: Final = Path(__file__).with_name("faultat.c")
CACHE: Final = PROJECT / ".cache" / "tests"
PATIENCE: Final = 90
"""Seconds after which a disturbed program that does not end has failed the test."""
KILLED: Final = 128 + signal.SIGKILL
DEFECT: Final = 70
"""The status of a child whose work raised what it should not."""
UNTRACED: Final = 71
"""The status of a tracer that could not trace its child."""
ABLE: Final = platform.machine() == "x86_64"
MODES: Final = {"kill": 0, "errno": 1, "stick": 2}
KINDS: Final = {"write": 1, "sync": 2, "rename": 4, "all": 15}


@dataclass(frozen=True)
class Fault:
    """One way to disturb: what happens, and to which kind of call."""

    name: str
    mode: str
    kind: str
    number: int = 0

    @property
    def kills(self) -> bool:
        """Whether the disturbed processes die."""
        return self.mode == "kill"


KILL: Final = Fault("SIGKILL", "kill", "all")
ONE_ENOSPC: Final = Fault("one ENOSPC", "errno", "write", errno.ENOSPC)
STICKY_ENOSPC: Final = Fault("sticky ENOSPC", "stick", "write", errno.ENOSPC)
FSYNC_EIO: Final = Fault("EIO on fsync", "errno", "sync", errno.EIO)
RENAME_EIO: Final = Fault("EIO on rename", "errno", "rename", errno.EIO)
FAULTS: Final = (KILL, ONE_ENOSPC, STICKY_ENOSPC, FSYNC_EIO, RENAME_EIO)


@dataclass(frozen=True)
class Call:
    """A system call that changes a file, or makes it durable."""

    point: int
    name: str
    path: str
    other: str = ""
    """The second file of a call that has two."""

    @property
    def synchronises(self) -> bool:
        """Whether it waits for a disk."""
        return self.kinds == KINDS["sync"]

    @property
    def kinds(self) -> int:
        """The kinds of calls that it is one of, as in faultat.c."""
        if self.name in ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync"):
            return KINDS["sync"]
        if self.name.startswith(("rename", "link")):
            return KINDS["write"] | KINDS["rename"]
        return 8 if self.name.startswith(("unlink", "rmdir", "chmod", "fchmod")) else KINDS["write"]


@dataclass(frozen=True)
class Watch:
    """What calls count: those on files at or below a folder, but not below others."""

    below: Path
    but: Sequence[Path] = ()
    log: Path | None = None
    copies: Path | None = field(default=None)
    """A folder that gets what each call made durable, under the number of the call."""


class _Order(ctypes.Structure):
    _fields_ = (
        ("at", ctypes.c_long),
        ("mode", ctypes.c_int),
        ("error_number", ctypes.c_int),
        ("kinds", ctypes.c_int),
        ("below", ctypes.c_char_p),
        ("but", ctypes.c_char_p),
        ("log", ctypes.c_char_p),
        ("copies", ctypes.c_char_p),
    )


def follow(work: Callable[[], None], watch: Watch, fault: Fault = KILL, point: int = 0) -> int:
    """Do `work` in a child with a fault at call number `point`; the status of the child, and nobody of it is left.

    Nothing is disturbed at point 0. The caller has one thread. Who traces is a child too, and waits for all children of
    its own: it has none but those that it traces, whichever the caller has.
    """
    library = _library()
    tracer = os.fork()
    if tracer == 0:
        status = UNTRACED
        try:
            status = _trace(library, work, watch, fault, point)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(tracer, 0)[1])
    assert status not in (UNTRACED, -signal.SIGKILL), "the child can't be traced"
    return status


def _trace(library: ctypes.CDLL, work: Callable[[], None], watch: Watch, fault: Fault, point: int) -> int:
    child = os.fork()
    if child == 0:
        _carry(work, library.faultat_trace_me)
    order = _Order(
        point,
        MODES[fault.mode],
        fault.number,
        KINDS[fault.kind],
        os.fsencode(os.path.realpath(watch.below)),
        os.fsencode(":".join(os.path.realpath(folder) for folder in watch.but)),
        os.fsencode(watch.log or ""),
        os.fsencode(watch.copies or ""),
    )
    status: int = library.faultat_follow(child, ctypes.byref(order))
    return status if status >= 0 else UNTRACED


def undisturbed(work: Callable[[], None]) -> int:
    """Do `work` in a child of its own; its status."""
    child = os.fork()
    if child == 0:
        _carry(work, lambda: 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def calls(log: Path) -> list[Call]:
    """The calls that a log of `follow` tells of."""
    found = []
    for line in log.read_text().splitlines():
        number, _, name, paths = line.split(" ", 3)
        first, _, second = paths.partition("\t")
        found.append(Call(int(number), name, first, second))
    return found


def hit(calls: Sequence[Call], fault: Fault) -> list[Call]:
    """The calls that a fault may hit, with the number that they have among them."""
    found = [call for call in calls if call.kinds & KINDS[fault.kind]]
    return [replace(call, point=number) for number, call in enumerate(found, 1)]


def _carry(work: Callable[[], None], begin: Callable[[], int]) -> None:
    """What a child does; it never returns, so that nothing of the parent's runs twice."""
    status = DEFECT
    try:
        signal.alarm(PATIENCE)
        problem = begin()
        if problem == 0:
            work()
            status = 0
        else:
            os.write(2, f"it can't be traced: {os.strerror(problem)}\n".encode())
    except BaseException:  # noqa: BLE001 - whatever it is, it is told, and the parent's code never runs here
        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@cache
def _library() -> ctypes.CDLL:
    """The compiled library; made anew when its source is younger."""
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / "faultat.so"
    with (CACHE / "faultat.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime_ns < SOURCE.stat().st_mtime_ns:
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                fresh = Path(folder) / "faultat.so"
                flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
                subprocess.run(["cc", *flags, "-o", os.fspath(fresh), os.fspath(SOURCE)], check=True)
                fresh.replace(made)
    library = ctypes.CDLL(os.fspath(made), use_errno=True)
    library.faultat_follow.argtypes = (ctypes.c_int, ctypes.POINTER(_Order))
    library.faultat_follow.restype = ctypes.c_int
    library.faultat_trace_me.restype = ctypes.c_int
    return library
