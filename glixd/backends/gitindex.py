# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of the repository: a cache of git's that people write too, so it is locked as git locks it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from glixd import hashes
from glixd.backends import files
from glixd.backends.git import Git, Staged
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.protocol import ErrorCode

log = get_logger()

PATIENCE: Final = 2.0
"""Seconds to wait for a git command of somebody else; a commit with an open editor takes longer than anybody waits."""


class Staging:
    """Entries that are staged in a copy of the index."""

    def __init__(
        self, path: Path, copy: Path, began_as: bytes | None, entries: Staged, done: Callable[[], None]
    ) -> None:
        self._path = path
        self._copy = copy
        self._began_as = began_as
        self._entries = entries
        self._done = done

    def fits(self, entries: Staged) -> bool:
        """Whether it is these entries, and the index is what it was copied from; its lock is to be held, so that it stays so."""
        return entries == self._entries and _read(self._path) == self._began_as

    def take_place(self) -> None:
        """Let the copy become the index, once git is done with it; raises Failed where that can't be."""
        self._done()
        self._copy.replace(self._path)


class GitIndex:
    """The index and its lock; a lock of ours is a link to a token, by whose inode it is known after a crash."""

    def __init__(self, git: Git, folder: Path, scratch: Path) -> None:
        """`folder` is where the token is, and `scratch` where a copy is worked on."""
        self._git = git
        self._path = git.directory / "index"
        self._lock = git.directory / "index.lock"
        self._token = folder / "token"
        self._scratch = scratch / "index"

    @property
    def is_damaged(self) -> bool:
        """Whether it can't be read; it is a cache, and written anew."""
        data = _read(self._path)
        return data is not None and not _intact(data)

    @contextlib.contextmanager
    def staging(self, entries: Staged, *, keep: Sequence[int]) -> Iterator[Staging]:
        """Stage entries in a copy while something else is done; one at a time. Without the lock, it may be overtaken."""
        data = _read(self._path)
        if data is not None and _intact(data):
            self._scratch.write_bytes(data)
        else:
            log.info("the index of the repository is damaged or not there and is written anew")
            self._git.read_tree("HEAD", self._scratch, keep=keep)
        with self._git.staging(self._scratch, entries, keep=keep) as done:
            yield Staging(self._path, self._scratch, data, entries, done)

    def mend(self, keep: Sequence[int]) -> None:
        """Write it anew where it is damaged; raises Failed (Busy)."""
        with self.locked(), self.staging({}, keep=keep) as staging:
            staging.take_place()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes it; raises Failed (Busy)."""
        if not self._token.exists():
            files.write_durably(self._token, b"", 0o600)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                os.link(self._token, self._lock)
                break
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise busy(self._lock) from None
                time.sleep(0.02)
        try:
            yield
        finally:
            self._lock.unlink(missing_ok=True)

    def await_unlocked(self) -> None:
        """A person's commit with an open editor holds it; wait for their git status, not for their editor."""
        deadline = time.monotonic() + PATIENCE / 2
        while self._lock.exists():
            if time.monotonic() > deadline:
                raise busy(self._lock)
            time.sleep(0.02)

    def release(self) -> None:
        """Remove a lock that an earlier process of ours left."""
        with contextlib.suppress(FileNotFoundError):
            if self._lock.samefile(self._token):
                self._lock.unlink()


def busy(lock: Path) -> Failed:
    """Somebody else holds a lock of the repository."""
    return Failed(
        f"Somebody else is writing the repository: {lock} exists or is held.",
        code=ErrorCode.BUSY,
        hint="Finish the git command or editor that is open there; if none is, remove that file. Then try again.",
        details={"path": str(lock)},
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _intact(data: bytes) -> bool:
    """Whether an index ends in its own checksum (gitformat-index: a hash of all before it, or zeros when skipped)."""
    if data[:4] != b"DIRC":
        return False
    for width, named in ((20, hashes.sha1), (32, hashes.sha256)):  # the hash is that of the repository's object names
        if data[-width:] in (bytes(width), bytes.fromhex(named(data[:-width]))):
            return True
    return False
