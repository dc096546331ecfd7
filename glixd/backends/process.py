# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to other programs: a constructed environment, a death signal, cancellation, and nobody left behind.

Programs run synchronously on a worker thread. Each gets its own session, so that its whole group can be stopped, and the
kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG). A lock that is handed down as an open descriptor
stays held until the last child is gone, so a new daemon never works beside an orphan of the old one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glixd.errors import Cancelled, Failed
from glixd.protocol import ErrorCode

KILL_AFTER = 5.0
"""Seconds between asking a program to stop and killing its group; a pure nix evaluation may ignore SIGINT."""
OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of output of one program that are kept; more is a defect of the program."""


class Cancellation:
    """Somebody's wish that a piece of work stops; it is heard until the work is sealed."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._requested = False
        self._sealed = False
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def requested(self) -> bool:
        """Whether somebody wishes to stop."""
        return self._requested

    def request(self) -> bool:
        """Stop the work; False when it is too late, since the work is past its commit point."""
        with self._guard:
            if self._sealed:
                return False
            self._requested = True
            child = self._child
        if child is not None:
            _stop(child)
        return True

    def check(self) -> None:
        """Raise Cancelled when somebody wishes to stop."""
        if self._requested:
            raise Cancelled("The transaction was cancelled; nothing was changed.")

    def seal(self) -> None:
        """Make the work unstoppable from here on; raises Cancelled when it already was stopped."""
        with self._guard:
            self.check()
            self._sealed = True

    def follow(self, child: subprocess.Popen[bytes] | None) -> None:
        """Stop `child` too when the work is stopped; None ends that."""
        with self._guard:
            self._child = child
            requested = self._requested
        if requested and child is not None:
            _stop(child)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left: its exit status (negative: the signal that ended it) and its output."""

    status: int
    stdout: bytes
    stderr: bytes


class Processes:
    """Starts programs with one constructed environment, an allow-list made by the settings."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._prefix = _death_signal(self.environment)

    def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a program that talks through pipes; raises UnsupportedHere when it is not installed."""
        try:
            return subprocess.Popen(
                [*self._prefix, self._found(os.fspath(argv[0])), *(os.fspath(word) for word in argv[1:])],
                cwd=cwd,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=tuple(keep),
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"{os.fspath(argv[0])} can't be started: {error.strerror}.") from error

    def _found(self, program: str) -> str:
        found = shutil.which(program, path=self.environment.get("PATH"))
        if found is None:
            raise Failed(
                f"The program {program} is not installed or not on the daemon's path.",
                code=ErrorCode.UNSUPPORTED_HERE,
                hint=f"Install {program} and try again.",
            )
        return found

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        keep: Sequence[int] = (),
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Completed:
        """Run a program to its end; raises Cancelled, TimedOut (after `timeout` seconds) or UnsupportedHere."""
        if cancellation:
            cancellation.check()
        child = self.start(argv, cwd=cwd, environment=environment, keep=keep)
        if cancellation:
            cancellation.follow(child)
        try:
            stdout, stderr = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            _stop(child)
            child.communicate()
            raise Failed(
                f"{os.fspath(argv[0])} did not finish within {timeout:.0f} seconds.", code=ErrorCode.TIMED_OUT
            ) from None
        finally:
            if cancellation:
                cancellation.follow(None)
            _reap(child)
        if cancellation:
            cancellation.check()
        return Completed(child.returncode, stdout[:OUTPUT_LIMIT], stderr[:OUTPUT_LIMIT])


def _death_signal(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The words that make the kernel kill a child with us; setpriv needs no code between fork and exec of our own."""
    setpriv = shutil.which("setpriv", path=environment.get("PATH"))
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the group of `child` to stop, and kill it a little later; nix stops a build on SIGINT and orphans it on SIGKILL."""
    _signal(child, signal.SIGINT)
    timer = threading.Timer(KILL_AFTER, _signal, (child, signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.poll() is None:
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Leave no zombie and no open pipe, whatever happened."""
    if child.poll() is None:
        _signal(child, signal.SIGKILL)
        child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
