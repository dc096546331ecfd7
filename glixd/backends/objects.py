# SPDX-License-Identifier: GPL-3.0-or-later
"""New objects of a git repository: made in memory, readable there at once, and written all together, durably.

Several commits that follow each other can so be made before any of them is on the disk. An object is written as git
writes a loose one: into a file of another name, synchronised, then renamed; git reads it from then on. The formats are those
of gitformat-loose(5) and "git help cat-file"; a git that writes them itself takes a process for each kind.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from glixd import hashes
from glixd.backends import files

REGULAR: Final = "100644"
PROGRAM: Final = "100755"
TREE: Final = "40000"
LEVEL: Final = 1
"""How hard to compress: a loose object is packed before long, and packed better then."""
OPEN: Final = 128
"""Files that are open at once: a push brings thousands of objects."""
MODE: Final = 0o444
"""Of the file of an object, which never changes."""


class Entry(NamedTuple):
    """One entry of a tree."""

    mode: str
    oid: str

    @property
    def is_tree(self) -> bool:
        """Whether it is a folder."""
        return self.mode == TREE

    @property
    def is_regular(self) -> bool:
        """Whether it is a plain file: no folder, link or submodule."""
        return self.mode in (REGULAR, PROGRAM)


class Object(NamedTuple):
    """One object of the store."""

    oid: str
    kind: str
    data: bytes


class Person(NamedTuple):
    """Who wrote or committed."""

    name: str
    email: str


GLIXD: Final = Person("glixd", "glixd@localhost")
"""Who commits, tags and moves refs, whoever asked for it."""


Content = bytes | Entry | None
"""What a path becomes: new bytes, an object that is there already, or nothing."""


class Commit(NamedTuple):
    """A commit to be made."""

    base: str | None
    author: Person
    committer: Person
    message: str
    files: Mapping[str, Content]
    programs: Set[str] = frozenset()
    """The paths whose new contents are executable."""
    written: int | None = None
    """When the author wrote it, in seconds of the epoch; by default now."""


class Pending:
    """The objects that were made and no ref leads to yet. For one thread at a time; others may read."""

    def __init__(self, objects: Path, tree: Callable[[str], dict[str, Entry]]) -> None:
        self._objects = objects
        self._tree = tree
        self._made: dict[str, Object] = {}
        self._written: set[str] = set()
        """Those of them that were written already, and are kept until nothing can take them away any more."""
        self._syncing = files.Syncing()

    def get(self, oid: str) -> Object | None:
        """An object that was made here."""
        return self._made.get(oid)

    def named(self, name: str) -> str:
        """The object that a name means which begins with a commit made here, empty where there is none; else the name itself.

        Such names are `commit`, `commit^{tree}` and `commit:path`.
        """
        commit, colon, path = name.removesuffix("^{tree}").partition(":")
        found = self._made.get(commit)
        if found is None or not (colon or name.endswith("^{tree}")):
            return name
        oid = found.data.split(b"\n", 1)[0].removeprefix(b"tree ").decode()
        for part in filter(None, path.split("/")):
            entry = self._tree(oid).get(part)
            if entry is None:
                return ""
            oid = entry.oid
        return oid

    def parent(self, oid: str) -> str | None:
        """The commit that a commit made here follows."""
        found = self._made.get(oid)
        lines = found.data.split(b"\n", 2) if found and found.kind == "commit" else []
        return lines[1].removeprefix(b"parent ").decode() if lines[1:2] and lines[1].startswith(b"parent ") else None

    def commit(self, commit: Commit, width: int) -> str:
        """Make the objects of a commit, in names of `width` digits; its name."""
        base = self._tree(f"{commit.base}^{{tree}}") if commit.base else {}
        changes = {
            tuple(path.split("/")): self._leaf(path, content, commit, width) for path, content in commit.files.items()
        }
        tree = self._folder(base, changes, width)
        now = int(time.time())
        lines = [
            f"tree {tree or self._add('tree', b'', width)}",
            *([f"parent {commit.base}"] if commit.base else []),
            f"author {_identity(commit.author)} {now if commit.written is None else commit.written} +0000",
            f"committer {_identity(commit.committer)} {now} +0000",
            "",
            commit.message,
        ]
        return self._add("commit", "\n".join(lines).encode(), width)

    def tag(self, name: str, commit: str, tagger: Person, when: int, message: str) -> str:
        """Make an annotated tag of a commit; the name of the object."""
        lines = [
            f"object {commit}",
            "type commit",
            f"tag {name}",
            f"tagger {_identity(tagger)} {when} +0000",
            "",
            message,
        ]
        return self._add("tag", "\n".join(lines).encode(), len(commit))

    def write(self) -> None:
        """Write what was made, durably, long before a ref leads to it; raises OSError as `settle` does.

        It is kept here too: a `git prune` of somebody takes away what no ref leads to, and then `settle` writes it once more.
        """
        made = dict(self._made)
        self.settle()
        self._made, self._written = made, set(made)

    def settle(self) -> None:
        """Write what was made, durably; afterwards git has it. Raises OSError, and then it is as if nothing had been made."""
        places = {oid: self._objects / oid[:2] / oid[2:] for oid in self._made}
        there = {oid for oid in self._written if places[oid].exists()}
        made = {oid: one for oid, one in self._made.items() if oid not in there}
        self.forget()
        places = {oid: places[oid] for oid in made}
        beside = {oid: place.with_name(f"tmp_obj_{place.name}") for oid, place in places.items()}
        folders = {place.parent for place in places.values()}
        if any(not folder.is_dir() for folder in folders):
            folders.add(self._objects)
        try:
            oids = list(made)
            for start in range(0, len(oids), OPEN):
                self._write({beside[oid]: made[oid] for oid in oids[start : start + OPEN]})
            for oid, path in beside.items():
                path.replace(places[oid])
        except OSError:
            for path in beside.values():
                path.unlink(missing_ok=True)
            raise
        self._syncing.each_there(folders)

    def _write(self, objects: Mapping[Path, Object]) -> None:
        """Write the files of some objects, and wait until they are on the disk."""
        with ExitStack() as opened:
            descriptors = []
            for path, one in objects.items():
                descriptor = files.open_new(path, MODE)
                opened.callback(os.close, descriptor)
                files.write_all(descriptor, zlib.compress(_raw(one.kind, one.data), LEVEL))
                descriptors.append(descriptor)
            self._syncing.each(descriptors)

    def forget(self) -> None:
        """Drop what was made and not written."""
        self._made, self._written = {}, set()

    def _leaf(self, path: str, content: Content, commit: Commit, width: int) -> Entry | None:
        if not isinstance(content, bytes):
            return content
        return Entry(PROGRAM if path in commit.programs else REGULAR, self._add("blob", content, width))

    def _folder(
        self, entries: Mapping[str, Entry], changes: Mapping[tuple[str, ...], Entry | None], width: int
    ) -> str | None:
        """The tree that a folder becomes; None when nothing is left in it."""
        after = dict(entries)
        below: dict[str, dict[tuple[str, ...], Entry | None]] = {}
        for (name, *rest), entry in changes.items():
            if rest:
                below.setdefault(name, {})[tuple(rest)] = entry
            elif entry is None:
                after.pop(name, None)
            else:
                after[name] = entry
        for name, inner in below.items():
            there = after.get(name)
            tree = self._folder(self._tree(there.oid) if there and there.is_tree else {}, inner, width)
            if tree is not None:
                after[name] = Entry(TREE, tree)
            elif there and there.is_tree:
                del after[name]
        return self._add("tree", _tree_data(after), width) if after else None

    def _add(self, kind: str, data: bytes, width: int) -> str:
        oid = object_name(kind, data, width)
        self._made[oid] = Object(oid, kind, data)
        return oid


def object_name(kind: str, data: bytes, width: int) -> str:
    """The name that git gives to an object: a hash of `width` hexadecimal digits over its kind, size and data."""
    named = hashes.sha256 if width == 64 else hashes.sha1
    return named(_raw(kind, data))


def entries_of(tree: Object) -> Iterable[tuple[str, Entry]]:
    """The entries of a raw tree object: `mode name NUL oid`, the oid in bytes as long as the object's own name says."""
    data, width, start = tree.data, len(tree.oid) // 2, 0
    while start < len(data):
        end = data.index(b"\0", start)
        mode, _, name = data[start:end].partition(b" ")
        yield (
            name.decode(errors="surrogateescape"),
            Entry(mode.decode(), data[end + 1 : end + 1 + width].hex()),
        )
        start = end + 1 + width


def _tree_data(entries: Mapping[str, Entry]) -> bytes:
    """A raw tree object; git sorts a folder as if its name ended in a slash."""
    named = {name.encode(errors="surrogateescape"): entry for name, entry in entries.items()}
    order = sorted(named, key=lambda name: name + b"/" if named[name].is_tree else name)
    return b"".join(named[name].mode.encode() + b" " + name + b"\0" + bytes.fromhex(named[name].oid) for name in order)


def _raw(kind: str, data: bytes) -> bytes:
    return f"{kind} {len(data)}\0".encode() + data


def _identity(person: Person) -> str:
    """A name and an address as a commit spells them; what would end them early is left out, as git does."""
    name, email = ("".join(c for c in text if c not in "<>\n\0").strip() for text in person)
    return f"{name} <{email}>"
