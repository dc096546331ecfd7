# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of the repository: a cache of git's that people write too, so it is locked as git locks it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from glixd import hashes
from glixd.backends import files
from glixd.backends.git import Git
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.protocol import ErrorCode

log = get_logger()

PATIENCE: Final = 2.0
"""Seconds to wait for a git command of somebody else; a commit with an open editor takes longer than anybody waits."""


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
        return self._path.exists() and not _intact(self._path.read_bytes())

    @contextlib.contextmanager
    def changing(self, keep: Sequence[int]) -> Iterator[Path]:
        """A copy to work on, which takes its place at the end; nobody else writes it meanwhile. Raises Failed (Busy)."""
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
            if self._path.exists() and not self.is_damaged:
                shutil.copyfile(self._path, self._scratch)
            else:
                log.info("the index of the repository is damaged or not there and is written anew")
                self._git.read_tree("HEAD", self._scratch, keep=keep)
            yield self._scratch
            self._scratch.replace(self._path)
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


def _intact(data: bytes) -> bool:
    """Whether an index ends in its own checksum (gitformat-index: a hash of all before it, or zeros when skipped)."""
    if data[:4] != b"DIRC":
        return False
    for width, named in ((20, hashes.sha1), (32, hashes.sha256)):  # the hash is that of the repository's object names
        if data[-width:] in (bytes(width), bytes.fromhex(named(data[:-width]))):
            return True
    return False
