# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at chosen system calls of a whole process tree; see faultat.c."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.hermetic import PROJECT

SOURCE: Final = Path(__file__).with_name("faultat.c")
CACHE: Final = PROJECT / ".cache" / "tests"
PATIENCE: Final = 60.0
"""Seconds after which a disturbed program that does not end has failed the test."""
KILLED: Final = 128 + signal.SIGKILL
ABLE: Final = platform.machine() == "x86_64"


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
class Ended:
    """How a disturbed program ended."""

    status: int
    stdout: bytes
    stderr: bytes


def faultat() -> Path:
    """The compiled program; made anew when its source is younger."""
    program = CACHE / "faultat"
    if not program.exists() or program.stat().st_mtime_ns < SOURCE.stat().st_mtime_ns:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            fresh = Path(folder) / "faultat"
            flags = ("-O2", "-Wall", "-Wextra", "-Werror")
            subprocess.run(["cc", *flags, "-o", os.fspath(fresh), os.fspath(SOURCE)], check=True)
            fresh.replace(program)
    return program


def disturbed(command: Sequence[str], fault: Fault, point: int, *, below: Path) -> Ended:
    """Run `command` with a fault at its call number `point` on files below a folder."""
    chosen = ("-n", str(point), "-m", fault.mode, "-e", str(fault.number), "-s", fault.kind)
    return _run([os.fspath(faultat()), *chosen, "-p", os.path.realpath(below), "--", *command])


@dataclass(frozen=True)
class Call:
    """A system call that changes a file, or makes it durable."""

    point: int
    name: str
    path: str


def calls(command: Sequence[str], fault: Fault, *, below: Path) -> list[Call]:
    """The calls that the fault could hit, in order; nothing is disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        chosen = ("-s", fault.kind, "-l", os.fspath(log), "-p", os.path.realpath(below))
        ended = _run([os.fspath(faultat()), *chosen, "--", *command])
        assert ended.status == 0, ended
        words = [line.split(" ", 3) for line in log.read_text().splitlines()]
        return [Call(int(number), name, path) for number, _, name, path in words]


def python(module: str, *arguments: str | Path) -> list[str]:
    """The command that runs a module of this checkout."""
    return [sys.executable, "-m", module, *(os.fspath(argument) for argument in arguments)]


def _run(argv: Sequence[str]) -> Ended:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.fspath(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": os.environ["HOME"],
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE
    )
    return Ended(done.returncode, done.stdout, done.stderr)
