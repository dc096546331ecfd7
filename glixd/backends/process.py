# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to other programs: a constructed environment, a death signal, cancellation, and nobody left behind.

Programs run synchronously on a worker thread. Each gets its own session, so that its whole group can be stopped, and the
kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG). A lock that is handed down as an open descriptor
stays held until the last child is gone, so a new daemon never works beside an orphan of the old one.
"""

from __future__ import annotations

import os
import resource
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

from glixd.errors import Cancelled, Failed
from glixd.protocol import ErrorCode
from glixd.values import dataclass

KILL_AFTER = 5.0
"""Seconds between asking a program to stop and killing its group; a pure nix evaluation may ignore SIGINT."""
OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of output of one program that are kept; more is a defect of the program."""

CHUNK = 64 * 1024
WORDS_LIMIT = 256 * 1024
"""Bytes of errors that are kept, from the end, of a program that is heard line by line."""
LOWEST_PRIORITY = 19
UNLIMITED = resource.RLIM_INFINITY
"""As much memory as there is, for work in the background whose size nobody can say."""


class Stoppable(Protocol):
    """Work that can be asked to stop, from any thread."""

    def stop(self) -> None:
        """Ask; the work ends a little later."""


class Cancellation:
    """Somebody's wish that a piece of work stops; it is heard until the work is sealed."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._requested = False
        self._sealed = False
        self._work: Stoppable | None = None
        self.abandoned = False
        self._when_sealed: Callable[[], None] | None = None

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
            work = self._work
        if work is not None:
            work.stop()
        return True

    def check(self) -> None:
        """Raise Cancelled when somebody wishes to stop."""
        if self._requested:
            raise Cancelled("The transaction was cancelled; nothing was changed.")

    def seal(self) -> None:
        """Make the work unstoppable from here on; raises Cancelled when it already was stopped."""
        with self._guard:
            self.check()
            first, self._sealed = not self._sealed, True
        if first and self._when_sealed:
            self._when_sealed()

    def abandon(self) -> None:
        """Let go of the work, sealed or not, which goes on elsewhere: nobody here waits for its end any more."""
        with self._guard:
            self.abandoned = True
            work = self._work
        if work is not None:
            work.stop()

    def when_sealed(self, call: Callable[[], None]) -> None:
        """Call this, once, on the thread that seals the work."""
        self._when_sealed = call

    def follow(self, work: Stoppable | None) -> None:
        """Stop this too when the work is stopped; None ends that."""
        with self._guard:
            self._work = work
            requested = self._requested
        if requested and work is not None:
            work.stop()


class Begun:
    """A program that runs, and that waits for what it is told."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def tell(self, stdin: bytes) -> None:
        """Give it its whole input, and wait for nothing; one that has ended says so by how it ended."""
        if self._child.stdin:
            with suppress(BrokenPipeError), self._child.stdin:
                self._child.stdin.write(stdin)
            self._child.stdin = None

    def finish(self) -> Completed:
        """Wait for its end."""
        stdout, stderr = self._child.communicate()
        return Completed(self._child.returncode, stdout, stderr)


class _Group:
    """A program that runs, with all that it started: they share a process group, and end together."""

    def __init__(self, leader: subprocess.Popen[bytes], kill_after: float) -> None:
        self._leader = leader
        self._guard = threading.Lock()
        self._timer = threading.Timer(kill_after, self._signal, (signal.SIGKILL,))
        self._timer.daemon = True
        self._stopping = False
        self._ended = False

    def stop(self) -> None:
        """Ask everybody to stop, and kill a little later; nix stops a build on SIGINT and orphans it on SIGKILL.

        The leader may be gone before the others: what a shell starts in the background does not hear SIGINT.
        """
        self._signal(signal.SIGINT)
        with self._guard:
            if not self._stopping and not self._ended:
                self._stopping = True
                self._timer.start()

    def end(self) -> None:
        """Kill whoever is left, and leave no zombie and no open pipe, whatever happened."""
        self._signal(signal.SIGKILL)
        with self._guard:
            self._ended = True
        self._timer.cancel()
        self._leader.wait()
        for pipe in (self._leader.stdin, self._leader.stdout, self._leader.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        with self._guard:
            if not self._ended:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._leader.pid, number)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left: its exit status (negative: the signal that ended it) and its output."""

    status: int
    stdout: bytes
    stderr: bytes


class Processes:
    """Starts programs with one constructed environment, an allow-list made by the settings."""

    def __init__(self, environment: Mapping[str, str], *, kill_after: float = KILL_AFTER) -> None:
        self.environment = dict(environment)
        self._kill_after = kill_after

    @cached_property
    def _prefix(self) -> tuple[str, ...]:
        """What stands before each program. Only a program that is started tells, so that is left until there is one to start."""
        return _death_signal(self.environment)

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

    @contextmanager
    def begun(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
    ) -> Iterator[Begun]:
        """A program that starts, and may do its work, while we do something else; killed at the end of the context."""
        child = self.start(argv, cwd=cwd, environment=environment, keep=keep)
        try:
            yield Begun(child)
        finally:
            _Group(child, self._kill_after).end()

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
        memory: int | None = None,
        on_line: Callable[[bytes], None] | None = None,
    ) -> Completed:
        """Run a program to its end; raises Cancelled, TimedOut (after `timeout` seconds) or UnsupportedHere.

        With `memory`, it is work for the background: it yields to everything else and gets no more address space than that.
        `on_line` hears each line of standard error when it comes.
        """
        if cancellation:
            cancellation.check()
        child = self.start(argv, cwd=cwd, environment=environment, keep=keep)
        group = _Group(child, self._kill_after)
        if memory is not None:
            _restrain(child.pid, memory)
        if cancellation:
            cancellation.follow(group)
        try:
            if on_line is None:
                stdout, stderr = child.communicate(stdin, timeout=timeout)
            else:
                stdout, stderr = _listen(child, timeout, on_line)
        except subprocess.TimeoutExpired:
            group.stop()
            child.communicate()
            raise Failed(
                f"{os.fspath(argv[0])} did not finish within {timeout:.0f} seconds.", code=ErrorCode.TIMED_OUT
            ) from None
        finally:
            if cancellation:
                cancellation.follow(None)
            group.end()
        if cancellation:
            cancellation.check()
        return Completed(child.returncode, stdout[:OUTPUT_LIMIT], stderr[:OUTPUT_LIMIT])


def _listen(
    child: subprocess.Popen[bytes], timeout: float | None, on_line: Callable[[bytes], None]
) -> tuple[bytes, bytes]:
    """What a program writes, its errors line by line; the last of them are kept. It is given nothing to read."""
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise ValueError("the program has no pipes")
    child.stdin.close()
    deadline = None if timeout is None else time.monotonic() + timeout
    output, words, line = bytearray(), bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(child.args, timeout or 0.0)
            for key, _ in ready:
                data = os.read(key.fd, CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    output += data[: OUTPUT_LIMIT - len(output)]
                else:
                    words += data
                    del words[: max(0, len(words) - WORDS_LIMIT)]
                    line += data
                    *complete, rest = bytes(line).split(b"\n")
                    line[:] = rest[:CHUNK]
                    for one in complete:
                        on_line(one)
    if line:
        on_line(bytes(line))
    child.wait()
    return bytes(output), bytes(words)


def _death_signal(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The words that make the kernel kill a child with us; setpriv needs no code between fork and exec of our own.

    It also renews its capabilities, which the confinement of a unit forbids; there systemd ends our children.
    """
    setpriv = shutil.which("setpriv", path=environment.get("PATH"))
    if setpriv is None:
        return ()
    words = (setpriv, "--pdeathsig", "KILL", "--")
    allowed = subprocess.run([*words, setpriv, "--version"], env=environment, capture_output=True, check=False)
    return words if allowed.returncode == 0 else ()


def _restrain(pid: int, memory: int) -> None:
    """Give a child the lowest priority and a limit of memory.

    From the outside, since code between fork and exec is unsafe beside threads. Where a sandbox forbids it, the sandbox has
    limits of its own.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
