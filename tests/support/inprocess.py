# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole daemon in this very process, with a client in a thread beside it: what a sweep forks and disturbs.

It is `Daemon.run` with its socket, its queue and its state database, and a client that speaks JSON-RPC to it. Started this
way it costs no new interpreter, so that hundreds of them can be tried.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from glixd import daemon, log, settings
from glixd.backends.ahead import Before
from glixd.backends.held import Held
from glixd.backends.objects import Commit
from glixd.backends.process import Processes
from glixd.backends.publishing import NO_CHANGES, Changes, Published
from glixd.backends.refs import Refs
from glixd.backends.repository import Repository
from glixd.errors import GlixError
from tests.support.daemon import HOST, RpcClient


@dataclass(frozen=True)
class World:
    """The place of one daemon: its repository and its state are in one folder, which no other daemon knows."""

    root: Path
    environment: Mapping[str, str]
    place: Path | None = None
    """Where its socket and its log are, if not beside it."""

    @property
    def beside(self) -> Path:
        """The folder of what does not belong to the world itself."""
        return self.place or self.root.parent

    @property
    def repository(self) -> Path:
        """The folder of the repository."""
        return self.root / "repository"

    @property
    def state(self) -> Path:
        """The folder of the state."""
        return self.root / "state"

    @property
    def socket(self) -> Path:
        """The socket of the daemon."""
        return self.beside / "socket"

    def copy_to(self, root: Path, place: Path | None = None) -> World:
        """The same world elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        return World(root, self.environment, place)


class InPlaceRepository(Repository):
    """Writes into the work tree and commits with the porcelain, as the tools before this one do."""

    def make(self, commit: Commit) -> str:
        """Write the files in their place, then commit them."""
        for path, data in commit.files.items():
            assert isinstance(data, bytes)
            (self.root / path).write_bytes(data)
        self._porcelain("add", "--", *commit.files)
        self._porcelain("commit", "--quiet", f"--message={commit.message}", "--", *commit.files)
        oid = self.git.ref("HEAD")
        assert oid is not None
        return oid

    def commit_point(
        self, held: Held, commit: str, base: str | None, changes: Changes = NO_CHANGES, before: Before | None = None
    ) -> None:
        """The branch has moved already."""

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """The work tree shows it already."""
        return Published()

    def _porcelain(self, *words: str) -> None:
        identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        argv = ["git", "-c", "gc.auto=0", "-c", "core.hooksPath=/dev/null", *words]
        done = self.git._processes.run(argv, cwd=self.root, environment=identity)
        if done.status:
            raise OSError(done.stderr.decode())


class ForgetfulRepository(Repository):
    """Never finishes or undoes what an earlier process left."""

    def recover(self, held: Held) -> None:
        """Leave everything as it is, but have a place for scratch files."""
        self.scratch.mkdir(mode=0o700, exist_ok=True)


class HastyRefs(Refs):
    """Those of the next one."""

    def sync(self, refs: Iterable[str]) -> None:
        """Believe that what was renamed stays renamed."""


class HastyRepository(Repository):
    """Does not wait until the move of the branch is on the disk."""

    def __init__(self, root: Path, processes: Processes, *, branch: str | None = None, **options: Any) -> None:
        super().__init__(root, processes, branch=branch, **options)
        self.refs = HastyRefs(self.git, self.folder, branch, self.needed)


SAFE: Final = "safe"
VARIANTS: Final[dict[str, type[Repository]]] = {
    SAFE: Repository,
    "in-place": InPlaceRepository,
    "forgetful": ForgetfulRepository,
    "hasty": HastyRepository,
}
"""The way of working that is proved, and unsafe ones that a sweep must be able to tell from it."""


def serve(
    world: World, script: Callable[[RpcClient], None], *, variant: str = SAFE, without_room: bool = False
) -> None:
    """Run a daemon until `script` has done with it; raises GlixError or OSError when it can't start, or what the script met.

    With `without_room` it tries where it would see beforehand that there is no room on the disk.
    """
    log.configure("info")
    chosen = settings.load({"config": os.devnull, **_arguments(world)}, world.environment)
    make: Callable[..., Repository] = VARIANTS[variant]
    if without_room:
        make = partial(make, needed_bytes=0, needed_inodes=0)
    reading, writing = os.pipe()
    pipe = os.fstat(writing).st_ino
    met: list[BaseException] = []
    thread = threading.Thread(target=_talk, args=(world, reading, script, met))
    made = daemon.Daemon(chosen, dict(world.environment))
    thread.start()
    try:
        with _building(make):
            asyncio.run(made.run(writing))
    finally:
        _close(writing, pipe)
        thread.join()
        os.close(reading)
    if met:
        raise met[0]


def _arguments(world: World) -> dict[str, Any]:
    return {
        "repository": os.fspath(world.repository),
        "state": os.fspath(world.state),
        "socket": os.fspath(world.socket),
        "bus": "none",
        "host": HOST,
        "evaluate": False,
        "index": False,
        "tidy_delay": 1e6,
        "idle_exit": 0.0,
    }


@contextmanager
def _building(make: Callable[..., Repository]) -> Iterator[None]:
    """Let the daemon build its repository in another way: an unsafe one, to see that a sweep sees it."""
    ours = vars(daemon)["Repository"]
    vars(daemon)["Repository"] = make
    try:
        yield
    finally:
        vars(daemon)["Repository"] = ours


def _close(descriptor: int, pipe: int) -> None:
    """Close the end that a daemon which came to serve has closed itself; the number may be another file's by now."""
    with suppress(OSError):
        if os.fstat(descriptor).st_ino == pipe:
            os.close(descriptor)


def _talk(world: World, ready: int, script: Callable[[RpcClient], None], met: list[BaseException]) -> None:
    """The client: once the daemon serves, carry the script, then ask the daemon to end."""
    if not os.read(ready, 1):
        return
    try:
        with RpcClient(world.socket) as client:
            script(client)
    except (AssertionError, EOFError, GlixError, OSError, ValueError, KeyError) as error:
        met.append(error)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
