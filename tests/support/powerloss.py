# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk holds after its power went, made from the calls of a run that nobody disturbed.

A disk keeps what it was told to synchronise, and of the rest what it likes. Three disks stand for all of them: one that keeps
as little as POSIX allows (a name in a folder only once the folder was synchronised), one with a journal (every name that there
was at the last synchronisation of anything), and one that is quick with names and slow with contents (every name, and of
each file only what was synchronised). A file that never was is empty on all three.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final

from tests.support.faults import Call


class Keeps(StrEnum):
    """How much a disk keeps of the names that were not synchronised by themselves."""

    LEAST = "names that were synchronised"
    JOURNAL = "names as of the last synchronisation"
    NAMES = "all names"


@dataclass(eq=False)
class File:
    """A file or a link: what of it is on the disk."""

    data: bytes = b""
    mode: int = 0o644
    link: str | None = None


@dataclass(eq=False)
class Folder:
    """A folder: its names now, and those that each disk has."""

    mode: int = 0o755
    now: dict[str, Node] = field(default_factory=dict)
    least: dict[str, Node] = field(default_factory=dict)
    journal: dict[str, Node] = field(default_factory=dict)

    def names(self, keeps: Keeps) -> dict[str, Node]:
        """The names that a disk has."""
        return {Keeps.LEAST: self.least, Keeps.JOURNAL: self.journal, Keeps.NAMES: self.now}[keeps]


Node = File | Folder
SILENT: Final = (
    "write",
    "pwrite",
    "writev",
    "sendfile",
    "copy_file",
    "fallocate",
    "ftruncate",
    "truncate",
    "chmod",
    "fchmod",
)
"""Calls that change no name, and no content that is on the disk."""
NEW: Final = ("open", "openat", "openat2", "creat", "mknod", "mknodat", "symlink", "symlinkat")
GONE: Final = ("unlink", "unlinkat", "rmdir")
MOVED: Final = ("rename", "renameat", "renameat2")


class Disk:
    """A folder of a disk, from the moment when all of it was there durably, through the calls of a run."""

    def __init__(self, before: Path, place: Path, copies: Path, *, leaving: Iterable[Path] = ()) -> None:
        """The disk has what `before` has, and the calls are those of a run in `place`; both leave out folders of `place`."""
        self._place = place
        self._copies = copies
        self._leaving = {os.path.relpath(path, place) for path in leaving}
        self._folders: list[Folder] = []
        self._root = self._read(before, ".")

    def follow(self, call: Call) -> bool:
        """Do what a call did; False where that makes no difference to any disk."""
        if call.name.startswith(SILENT):
            return False
        assert call.name not in ("sync", "syncfs"), "what that keeps was not copied"
        if call.name in ("fsync", "fdatasync", "sync_file_range"):
            self._synchronise(call)
        else:
            self._change(call)
        return True

    def write(self, target: Path, keeps: Keeps) -> None:
        """Make a folder that has what a disk has."""
        known: dict[File, Path] = {}
        for path, node in self._walk(self._root, target, keeps):
            if isinstance(node, Folder):
                path.mkdir()
                path.chmod(node.mode)
            elif node in known:
                path.hardlink_to(known[node])
            elif node.link is not None:
                path.symlink_to(node.link)
            else:
                path.write_bytes(node.data)
                path.chmod(node.mode)
                known[node] = path

    def _walk(self, node: Node, path: Path, keeps: Keeps) -> Iterator[tuple[Path, Node]]:
        yield path, node
        if isinstance(node, Folder):
            for name, child in node.names(keeps).items():
                yield from self._walk(child, path / name, keeps)

    def _read(self, path: Path, relative: str) -> Folder:
        folder = self._folder(path.stat().st_mode & 0o7777)
        for entry in os.scandir(path):
            below = os.path.normpath(f"{relative}/{entry.name}")
            if below in self._leaving or entry.name == "socket":
                continue
            folder.now[entry.name] = (
                self._read(Path(entry.path), below) if entry.is_dir(follow_symlinks=False) else _file(Path(entry.path))
            )
        folder.least, folder.journal = dict(folder.now), dict(folder.now)
        return folder

    def _folder(self, mode: int) -> Folder:
        made = Folder(mode)
        self._folders.append(made)
        return made

    def _synchronise(self, call: Call) -> None:
        node = self._find(call.path)
        if isinstance(node, Folder):
            node.least = dict(node.now)
        elif node is not None:
            copy = self._copies / str(call.point)
            node.data = copy.read_bytes()
        for folder in self._folders:
            folder.journal = dict(folder.now)

    def _change(self, call: Call) -> None:
        name, _, how = call.name.partition("+")
        if name in NEW:
            self._add(call.path, lambda: _made(Path(call.path)))
            if how == "truncate" and isinstance(node := self._find(call.path), File):
                node.data = b""
        elif name in ("mkdir", "mkdirat"):
            self._add(call.path, lambda: self._folder(_mode(Path(call.path), 0o755)))
        elif name in GONE:
            gone = self._find(call.path)
            if not (isinstance(gone, Folder) and gone.now):
                self._take(call.path)
        elif name in ("link", "linkat"):
            linked = self._find(call.path)
            if isinstance(linked, File) and call.other:
                self._add(call.other, lambda: linked)
        else:
            assert name in MOVED, f"a disk does not know what {call.name} does"
            self._move(call, how)

    def _move(self, call: Call, how: str) -> None:
        one, other = self._find(call.path), self._find(call.other)
        if one is None or (other is None and how == "exchange") or (other is not None and how == "noreplace"):
            return
        self._take(call.path)
        self._put(call.other, one)
        if how == "exchange":
            self._put(call.path, other)

    def _add(self, path: str, make: Callable[[], Node]) -> None:
        """A new name, where there is none."""
        folder, name = self._parent(path)
        if folder is not None and name not in folder.now:
            folder.now[name] = make()

    def _take(self, path: str) -> Node | None:
        folder, name = self._parent(path)
        return folder.now.pop(name, None) if folder is not None else None

    def _put(self, path: str, node: Node | None) -> None:
        folder, name = self._parent(path)
        if folder is not None and node is not None:
            folder.now[name] = node

    def _find(self, path: str) -> Node | None:
        if os.path.normpath(path) == os.fspath(self._place):
            return self._root
        folder, name = self._parent(path)
        return folder.now.get(name) if folder is not None else None

    def _parent(self, path: str) -> tuple[Folder | None, str]:
        """The folder of a path, where the disk has it, and the name there."""
        parts = PurePosixPath(os.path.relpath(path, self._place)).parts
        if not parts:
            return None, ""
        node: Node | None = self._root
        for part in parts[:-1]:
            node = node.now.get(part) if isinstance(node, Folder) else None
        return (node if isinstance(node, Folder) else None), parts[-1]


def _file(path: Path) -> File:
    if path.is_symlink():
        return File(link=os.readlink(path))
    return File(path.read_bytes(), path.stat().st_mode & 0o7777)


def _made(path: Path) -> File:
    """A file that a run made, of which the disk has no content yet; its mode is what it had in the end, where it is there still."""
    if path.is_symlink():
        return File(link=os.readlink(path))
    return File(mode=_mode(path, 0o644))


def _mode(path: Path, otherwise: int) -> int:
    return path.stat().st_mode & 0o7777 if path.exists() else otherwise
