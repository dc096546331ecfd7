# SPDX-License-Identifier: GPL-3.0-or-later
"""The state database: the history of transactions, what evaluation said, and facts that are dear to find out twice.

Nothing in it is needed to read the repository: lost, it costs the log of old transactions.
"""

from __future__ import annotations

import datetime
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from glixd import api
from glixd.errors import Failed, NotFound
from glixd.log import get_logger
from glixd.protocol import ErrorCode, State

log = get_logger()

KEEP: Final = 500
"""Finished transactions that are kept."""
KEEP_DAYS: Final = 30
KEEP_FACTS: Final = 2000
"""Facts that are kept; those of old revisions are never asked for again, and nothing says so."""
JOURNAL: Final = 4 * 1024 * 1024
"""Bytes that the journal beside the database may keep once what is in it has been taken over."""

LOST: Final = "records lost"
DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

MIGRATIONS: Final = (
    """
    CREATE TABLE transactions (
        id TEXT PRIMARY KEY, uid INTEGER NOT NULL, state TEXT NOT NULL, created TEXT NOT NULL, record TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX by_state ON transactions (state);
    CREATE TABLE health (
        host TEXT PRIMARY KEY, commit_id TEXT NOT NULL, state TEXT NOT NULL, message TEXT
    ) WITHOUT ROWID;
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE facts ADD COLUMN learned TEXT NOT NULL DEFAULT '';
    """,
)
"""Each brings the database one version further; never changed once released."""


_UID: Final = "json_extract(record, '$.uid')"


def unknown_transaction(identifier: str) -> NotFound:
    """No transaction has that id."""
    return NotFound(
        f"There is no transaction {identifier}.",
        code=ErrorCode.UNKNOWN_TRANSACTION,
        hint="See: glixctl transaction list",
        details={"transaction": identifier},
    )


class Database:
    """One connection, used from any thread one at a time. Every write is on the disk when the call returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._guard = threading.Lock()
        self._connection = self._open(path)

    @property
    def lost(self) -> bool:
        """Whether the records were damaged, and what the commits tell of them was not read yet."""
        return self.fact(LOST) is not None

    def found_again(self) -> None:
        """What can be known of lost records is known."""
        self._write("DELETE FROM facts WHERE key = ?", (LOST,))

    def save(self, *transactions: api.Transaction) -> None:
        """Write transactions, new or changed: all of them with one wait for the disk, or none."""
        values: list[object] = []
        for one in transactions:
            record = one.model_dump_json(exclude_none=True)
            values += (one.id, one.uid, one.state, one.created, record)
        rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(transactions))
        self._write(
            f"INSERT INTO transactions VALUES {rows} "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record",
            values,
        )

    def load(self, identifier: str) -> api.Transaction | None:
        """The transaction of that id."""
        rows = self._read("SELECT record FROM transactions WHERE id = ?", (identifier,))
        return api.Transaction.model_validate_json(rows[0][0]) if rows else None

    def recent(self, states: Sequence[str], limit: int, uids: Sequence[int] | None = None) -> list[api.Transaction]:
        """The newest transactions in these states, and of these users; no states means all, and so does None for users."""
        wanted = [f"state IN ({','.join('?' * len(states))})"] if states else []
        if uids is not None:
            wanted.append(f"{_UID} IN ({','.join('?' * len(uids))})")
        where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
        values = (*states, *(uids or ()), limit)
        rows = self._read(f"SELECT record FROM transactions {where} ORDER BY id DESC LIMIT ?", values)  # noqa: S608
        return [api.Transaction.model_validate_json(row[0]) for row in rows]

    def owners(self) -> list[int]:
        """The users whose transactions are known."""
        return [int(row[0]) for row in self._read(f"SELECT DISTINCT {_UID} FROM transactions", ())]  # noqa: S608

    def unfinished(self) -> list[api.Transaction]:
        """What an earlier daemon left without an end."""
        return self.recent([state for state in State if not state.final], -1)

    def prune(self, now: datetime.datetime) -> None:
        """Forget finished transactions beyond the newest 500 or older than 30 days, and facts by the same rule."""
        oldest = (now - datetime.timedelta(days=KEEP_DAYS)).strftime("%Y-%m-%dT%H:%M:%SZ")
        finished = "state IN ('succeeded', 'failed', 'cancelled')"
        self._write(
            f"DELETE FROM transactions WHERE {finished} AND (created < ? OR id NOT IN "  # noqa: S608
            f"(SELECT id FROM transactions WHERE {finished} ORDER BY id DESC LIMIT ?))",
            (oldest, KEEP),
        )
        self._write(
            "DELETE FROM facts WHERE learned < ? OR key NOT IN (SELECT key FROM facts ORDER BY learned DESC LIMIT ?)",
            (oldest, KEEP_FACTS),
        )

    def set_health(self, host: str, health: api.Health) -> None:
        """Remember what evaluating a host at a commit said."""
        self._write(
            "INSERT OR REPLACE INTO health VALUES (?, ?, ?, ?)",
            (host, health.commit or "", health.state, health.message),
        )

    def health(self, host: str) -> api.Health:
        """What the last evaluation of a host said."""
        rows = self._read("SELECT commit_id, state, message FROM health WHERE host = ?", (host,))
        if not rows:
            return api.Health(state="unknown")
        commit, state, message = rows[0]
        return api.Health(state=state, commit=commit or None, message=message)

    def fact(self, key: str) -> str | None:
        """A fact that was remembered; its key names everything it depends on."""
        rows = self._read("SELECT value FROM facts WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def remember(self, key: str, value: str) -> None:
        """Remember a fact; it holds for good, and is forgotten after a while to be found out again."""
        self._write(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
            (key, value),
        )

    def problem(self) -> str | None:
        """What is wrong with the database; None when nothing is."""
        if not self._read("SELECT file FROM pragma_database_list WHERE name = 'main'", ())[0][0]:
            return "it can't be written, so nothing is remembered"
        try:
            with self._guard:
                found = self._connection.execute("PRAGMA quick_check(1)").fetchall()[0][0]
        except sqlite3.DatabaseError as error:
            return str(error)
        return None if found == "ok" else found

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._connection.close()

    def _open(self, path: Path) -> sqlite3.Connection:
        """The database; a damaged one is moved aside, and one that can't be written is kept in memory alone."""
        try:
            return _connect(path)
        except sqlite3.OperationalError as error:
            log.warning(
                "the state database can't be written, so nothing is remembered", path=str(path), reason=str(error)
            )
            return _connect(":memory:")
        except sqlite3.DatabaseError as error:
            return _anew(path, error)

    def _read(self, statement: str, values: Sequence[object]) -> list[tuple[str, ...]]:
        with self._guard, _translating():
            return self._execute(statement, values)

    def _write(self, statement: str, values: Sequence[object]) -> None:
        with self._guard, _translating():
            self._execute(statement, values)

    def _execute(self, statement: str, values: Sequence[object]) -> list[tuple[str, ...]]:
        """Damage is seen where it is touched; the database starts anew then, and does what was asked."""
        try:
            return self._connection.execute(statement, tuple(values)).fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in DAMAGE:
                raise
            self._connection.close()
            self._connection = _anew(self._path, error)
            return self._connection.execute(statement, tuple(values)).fetchall()


def _anew(path: Path, error: sqlite3.DatabaseError) -> sqlite3.Connection:
    """An empty database in the place of a damaged one, which is moved aside."""
    log.warning("the state database is damaged and starts anew", path=str(path), reason=str(error))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.replace(path.with_name(f"{path.name}.damaged"))
    connection = _connect(path)
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, '', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))", (LOST,))
    return connection


def _connect(path: Path | str) -> sqlite3.Connection:
    """A connection to a database of the newest version."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL}")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path | str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise Failed(
            f"{path} was written by a newer glixd (version {version}, this one knows {len(MIGRATIONS)}).",
            code=ErrorCode.UNSUPPORTED_HERE,
            hint="Start that newer glixd, or move the file away: only the log of old transactions is in it.",
        )
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


@contextmanager
def _translating() -> Iterator[None]:
    """What the database can't do, as an error that is told."""
    try:
        yield
    except sqlite3.OperationalError as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        raise Failed(
            f"The state database can't be used: {error}.",
            code=ErrorCode.NO_SPACE if full else ErrorCode.READ_ONLY,
            hint="Free some room and try again." if full else "Look at the permissions of the state folder.",
        ) from error
