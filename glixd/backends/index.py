# SPDX-License-Identifier: GPL-3.0-or-later
"""The package index: every package of one locked nixpkgs for one system, in an SQLite file that is searched by words.

A file is named after the revision and the system it is about, so it never gets stale: another lock means another file. It is
written as a draft, which keeps what is still to be looked at, so that a build goes on where an earlier daemon stopped; only
when it is complete does it get its name. The packages stand in the order in which answers list them (near the top of the
package set, then short, then by the alphabet), so that a search streams the first hits and sorts nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from glixd.api import Consent
from glixd.backends.files import translating
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.near import near
from glixd.protocol import ErrorCode
from glixd.values import dataclass

log = get_logger()

FORMAT: Final = 1
"""Part of every file's name: an index of another form is none."""
ATTRIBUTE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+'-]*", re.ASCII)
"""A part of an attribute path that can be written in a reference without quotes."""
ALIKE: Final = 150
"""So many names with the same beginning are compared with a misspelt one: to compare all would take a quarter of a second."""
LEVELS: Final = 4
"""How well a package fits: its name, the beginning of its name, words of its name, words of its description."""

Path_ = tuple[str, ...]


class Entry(NamedTuple):
    """One package of the index."""

    attribute: str
    name: str
    version: str
    description: str
    marks: tuple[Consent, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What evaluating some attributes gave: packages, and package sets with what is in them."""

    packages: tuple[Entry, ...] = ()
    below: tuple[Path_, ...] = ()


class IndexDamaged(Failed):
    """An index can't be read; without it, everything is found out in another way."""

    def __init__(self, index: Index, reason: str) -> None:
        super().__init__(f"The package index is damaged: {reason}.")
        self.index = index


class Index:
    """One complete index. Safe from any thread."""

    def __init__(self, path: Path, revision: str, system: str) -> None:
        self.path = path
        self.revision = revision
        self.system = system
        self._guard = threading.Lock()
        url = f"file:{quote(os.fspath(path))}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(url, uri=True, check_same_thread=False, isolation_level=None)
        try:
            self.size: int = self._rows("SELECT count(*) FROM entries")[0][0]
        except BaseException:
            self._connection.close()
            raise

    def find(self, attribute: str) -> Entry | None:
        """The package of exactly that attribute path."""
        rows = self._rows(_FIND, attribute)
        return _entry(rows[0]) if rows else None

    def level(self, query: str, level: int, limit: int) -> list[tuple[int, Entry]]:
        """The first packages that fit `query` on one of the LEVELS, each with its number; better levels may overlap it."""
        words = words_of(query)
        if level == 0:
            plain = query.casefold()
            found = self._rows(_EXACT, plain, plain, plain, limit)
        elif not words:
            found = []
        elif level == 1:
            found = self._rows(_MATCH.format(table="names"), f'^ "{" ".join(words)}" *', limit)
        else:
            table = "names" if level == 2 else "texts"
            found = self._rows(_MATCH.format(table=table), " AND ".join(f'"{word}" *' for word in words), limit)
        return [(row[0], _entry(row[1:])) for row in found]

    def near(self, name: str, count: int) -> list[str]:
        """The attributes of the top level that are spelt most like `name`."""
        low = name.casefold()
        # as it begins, with the first letter left out, two in the wrong order, or one too many
        begins = dict.fromkeys((low[:2], low[1:3], low[1:2] + low[:1], low[:1] + low[2:3]))
        sizes = (len(low) - 2, len(low) + 2)
        rows = [row for begin in begins for row in self._rows(_ALIKE, begin, f"{begin}\U0010ffff", *sizes, ALIKE)]
        return near(name, (row[0] for row in rows), count)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._connection.close()

    def _rows(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._guard:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.ProgrammingError:
            raise Failed("The package index was put away meanwhile.", code=ErrorCode.BUSY, hint="Try again.") from None
        except sqlite3.DatabaseError as error:
            raise IndexDamaged(self, str(error)) from None


class Draft:
    """An index that is being built. Used by one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA synchronous = OFF")  # a draft that is lost is built again
            self._connection.executescript(_DRAFT)
        except BaseException:
            self._connection.close()
            raise
        self._connection.create_function("depth", 1, lambda attribute: attribute.count(".") + 1)
        self._connection.create_function("last", 1, lambda attribute: attribute.rpartition(".")[2].lower())

    @property
    def begun(self) -> bool:
        """Whether an earlier build got so far that there is something to go on with."""
        return bool(self._count("todo") or self._count("packages"))

    def begin(self, names: Iterable[str]) -> None:
        """Have these attributes of the top level looked at."""
        self.add((), Found(below=tuple((name,) for name in names)))

    @property
    def progress(self) -> tuple[int, int]:
        """How many packages were found, and how many attributes are still to be looked at."""
        return self._count("packages"), self._count("todo")

    def todo(self, count: int) -> list[Path_]:
        """Some of the attributes that are still to be looked at."""
        with _translating(self.path):
            rows = self._connection.execute("SELECT path FROM todo ORDER BY id LIMIT ?", (count,)).fetchall()
        return [tuple(json.loads(row[0])) for row in rows]

    def add(self, looked_at: Sequence[Path_], found: Found) -> None:
        """Keep what was found, and go on below."""
        with self._transaction():
            self._connection.executemany("DELETE FROM todo WHERE path = ?", [(json.dumps(path),) for path in looked_at])
            self._connection.executemany(
                "INSERT OR IGNORE INTO packages VALUES (?, ?, ?, ?, ?)", [_row(entry) for entry in found.packages]
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO todo (path) VALUES (?)",
                [(json.dumps(path),) for path in found.below if all(map(ATTRIBUTE.fullmatch, path))],
            )

    def finish(self) -> None:
        """Order what was found, index the words, and let go of the file."""
        with self._transaction():
            for statement in _FINISH:
                self._connection.execute(statement)
        with _translating(self.path):
            self._connection.execute("VACUUM")
        self.close()
        with translating(self.path):
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the file; the next build goes on from here."""
        self._connection.close()

    def _count(self, table: str) -> int:
        with _translating(self.path):
            return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translating(self.path), self._connection:
            self._connection.execute("BEGIN")
            yield


class Indexes:
    """The folder of indexes. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._open: dict[Path, Index] = {}

    def get(self, revision: str | None, system: str) -> Index | None:
        """The index of a nixpkgs; None where there is none that is complete."""
        if revision is None:
            return None
        path = self._path(revision, system)
        with self._guard:
            if path not in self._open and path.exists():
                try:
                    self._open[path] = Index(path, revision, system)
                except (IndexDamaged, sqlite3.DatabaseError) as error:
                    log.warning("an index is damaged and will be built again", path=str(path), reason=str(error))
                    path.unlink(missing_ok=True)
            return self._open.get(path)

    def other(self, system: str) -> Index | None:
        """An index of another nixpkgs for that system: good enough until the right one is there."""
        with self._guard:
            return next((index for index in self._open.values() if index.system == system), None)

    def draft(self, revision: str, system: str) -> Draft:
        """The unfinished index of a nixpkgs, new or where an earlier build stopped."""
        with translating(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(revision, system).with_suffix(".draft")
        with _translating(path):
            return Draft(path)

    def complete(self, draft: Draft, revision: str, system: str) -> Index | None:
        """Give a finished draft its name; from here on it is answered from."""
        draft.finish()
        with translating(self._folder):
            draft.path.replace(self._path(revision, system))
        return self.get(revision, system)

    def forget(self, index: Index) -> None:
        """Delete an index that turned out to be damaged."""
        log.warning("an index is damaged and will be built again", path=str(index.path))
        with self._guard:
            self._open.pop(index.path, None)
            index.path.unlink(missing_ok=True)
        index.close()

    def prune(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Delete every index but those of the wanted pairs of revision and system."""
        kept = {self._path(revision, system).stem for revision, system in wanted}
        with self._guard:
            for path in [path for path in self._open if path.stem not in kept]:
                self._open.pop(path).close()
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path.name.partition(".")[0] not in kept:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close every file."""
        with self._guard:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _path(self, revision: str, system: str) -> Path:
        name = hashlib.sha256(f"{FORMAT} {revision} {system}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.db"


def words_of(query: str) -> list[str]:
    """The words of a query, as the index cuts text into words."""
    return re.findall(r"[^\W_]+", query.casefold())


def level_of(query: str, name: str, description: str) -> int | None:
    """On which of the LEVELS a package that is in no index fits a query; None where it does not."""
    low, words = name.casefold(), words_of(query)
    if low == query.casefold():
        return 0
    if not words:
        return None
    parts = words_of(low)
    if " ".join(parts).startswith(" ".join(words)):
        return 1
    if _all_begin(words, parts):
        return 2
    return 3 if _all_begin(words, [*parts, *words_of(description)]) else None


def _all_begin(words: Sequence[str], parts: Sequence[str]) -> bool:
    return all(any(part.startswith(word) for part in parts) for word in words)


_MARKS: Final = tuple(Consent)
_COLUMNS: Final = "attribute, name, version, description, marks"
_FIND: Final = f"SELECT {_COLUMNS} FROM entries WHERE attribute = ?"  # noqa: S608 - names of our own
_EXACT: Final = (
    f"SELECT id, {_COLUMNS} FROM entries WHERE last = ? OR low = ? OR lower(attribute) = ? ORDER BY id LIMIT ?"  # noqa: S608
)
_MATCH: Final = (
    "SELECT id, entries.attribute, entries.name, version, description, marks "
    "FROM {table} JOIN entries ON id = {table}.rowid WHERE {table} MATCH ? ORDER BY {table}.rowid LIMIT ?"
)
_ALIKE: Final = """
    SELECT attribute FROM entries WHERE last BETWEEN ? AND ? AND depth = 1 AND length(last) BETWEEN ? AND ? LIMIT ?
"""
_DRAFT: Final = """
    CREATE TABLE IF NOT EXISTS todo (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
    CREATE TABLE IF NOT EXISTS packages (
        attribute TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, description TEXT NOT NULL, marks INTEGER NOT NULL
    ) WITHOUT ROWID;
"""
_FINISH: Final = (
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY, attribute TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
        description TEXT NOT NULL, marks INTEGER NOT NULL, depth INTEGER NOT NULL, last TEXT NOT NULL, low TEXT NOT NULL
    )""",
    """INSERT INTO entries (attribute, name, version, description, marks, depth, last, low)
        SELECT attribute, name, version, description, marks, depth(attribute), last(attribute), lower(name) FROM packages
        ORDER BY depth(attribute), length(attribute), attribute""",
    "CREATE INDEX by_last ON entries (last)",
    "CREATE INDEX by_low ON entries (low)",
    "CREATE INDEX by_attribute ON entries (lower(attribute))",
    "CREATE VIRTUAL TABLE names USING fts5(attribute, name, content='', prefix='1 2 3 4 5 6 7 8')",
    "CREATE VIRTUAL TABLE texts USING fts5(text, content='', detail=none, columnsize=0, prefix='1 2 3 4 5 6 7 8')",
    "INSERT INTO names (rowid, attribute, name) SELECT id, attribute, name FROM entries ORDER BY id",
    """INSERT INTO texts (rowid, text)
        SELECT id, attribute || ' ' || name || ' ' || description FROM entries ORDER BY id""",
    "INSERT INTO names (names) VALUES ('optimize')",
    "INSERT INTO texts (texts) VALUES ('optimize')",
    "DROP TABLE packages",
    "DROP TABLE todo",
)


def _row(entry: Entry) -> tuple[object, ...]:
    marks = sum(1 << _MARKS.index(mark) for mark in entry.marks)
    return entry.attribute, entry.name, entry.version, entry.description, marks


def _entry(row: Sequence[object]) -> Entry:
    attribute, name, version, description, marks = row
    bits = int(str(marks))
    return Entry(
        str(attribute),
        str(name),
        str(version),
        str(description),
        tuple(mark for place, mark in enumerate(_MARKS) if bits >> place & 1),
    )


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """What SQLite can't do, as an error that is told; the draft goes, and the next build starts anew."""
    try:
        yield
    except sqlite3.Error as error:
        path.unlink(missing_ok=True)
        raise Failed(f"The package index {path.name} can't be written: {error}.") from error
