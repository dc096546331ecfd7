# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that run for several machines at once: their output, line by line where it is wanted, and their end on Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress

from glixctl.errors import ClientError
from glixd.protocol import ErrorCode, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Done:
    """How a program ended, and what it printed; with `hear`, its words are among what it printed."""

    __slots__ = ("output", "said", "status")

    def __init__(self, status: int, output: str, said: str) -> None:
        self.status = status
        self.output = output
        self.said = said


class Programs:
    """Each program has a session of its own, so that Ctrl-C reaches this process alone, which decides who may be ended."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._stoppable: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, words: Sequence[str], *, hear: Callable[[str], None] | None = None, stoppable: bool) -> Done:
        """Run a program to its end; raises ClientError where it is missing, or where no more is to be begun."""
        child = self._start(words, merged=hear is not None, stoppable=stoppable)
        try:
            with child:
                if hear is None:
                    output, said = child.communicate()
                    return Done(child.returncode, output, said)
                lines = []
                for line in child.stdout or ():
                    lines.append(line)
                    hear(line.rstrip("\n"))
                return Done(child.wait(), "".join(lines), "".join(lines))
        finally:
            with self._lock:
                self._stoppable.discard(child)
            if self._stopped and stoppable:
                raise _interrupted()

    def stop(self) -> None:
        """End what may be ended, and begin nothing more that may be."""
        with self._lock:
            self._stopped = True
            children = list(self._stoppable)
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)

    def _start(self, words: Sequence[str], *, merged: bool, stoppable: bool) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped and stoppable:
                raise _interrupted()
            try:
                child = subprocess.Popen(
                    words,
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise ClientError(
                    f"{words[0]} can't be run: {error.strerror}.",
                    name=ErrorCode.UNSUPPORTED_HERE,
                    exit_code=Exit.FAILED,
                    hint=f"Install {words[0]} and try again.",
                ) from None
            if stoppable:
                self._stoppable.add(child)
            return child


def _interrupted() -> ClientError:
    return ClientError("It was interrupted.", name=ErrorCode.CANCELLED, exit_code=Exit.INTERRUPTED)
