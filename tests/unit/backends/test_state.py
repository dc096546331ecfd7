# SPDX-License-Identifier: GPL-3.0-or-later
"""The state database: what it remembers, forgets and survives."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.api import Health, Transaction
from glixd.backends.state import JOURNAL, KEEP, KEEP_DAYS, KEEP_FACTS, MIGRATIONS, Database
from glixd.errors import Failed
from glixd.protocol import ErrorCode, State

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    made = Database(path)
    yield made
    made.close()


def _transaction(number: int, state: State, moment: datetime.datetime = NOW) -> Transaction:
    return Transaction(
        id=f"{number:026}",
        operation="Add",
        state=state,
        uid=1000,
        login="alice",
        created=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        dry_run=False,
    )


def test_a_transaction_is_read_back_as_it_was_last_saved(database: Database, path: Path) -> None:
    database.save(_transaction(1, State.RUNNING))
    database.save(_transaction(1, State.SUCCEEDED))
    database.close()
    again = Database(path)
    assert again.load(f"{1:026}") == _transaction(1, State.SUCCEEDED)
    assert again.load("none") is None
    again.close()


def test_several_are_saved_together_and_the_last_word_of_each_counts(database: Database) -> None:
    database.save(_transaction(1, State.RUNNING))
    database.save(_transaction(2, State.PREPARING), _transaction(1, State.FAILED), _transaction(2, State.RUNNING))
    assert [(int(found.id), found.state) for found in database.recent((), 10)] == [(2, "running"), (1, "failed")]


def test_the_newest_come_first_and_states_can_be_chosen(database: Database) -> None:
    for number, state in enumerate((State.SUCCEEDED, State.FAILED, State.SUCCEEDED)):
        database.save(_transaction(number, state))
    assert [int(found.id) for found in database.recent((), 2)] == [2, 1]
    assert [int(found.id) for found in database.recent((State.SUCCEEDED,), 10)] == [2, 0]


def test_what_has_not_ended_is_unfinished(database: Database) -> None:
    for number, state in enumerate(State):
        database.save(_transaction(number, state))
    assert {found.state for found in database.unfinished()} == {state for state in State if not state.final}


def test_old_transactions_are_forgotten_and_unfinished_ones_never(database: Database) -> None:
    long_ago = NOW - datetime.timedelta(days=KEEP_DAYS + 1)
    database.save(_transaction(0, State.RUNNING, long_ago))
    database.save(_transaction(1, State.FAILED, long_ago))
    for number in range(2, KEEP + 12):
        database.save(_transaction(number, State.SUCCEEDED))
    database.prune(NOW)
    kept = [int(found.id) for found in database.recent((), -1)]
    assert kept == [*range(KEEP + 11, 11, -1), 0]


def test_health_and_facts_are_remembered(database: Database) -> None:
    assert database.health("laptop") == Health(state="unknown")
    told = Health(state="broken", commit="abc", message="why")
    database.set_health("laptop", told)
    assert database.health("laptop") == told
    assert database.fact("key") is None
    database.remember("key", "one")
    database.remember("key", "two")
    assert database.fact("key") == "two"


def test_old_facts_and_too_many_are_forgotten(database: Database) -> None:
    database.remember("old", "value")
    database.prune(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=KEEP_DAYS, seconds=5))
    assert database.fact("old") is None
    for number in range(KEEP_FACTS + 10):
        database.remember(f"fact {number}", "value")
    database.prune(datetime.datetime.now(datetime.UTC))
    assert len(database._read("SELECT key FROM facts", ())) == KEEP_FACTS


def test_the_journal_beside_the_database_stays_small(database: Database, path: Path) -> None:
    journal = path.with_name("state.db-wal")
    for number in range(3000):
        database.save(_transaction(number, State.SUCCEEDED))
        assert journal.stat().st_size < 2 * JOURNAL


def test_a_database_of_each_older_version_is_brought_forward(path: Path) -> None:
    path.parent.mkdir(parents=True)
    for version in range(len(MIGRATIONS)):
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        for number, script in enumerate(MIGRATIONS[:version], 1):
            connection.executescript(f"{script} PRAGMA user_version = {number};")
        connection.close()
        made = Database(path)
        made.save(_transaction(1, State.SUCCEEDED))
        assert made.load(f"{1:026}")
        made.close()


def test_a_database_of_a_newer_glixd_is_refused_and_stays_as_it_is(path: Path) -> None:
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Failed) as caught:
        Database(path)
    assert caught.value.code is ErrorCode.UNSUPPORTED_HERE
    assert caught.value.hint
    assert path.read_bytes() == before


def test_a_damaged_database_is_put_aside(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 100)
    made = Database(path)
    made.save(_transaction(1, State.SUCCEEDED))
    assert made.load(f"{1:026}")
    made.close()
    assert path.with_name("state.db.damaged").exists()


def test_every_write_waits_for_the_disk(path: Path, database: Database) -> None:
    assert database._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
