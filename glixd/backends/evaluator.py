# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever runs nix on what others wrote: this very user, or the evaluator, a program with a uid of its own.

Both do the same jobs (see glixd/evaluator/jobs.py) and answer alike. The evaluator never sees the repository: it is sent
the files to lock, or a pack with the one commit that it works on.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from glixd.backends import files
from glixd.backends.doorway import Doorway
from glixd.backends.git import Git
from glixd.backends.process import UNLIMITED, Cancellation, Completed, Processes
from glixd.errors import Failed
from glixd.evaluator.jobs import BUILD_TIMEOUT, LINE, TIMEOUT, File, Job, Kind, request_line
from glixd.protocol import ErrorCode
from glixd.values import dataclass

PREFIX: Final = "lock-"
ADDRESS_SPACE: Final = 8
"""Bytes of address space for each byte of heap: stacks, libraries and the store's database are mapped too."""
READY: Final = 300.0
"""Seconds for which a connection without a job is good; the evaluator waits for twice as long."""
END_TIMEOUT: Final = 15.0
"""Seconds that an evaluator which is told to stop may take to end what it started."""

OnLine = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A file for a lock: git's mode and its bytes."""

    mode: str
    data: bytes


Files = Mapping[str, Leaf]


class Evaluator(Protocol):
    """Runs jobs of nix. Safe from any thread; raises Cancelled, TimedOut or UnsupportedHere."""

    def run(
        self,
        job: Job,
        files: Files | None = None,
        *,
        on_line: OnLine | None = None,
        cancellation: Cancellation | None = None,
    ) -> Completed:
        """Do a job to its end; `on_line` hears each line of a build. For a lock, the output is the new flake.lock."""

    def prepare(self, commit: str) -> None:
        """Get ready for a job on a commit that comes soon; harmless where none does."""

    def stay_ready(self) -> None:
        """Get ready for whatever job comes next, which may be soon."""

    def remove_left(self) -> None:
        """Remove what a daemon that was killed left; only while there is no other."""


class OwnEvaluator:
    """Runs nix as this very user, on the repository itself at exactly the commit: nothing is copied."""

    def __init__(self, processes: Processes, repository: Path, state: Path) -> None:
        self._processes = processes
        self._repository = repository
        self._scratch = state / "scratch"
        self._roots = state / "roots"

    def run(
        self,
        job: Job,
        files: Files | None = None,
        *,
        on_line: OnLine | None = None,
        cancellation: Cancellation | None = None,
    ) -> Completed:
        """Run nix."""
        if job.kind is Kind.LOCK:
            return self._lock(job, files or {}, cancellation)
        place = f"git+file://{quote(os.fspath(self._repository))}?rev={job.commit}"
        link = None
        if job.kind is Kind.BUILD:
            link = self._root(job.root)
        return self._processes.run(
            job.words(place, link),
            timeout=job.timeout or (BUILD_TIMEOUT if job.kind is Kind.BUILD else TIMEOUT),
            cancellation=cancellation,
            environment=_small_heap(job.memory) if job.memory else None,
            memory=(job.memory * ADDRESS_SPACE or UNLIMITED) if job.background else None,
            on_line=on_line if job.streams else None,
        )

    def prepare(self, commit: str) -> None:
        """Nothing has to be started before nix."""

    def stay_ready(self) -> None:
        """Nothing waits."""

    def _root(self, name: str) -> str:
        """The link that keeps a build alive; raises NoSpace or ReadOnly where there is no place for it."""
        with files.translating(self._roots):
            self._roots.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.fspath(self._roots / name)

    def remove_left(self) -> None:
        """Remove the scratch folders of a process that was killed."""
        for left in self._scratch.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _lock(self, job: Job, leaves: Files, cancellation: Cancellation | None) -> Completed:
        with self._folder() as folder:
            for name, leaf in leaves.items():
                _write_leaf(folder / name, leaf)
            done = self._processes.run(
                job.words(os.fspath(folder)), cwd=folder, timeout=TIMEOUT, cancellation=cancellation
            )
            locked = folder / "flake.lock"
            text = locked.read_bytes() if locked.exists() else b""
            return Completed(done.status, text, done.stderr.replace(os.fsencode(folder), b"."))

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with files.translating(self._scratch):
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._scratch))
        try:
            with files.translating(folder):
                yield folder
        except Failed:
            files.require_space(self._scratch, needed_bytes=1024 * 1024, needed_inodes=100)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Door(Protocol):
    """The way to evaluators."""

    def opened(self, *, anew: bool = False) -> AbstractContextManager[socket.socket]:
        """A connection to one that waits for a job, or, `anew`, to one that is started now."""

    def knock(self) -> None:
        """Have one started."""

    def stay_ready(self) -> None:
        """Have one started in a moment."""


class EvaluatorProgram:
    """Sends jobs to the evaluator, one connection for each."""

    def __init__(self, door: Door, git: Git) -> None:
        self._door = door
        self._git = git
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._ahead: tuple[str, Future[bytes]] | None = None
        """A commit for which a job comes soon, and its pack."""

    def run(
        self,
        job: Job,
        files: Files | None = None,
        *,
        on_line: OnLine | None = None,
        cancellation: Cancellation | None = None,
    ) -> Completed:
        """Send the job with what it needs, and hear how it went."""
        if cancellation:
            cancellation.check()
        leaves = files or {}
        listed = [File(path, leaf.mode, len(leaf.data)) for path, leaf in leaves.items()]
        anew = job.kind is Kind.LOCK  # it fetches, with the credentials that systemd has now
        with self._door.opened(anew=anew) as connection:  # it starts while the pack is made
            pack = b"" if job.kind is Kind.LOCK else self._pack(job.commit, cancellation)
            if cancellation:
                cancellation.follow(_Connection(connection))
            try:
                connection.sendall(request_line(job, listed, len(pack)))
                for leaf in leaves.values():
                    connection.sendall(leaf.data)
                connection.sendall(pack)
                answer = _hear(connection, on_line)
            except (OSError, ValueError) as error:
                if cancellation:
                    cancellation.check()
                raise _broken(str(error)) from error
            finally:
                if cancellation:
                    cancellation.follow(None)
        if job.background:  # a change was made, and is maybe built next
            self._door.stay_ready()
        if cancellation:
            cancellation.check()
        return _completed(answer)

    def prepare(self, commit: str) -> None:
        """Have an evaluator started, and make the pack for it."""
        self._door.knock()
        self._ahead = (commit, self._beside.submit(self._git.pack, commit))

    def stay_ready(self) -> None:
        """Have an evaluator started that waits for its job."""
        self._door.stay_ready()

    def _pack(self, commit: str, cancellation: Cancellation | None) -> bytes:
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == commit:
            return ahead[1].result()
        return self._git.pack(commit, cancellation=cancellation)

    def remove_left(self) -> None:
        """The evaluator cleans up behind itself."""


class _Connection:
    """What a cancellation stops: the evaluator stops when nobody can hear it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def stop(self) -> None:
        """Say nothing more; the evaluator ends what it started, then the connection."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


class EvaluatorSocket:
    """Evaluators that systemd starts behind a socket."""

    def __init__(self, path: Path) -> None:
        self._doorway = Doorway(path, program="evaluator", unit="glixd-eval.socket", patience=READY)

    def opened(self, *, anew: bool = False) -> AbstractContextManager[socket.socket]:
        """One that waits, or a new one; raises Failed."""
        return self._doorway.connect(anew=anew)

    def knock(self) -> None:
        """Have one started."""
        self._doorway.knock()

    def stay_ready(self) -> None:
        """Have one started in a moment."""
        self._doorway.stay_ready()


class ChildEvaluators:
    """Evaluators that are children of ours; `prefix` are words such as setpriv's, which give them a uid of their own."""

    def __init__(
        self, processes: Processes, state: Path, *, prefix: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> None:
        words = (sys.executable, "-I", "-m", "glixd.evaluator", "--state", os.fspath(state))
        self._argv = [*prefix, *words, *arguments]
        self._environment = processes.environment

    @contextmanager
    def opened(self, *, anew: bool = True) -> Iterator[socket.socket]:
        """A new one always, which is gone when its connection is."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            with theirs:
                child = subprocess.Popen(
                    self._argv, stdin=theirs.fileno(), env=self._environment, start_new_session=True, cwd="/"
                )
            try:
                yield ours
            finally:
                ours.close()
                try:
                    child.wait(END_TIMEOUT)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def knock(self) -> None:
        """None waits: each is started for its job."""

    def stay_ready(self) -> None:
        """None waits."""


def _hear(connection: socket.socket, on_line: OnLine | None) -> dict[str, Any]:
    with connection.makefile("rb") as lines:
        for raw in lines:
            if raw.startswith(LINE):
                if on_line:
                    on_line(raw[len(LINE) : -1])
            elif isinstance(message := json.loads(raw), dict):
                return message
    raise ValueError("it ended without an answer")


def _completed(answer: Mapping[str, Any]) -> Completed:
    match answer:
        case {"timed_out": True}:
            raise Failed("nix did not finish within its time.", code=ErrorCode.TIMED_OUT)
        case {"status": int(status), "output": str(output), "words": str(words)}:
            return Completed(status, output.encode(), words.encode())
        case {"refused": str(why)}:
            raise _broken(why)
    raise _broken("it answered what it never should")


def _broken(why: str) -> Failed:
    return Failed(
        f"The evaluator could not do its work: {why}.",
        code=ErrorCode.UNSUPPORTED_HERE,
        hint="See: journalctl -u 'glixd-eval@*'",
    )


def _write_leaf(path: Path, leaf: Leaf) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if leaf.mode == "120000":
        path.symlink_to(leaf.data.decode(errors="surrogateescape"))
        return
    path.write_bytes(leaf.data)
    if leaf.mode == "100755":
        path.chmod(0o755)


def _small_heap(size: int) -> dict[str, str]:
    """What keeps the garbage collector of nix to a heap of `size` bytes; it would start with a quarter of the machine's."""
    return {"GC_INITIAL_HEAP_SIZE": str(32 * 1024 * 1024), "GC_MAXIMUM_HEAP_SIZE": str(size)}
