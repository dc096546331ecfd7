# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who asks for a password: `pkttyagent` on this terminal, for as long as the daemon may want to ask.

It stays in the session of this process, unlike other programs that are started: what it reads from is the terminal that
controls the session, and a session of its own would have none. Where the desktop has an agent already, that one asks.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAM = "pkttyagent"
START = 5.0
"""Seconds in which it has to say that polkit knows it; without that the request is made all the same."""


def wanted() -> bool:
    """Whether somebody sits at a terminal whom polkit might ask: root is asked for nothing."""
    return os.geteuid() != 0 and sys.stdin.isatty() and sys.stderr.isatty()


@contextlib.contextmanager
def listening(environment: Mapping[str, str]) -> Iterator[None]:
    """An agent for this process, until the end of the context; none where there is no such program."""
    agent = _started(environment)
    if agent is None:
        yield
        return
    try:
        with _terminal_kept():
            yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(agent, 0)


def _started(environment: Mapping[str, str]) -> int | None:
    """The process id of an agent that polkit knows."""
    ready, told = os.pipe()
    os.set_inheritable(told, True)
    # polkit overlooks an agent that steps back behind that of the session where there is no session
    behind = ["--fallback"] if environment.get("XDG_SESSION_ID") else []
    words = [PROGRAM, "--process", str(os.getpid()), *behind, "--notify-fd", str(told)]
    actions = [
        (os.POSIX_SPAWN_CLOSE, ready),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),  # it asks on the terminal itself
    ]
    try:
        agent = os.posix_spawnp(PROGRAM, words, dict(environment), file_actions=actions, setsigmask=())
    except OSError:
        return None
    finally:
        os.close(told)
    try:
        select.select([ready], [], [], START)
    finally:
        os.close(ready)
    return agent


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back as it was: an agent that is ended while it asks leaves what is typed invisible."""
    import termios

    descriptor = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
