# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the user's daemon on demand: in a session of its own, with a log, until it says that it listens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from glixctl.errors import Unreachable
from glixd.protocol import user_state

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOG_LIMIT = 1 << 20
"""Size in bytes over which the log starts anew."""
TAKEN = 75
"""Exit code of a daemon whose repository another daemon serves already."""


def start(repository: str, environment: Mapping[str, str], deadline: float) -> None:
    """Start the daemon of `repository` and return when it listens, or when another one has the repository already."""
    path = os.path.join(user_state(environment, repository), "daemon.log")
    with _log(path) as log:
        begin = os.fstat(log).st_size
        process, ready = _spawn([*_program(), "--mode", "user", "--repository", repository], environment, log)
    try:
        if not _readable(ready, deadline):
            raise Unreachable("The daemon was started but is not ready in time.", f"Its log is {path}.")
        if os.read(ready, 1):
            return
    finally:
        os.close(ready)
    if (code := _exit_code(process, deadline)) != TAKEN:
        raise Unreachable(_failure(path, begin, code), f"Its log is {path}.")


def _program() -> list[str]:
    """The daemon that was installed together with this client."""
    for script in (sys.argv[0], os.path.realpath(sys.argv[0])):
        beside = os.path.join(os.path.dirname(os.path.abspath(script)), "glixd")
        if os.path.isfile(beside) and os.access(beside, os.X_OK):
            return [beside]
    return [sys.executable, "-m", "glixd"]


def _spawn(command: list[str], environment: Mapping[str, str], log: int) -> tuple[int, int]:
    """The daemon, detached from this terminal: its process id, and where it tells that it listens."""
    ready, told = os.pipe()
    os.set_inheritable(told, True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    try:
        process = os.posix_spawn(
            command[0],
            [*command, "--ready-fd", str(told)],
            dict(environment),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ),
        )
    except OSError as error:
        os.close(ready)
        raise Unreachable(f"The daemon can't be started: {command[0]}: {error.strerror}.") from None
    finally:
        os.close(told)
    return process, ready


@contextlib.contextmanager
def _log(path: str) -> Iterator[int]:
    """The open log; made new where it has become too long."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unreachable(f"The daemon can't be started: its log {path} can't be written: {error.strerror}.") from None
    try:
        if os.fstat(log).st_size > LOG_LIMIT:
            os.ftruncate(log, 0)
        yield log
    finally:
        os.close(log)


def _readable(descriptor: int, deadline: float) -> bool:
    readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
    return bool(readable)


def _exit_code(process: int, deadline: float) -> int | None:
    """The exit code of a daemon that has closed its pipe; none when it does not end."""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def _failure(path: str, begin: int, code: int | None) -> str:
    with open(path, "rb") as log:
        log.seek(begin)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else f"exit code {code}"
    return f"The daemon could not start: {reason}"
