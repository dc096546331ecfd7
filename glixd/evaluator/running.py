# SPDX-License-Identifier: GPL-3.0-or-later
"""Running nix: within limits, heard line by line, stopped when nobody listens any more, and nobody left behind."""

from __future__ import annotations

import ctypes
import os
import resource
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

KILL_AFTER: Final = 5.0
"""Seconds between asking nix to stop and killing it; a pure evaluation may not hear SIGINT."""
OUTPUT_LIMIT: Final = 64 * 1024 * 1024
WORDS_LIMIT: Final = 256 * 1024
"""Bytes of what nix says that are kept, from the end."""
LINE_LIMIT: Final = 64 * 1024
"""Bytes of a line that is passed on."""
ADDRESS_SPACE: Final = 8
"""Bytes of address space for each byte of heap: stacks, libraries and the store's database are mapped too."""
LOWEST_PRIORITY: Final = 19
_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)


class Limits(NamedTuple):
    """What a job may use."""

    memory: int
    """Bytes of heap."""
    timeout: float
    """Seconds."""
    processes: int
    """Of this user, all jobs together."""
    background: bool = False


class Ran(NamedTuple):
    """How nix ended."""

    status: int
    output: bytes
    words: bytes
    timed_out: bool = False


class Gone(Exception):
    """Nobody listens any more."""


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    limits: Limits,
    connection: socket.socket,
    on_line: Callable[[bytes], None] | None,
) -> Ran:
    """Run nix to its end; raises Gone when the connection ends before it, and then it is stopped."""
    _adopt_orphans()
    child = subprocess.Popen(
        argv,
        cwd=folder,
        env=_with_small_heap(environment, limits.memory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: _restrain(limits),  # noqa: PLW1509 - this program has one thread
    )
    try:
        return _listen(child, limits, connection, on_line)
    finally:
        _end(child)


def _listen(
    child: subprocess.Popen[bytes], limits: Limits, connection: socket.socket, on_line: Callable[[bytes], None] | None
) -> Ran:
    if child.stdout is None or child.stderr is None:
        raise ValueError("nix has no pipes")
    output, words, line = bytearray(), bytearray(), bytearray()
    deadline = time.monotonic() + limits.timeout
    with selectors.DefaultSelector() as selector:
        for source in (child.stdout, child.stderr, connection):
            selector.register(source, selectors.EVENT_READ)
        while len(selector.get_map()) > 1:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return Ran(-signal.SIGINT, bytes(output), bytes(words), timed_out=True)
            for key, _ in ready:
                if key.fileobj is connection:
                    _check_listener(connection)
                    continue
                data = os.read(key.fd, 64 * 1024)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    output += data[: OUTPUT_LIMIT - len(output)]
                else:
                    _hear(data, words, line, on_line)
    if line and on_line:
        on_line(bytes(line[:LINE_LIMIT]))
    return Ran(child.wait(), bytes(output), bytes(words))


def _hear(data: bytes, words: bytearray, line: bytearray, on_line: Callable[[bytes], None] | None) -> None:
    words += data
    del words[: max(0, len(words) - WORDS_LIMIT)]
    if on_line is None:
        return
    line += data
    *complete, rest = bytes(line).split(b"\n")
    line[:] = rest[:LINE_LIMIT]
    for one in complete:
        on_line(one[:LINE_LIMIT])


def _check_listener(connection: socket.socket) -> None:
    """A client says nothing more once its job is sent: whatever comes now, it is gone."""
    raise Gone


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask nix to stop, wait a little, and kill whoever is left, orphans of orphans included."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=KILL_AFTER)
    _signal(child.pid, signal.SIGKILL)
    for pipe in (child.stdout, child.stderr):
        if pipe:
            pipe.close()
    child.wait()
    _end_orphans()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _adopt_orphans() -> None:
    """Let what nix leaves behind become ours: a builder has a session of its own, and no signal to nix's reaches it."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    with suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):  # there are some, and all of them run
                for pid in _children(os.getpid()):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(state[1]) == parent:
                    found.append(int(entry.name))
    return found


def _restrain(limits: Limits) -> None:
    """What holds for nix and everything it starts; the limits of the unit hold besides."""
    for kind, limit in (
        (resource.RLIMIT_AS, limits.memory * ADDRESS_SPACE),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_CORE, 0),
    ):
        soft, hard = resource.getrlimit(kind)
        ceiling = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with suppress(OSError, ValueError):  # where a sandbox forbids it, the sandbox has limits of its own
            resource.setrlimit(kind, (ceiling if soft == resource.RLIM_INFINITY else min(soft, ceiling), ceiling))
    if limits.background:
        with suppress(OSError):
            os.nice(LOWEST_PRIORITY)


def _with_small_heap(environment: Mapping[str, str], size: int) -> dict[str, str]:
    """What keeps the garbage collector of nix to a heap of `size` bytes; it would start with a quarter of the machine's."""
    return {
        **environment,
        "GC_INITIAL_HEAP_SIZE": str(min(size, 32 * 1024 * 1024)),
        "GC_MAXIMUM_HEAP_SIZE": str(size),
    }
