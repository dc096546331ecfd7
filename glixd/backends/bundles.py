# SPDX-License-Identifier: GPL-3.0-or-later
"""Commits on their way out and in: a bundle of the branch for a clone, and bundles that callers bring, piece by piece.

Nobody but the daemon has to be able to read the repository, and the daemon opens no file that a caller names.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.git import Git
from glixd.backends.objects import Entry
from glixd.backends.process import Cancellation, Processes
from glixd.errors import Failed, NotFound, Refused, invalid
from glixd.protocol import MAX_UPLOAD, UPLOAD_PIECE, ErrorCode
from glixd.values import dataclass

EXPIRY: Final = 900.0
"""Seconds after which an upload that nobody used is gone."""
TIMEOUT: Final = 120.0
MAX_COMMITS: Final = 200
_ARRIVED: Final = "refs/arrived"


@dataclass(frozen=True, slots=True)
class Arrived:
    """One commit that a caller brought: who wrote it and when, what it says, and what it changes."""

    oid: str
    name: str
    email: str
    when: int
    message: str
    changes: dict[str, tuple[Entry | None, Entry | None]]


class Bundles:
    """Bundles of the branch, made when they are asked for; the newest one is kept."""

    def __init__(self, git: Git, folder: Path) -> None:
        self._git = git
        self._folder = folder

    def piece(self, branch: str, commit: str, offset: int) -> tuple[bytes, int]:
        """A piece of the bundle of `commit`, and the size of the whole; raises InvalidArgument behind its end."""
        bundle = self._folder / f"{commit}.bundle"
        if not bundle.exists():
            self._make(branch, commit, bundle)
        size = bundle.stat().st_size
        if offset > size:
            raise invalid("offset", f"the bundle has {size} bytes")
        with bundle.open("rb") as file:
            file.seek(offset)
            return file.read(UPLOAD_PIECE), size

    def _make(self, branch: str, commit: str, bundle: Path) -> None:
        beside = bundle.with_suffix(f".{secrets.token_hex(4)}")
        with files.translating(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in self._folder.glob("*.bundle"):
                old.unlink(missing_ok=True)
            self._git.bundle(branch, commit, beside, timeout=TIMEOUT)
            beside.replace(bundle)


class Uploads:
    """What callers bring, one bundle a uid at a time: it has a limit, and it does not stay."""

    def __init__(self, folder: Path, processes: Processes, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._processes = processes
        self._clock = clock

    def add(self, uid: int, upload: str | None, offset: int, data: bytes) -> tuple[str, int]:
        """Keep a piece; without an `upload` a new one begins, and takes the place of the one before. Its name and size."""
        if len(data) > UPLOAD_PIECE:
            raise invalid("data", f"a piece has at most {UPLOAD_PIECE} bytes")
        self._expire()
        if upload is None:
            upload = secrets.token_hex(16)
            with files.translating(self._folder):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for old in self._folder.glob(f"{uid}-*"):
                    old.unlink(missing_ok=True)
                (self._folder / f"{uid}-{upload}").touch(0o600)
        path = self._path(uid, upload)
        size = path.stat().st_size
        if offset != size:
            raise invalid("offset", f"the upload has {size} bytes so far")
        if size + len(data) > MAX_UPLOAD:
            path.unlink()
            raise Failed(
                f"What is brought has more than {MAX_UPLOAD // 2**20} MiB.",
                code=ErrorCode.TOO_LARGE,
                hint="Keep large files out of the repository, or commit them in smaller steps.",
            )
        files.require_space(self._folder)
        with files.translating(self._folder), path.open("ab") as file:
            file.write(data)
        return upload, size + len(data)

    @contextmanager
    def opened(
        self, uid: int, upload: str, git: Git, cancellation: Cancellation, *, keep: bool = False
    ) -> Iterator[Git]:
        """A repository of its own that borrows the objects of `git` and has those of an upload, checked, under a ref.

        The upload has been used then, unless it is to be kept.

        Raises Refused where it is no bundle, or builds on commits that the repository does not have.
        """
        bundle = self._path(uid, upload)
        folder = self._folder / f"opened-{secrets.token_hex(8)}"
        with files.translating(self._folder):
            folder.mkdir(mode=0o700)
        quarantine = Git(folder, self._processes)
        try:
            with files.translating(folder):
                quarantine.initialise("main", "sha256" if len(git.ref("HEAD") or "") == 64 else "sha1")
                (quarantine.directory / "objects" / "info").mkdir(exist_ok=True)
                alternates = quarantine.directory / "objects" / "info" / "alternates"
                alternates.write_bytes(os.fsencode(git.directory / "objects") + b"\n")
            if not quarantine.fetch_bundle(bundle, _ARRIVED, timeout=TIMEOUT, cancellation=cancellation):
                files.explain_full(folder, files.NEEDED_BYTES, files.NEEDED_INODES)
                raise Refused(
                    "What was brought is no bundle of commits that build on the repository.",
                    hint="Make a clone with glixctl clone, commit there, and run glixctl push in it.",
                )
            yield quarantine
            if not keep:
                bundle.unlink(missing_ok=True)
        finally:
            quarantine.close()
            shutil.rmtree(folder, ignore_errors=True)

    def remove_left(self) -> None:
        """Remove what a daemon that was killed left."""
        for folder in self._folder.glob("opened-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, uid: int, upload: str) -> Path:
        path = self._folder / f"{uid}-{upload}"
        if not path.is_file():
            raise invalid("upload", "there is none of that name; it may have expired", hint="Send it again.")
        return path

    def _expire(self) -> None:
        for path in self._folder.glob("[0-9]*-*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < self._clock() - EXPIRY:
                    path.unlink()


def arrived(quarantine: Git, newest: str) -> tuple[str, list[Arrived]]:
    """The commit that the brought ones build on, and these, the oldest first; raises Refused for what can't be replayed."""
    tip = quarantine.ref(_ARRIVED)
    base = quarantine.merge_base(tip, newest) if tip else None
    if tip is None or base is None:
        raise Refused("The commits share no history with the repository.", hint="Begin with: glixctl clone FOLDER")
    oids = quarantine.commits_between(base, tip)
    if len(oids) > MAX_COMMITS:
        raise Refused(f"These are {len(oids)} commits; at most {MAX_COMMITS} are taken at once.", hint="Squash some.")
    return base, [_read(quarantine, oid) for oid in oids]


def _read(quarantine: Git, oid: str) -> Arrived:
    found = quarantine.read(oid)
    if found is None or found.kind != "commit":
        raise NotFound(f"The commit {oid} is missing.", code=ErrorCode.READ_ONLY)
    head, _, message = found.data.decode(errors="replace").partition("\n\n")
    lines = head.split("\n")
    parents = [line.split(" ")[1] for line in lines if line.startswith("parent ")]
    if len(parents) != 1:
        raise Refused(
            f"Commit {oid[:7]} is a merge, which has no place in the history here.",
            hint="Bring your commits in a line: git rebase glixd/main",
        )
    author = next(line for line in lines if line.startswith("author ")).removeprefix("author ")
    name, _, rest = author.partition(" <")
    email, _, when = rest.partition("> ")
    seconds = when.split(" ")[0]
    changes = quarantine.changed_paths(parents[0], oid)
    return Arrived(oid, name, email, int(seconds) if seconds.isdecimal() else 0, message, changes)
