# SPDX-License-Identifier: GPL-3.0-or-later
"""The object store of a repository, kept small: loose objects go into packs, small packs into one, and old waste goes.

A pack is made in a folder of its own, beside the objects. It is written out, read back object by object and given its
place; only then is anything deleted, and nothing that a pack does not hold. So it can be killed at any call, needs no lock,
and leaves at worst an object twice. What nothing refers to is never packed, and is deleted once it is old and while nobody
changes the repository.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.git import Git
from glixd.backends.process import Cancellation
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.protocol import ErrorCode
from glixd.values import dataclass

log = get_logger()

GRACE: Final = 14 * 86400.0
"""Seconds for which an object stays that nothing refers to, as with git's own gc: somebody may be about to refer to it."""
LEFT_BEHIND: Final = 86400.0
"""Seconds after which a temporary file of a git that was killed is nobody's any more."""
SMALL: Final = 32 * 1024 * 1024
"""Bytes up to which a pack is merged with others."""
MANY: Final = 16
"""Small packs that are merged into one."""
AT_ONCE: Final = 100
"""Objects that are deleted in one go while the repository is held: a change that comes meanwhile waits for no more."""
NEEDED_BYTES: Final = 2 * files.NEEDED_BYTES
"""Room that has to be free: twice of what a change needs, which goes before."""
THREADS: Final = ("-c", "pack.threads=1", "-c", "pack.windowMemory=64m")
_WASTE: Final = re.compile(r"[0-9a-f]{40,64} (blob|tree|commit|tag)", re.ASCII)
KEPT: Final = (".keep", ".promisor", ".mtimes", ".bitmap")
"""What stands beside a pack that somebody else looks after."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """What one tidying did."""

    packed: int = 0
    merged: int = 0
    pruned: int = 0


class Packs:
    """The packs and loose objects of one repository. One thread at a time; beside changes of any kind."""

    def __init__(
        self,
        git: Git,
        *,
        grace: float = GRACE,
        many: int = MANY,
        needed: tuple[int, int] = (NEEDED_BYTES, files.NEEDED_INODES),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._git = git
        self._objects = git.directory / "objects"
        self._own = git.directory / "glix" / "packing"
        self._lock = git.directory / "glix" / "lock"
        self._grace = grace
        self._many = many
        self._needed = needed
        self._clock = clock

    def loose(self) -> int:
        """How many loose objects there are."""
        return sum(not entry.name.startswith("tmp_") for entry in self._entries("[0-9a-f][0-9a-f]"))

    def tidy(self, cancellation: Cancellation) -> Tidied:
        """Pack what is loose, merge packs where there are many, and delete what nothing has referred to for long.

        Raises Failed or Cancelled, and then everything is still there.
        """
        with files.translating(self._objects):
            self._clear()
            self._refuse_beside_gc()
            files.require_space(self._objects, *self._needed)
            try:
                packed = self._pack(cancellation)
                merged = self._merge(cancellation)
            finally:
                self._clear()
            return Tidied(packed, merged, self._prune(cancellation))

    # -- packing -------------------------------------------------------------------------------------------------

    def _pack(self, cancellation: Cancellation) -> int:
        """Pack the loose objects that something refers to, and delete what is loose and in a pack; how many went."""
        words = ("--revs", "--all", "--reflog", "--indexed-objects", "--unpacked", "--incremental", "--non-empty")
        before = self.loose()
        self._make(words, b"", cancellation)
        self._sync_packs()
        self._git.in_background("prune-packed", "--quiet", cancellation=cancellation)
        return max(0, before - self.loose())

    def _merge(self, cancellation: Cancellation) -> int:
        """Put all small packs into one, where there are many."""
        small = self._small_packs()
        if len(small) < self._many:
            return 0
        names = "".join(f"{index.with_suffix('.pack').name}\n" for index in small).encode()
        held = {index: self._listed(index, cancellation) for index in small}
        made = self._make(("--stdin-packs",), names, cancellation)
        there = {oid for oids in made.values() for oid in oids}
        gone = [index for index in small if held[index] <= there and index.stem not in made]
        for index in gone:
            for path in (index, *_beside(index)):
                path.unlink(missing_ok=True)
        files.sync_folder(self._objects / "pack")
        self._git.close()  # the reader has the old ones open
        return len(gone)

    def _make(self, words: tuple[str, ...], stdin: bytes, cancellation: Cancellation) -> dict[str, set[str]]:
        """Write packs, check them and give them their place; by name the objects that each holds."""
        self._clear()
        (self._own / "pack").mkdir(mode=0o700, parents=True)
        (self._own / "info").mkdir()
        (self._own / "info" / "alternates").write_text("../../objects\n")
        self._git.in_background(
            *THREADS,
            "pack-objects",
            "--quiet",
            *words,
            os.fspath(self._own / "pack" / "pack"),
            stdin=stdin,
            environment={"GIT_OBJECT_DIRECTORY": os.fspath(self._own)},
            cancellation=cancellation,
        )
        files.sync_tree(self._own / "pack")
        made = {}
        for index in sorted((self._own / "pack").glob("*.idx")):
            self._git.in_background(*THREADS, "verify-pack", os.fspath(index), cancellation=cancellation)
            made[index.stem] = self._listed(index, cancellation)
            self._place(index)
        return made

    def _place(self, index: Path) -> None:
        """Give a pack its place: the index last, since git takes notice of a pack by it."""
        folder = self._objects / "pack"
        folder.mkdir(exist_ok=True)
        for path in (*_beside(index), index):
            with suppress(FileExistsError):  # a pack is named after its contents
                os.link(path, folder / path.name)
        files.sync_folder(folder)

    def _sync_packs(self) -> None:
        """Wait until every pack is on the disk, those of a person too: what they hold is about to go as loose objects."""
        folder = self._objects / "pack"
        folder.mkdir(exist_ok=True)
        for path in folder.glob("pack-*"):
            with suppress(FileNotFoundError):
                files.sync_file(path)
        files.sync_folder(folder)

    def _listed(self, index: Path, cancellation: Cancellation) -> set[str]:
        """The objects of a pack."""
        printed = self._git.in_background("show-index", stdin=index.read_bytes(), cancellation=cancellation)
        return {line.split()[1] for line in printed.decode().splitlines()}

    def _small_packs(self) -> list[Path]:
        """The indexes of packs that nobody else looks after."""
        folder = self._objects / "pack"
        if not folder.is_dir() or (folder / "multi-pack-index").exists():
            return []
        found = []
        for index in sorted(folder.glob("pack-*.idx")):
            pack = index.with_suffix(".pack")
            if pack.exists() and pack.stat().st_size < SMALL and not any(map(os.path.exists, _kept(index))):
                found.append(index)
        return found

    def _clear(self) -> None:
        """Remove what an earlier tidying left: its folder, and a pack that has no index yet."""
        for path in (self._own / "pack").glob("*"):
            place = self._objects / "pack" / path.name
            with suppress(FileNotFoundError):
                if not place.with_suffix(".idx").exists() and place.samefile(path):
                    place.unlink()
        with suppress(FileNotFoundError):
            shutil.rmtree(self._own)

    def _refuse_beside_gc(self) -> None:
        """A gc of a person does all this, and more: leave it to that one."""
        with suppress(FileNotFoundError):
            if (self._git.directory / "gc.pid").stat().st_mtime > self._clock() - LEFT_BEHIND / 2:
                raise Failed("A git gc is running in the repository.", code=ErrorCode.BUSY)

    # -- pruning -------------------------------------------------------------------------------------------------

    def _prune(self, cancellation: Cancellation) -> int:
        """Delete objects that nothing has referred to for long, some at a time and only while nobody changes anything."""
        self._remove_left()
        before = {
            ref: self._git.ref(ref) for ref in ("HEAD", *self._git.refs("refs/heads/"), *self._git.refs("refs/glix/"))
        }
        printed = self._git.in_background(
            "prune", "--dry-run", f"--expire={int(self._clock() - self._grace)}", cancellation=cancellation
        )
        oids = [line.split()[0] for line in printed.decode().splitlines() if _WASTE.fullmatch(line)]
        done = 0
        for start in range(0, len(oids), AT_ONCE):
            cancellation.check()
            with self._alone() as alone:
                if not alone or self._moved(before):
                    return done
                done += sum(map(self._delete_old, oids[start : start + AT_ONCE]))
        return done

    def _moved(self, before: Mapping[str, str | None]) -> bool:
        """Whether a change has come since the waste was looked for: it may use what was none of anybody's then."""
        return any(self._git.ref(name) != oid for name, oid in before.items())

    def _delete_old(self, oid: str) -> bool:
        """Delete an object, unless somebody has written it again meanwhile: git renews its time then."""
        path = self._objects / oid[:2] / oid[2:]
        if not _older(path, self._clock() - self._grace):
            return False
        path.unlink(missing_ok=True)
        return True

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the repository where nobody else does; says whether."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _taken(descriptor)
        finally:
            os.close(descriptor)

    def _remove_left(self) -> None:
        """Remove the temporary files of gits that were killed long ago."""
        for entry in self._entries("??", "pack"):
            if entry.name.startswith("tmp_") and _older(Path(entry.path), self._clock() - LEFT_BEHIND):
                Path(entry.path).unlink(missing_ok=True)

    def _entries(self, *patterns: str) -> Iterator[os.DirEntry[str]]:
        """What is in some folders of the store; git takes a folder away that becomes empty."""
        for folder in (folder for pattern in patterns for folder in self._objects.glob(pattern)):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                yield from entries


def _beside(index: Path) -> list[Path]:
    """The files of a pack but its index, and the pack itself first."""
    found = [path for path in index.parent.glob(f"{index.stem}.*") if path != index]
    return sorted(found, key=lambda path: path.suffix != ".pack")


def _kept(index: Path) -> list[Path]:
    return [index.with_suffix(suffix) for suffix in KEPT]


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False
