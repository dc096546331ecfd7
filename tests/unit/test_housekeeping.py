# SPDX-License-Identifier: GPL-3.0-or-later
"""When the daemon tidies: a while after a change, once for many, and without ever failing anybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import structlog.testing

from glixd.api import Transaction
from glixd.backends.packs import Tidied
from glixd.backends.process import Cancellation
from glixd.backends.state import KEEP, Database
from glixd.errors import Failed
from glixd.housekeeping import Housekeeper
from glixd.protocol import State
from glixd.queue import now
from tests.support.loop import on_loop, until

LIMIT = 10


@dataclass
class Shelf:
    """Loose objects that are counted and tidied, and how often."""

    count: int = 0
    tidied: int = 0
    left: int = 0
    error: Exception | None = None
    waits: threading.Event | None = None
    stopped: list[bool] = field(default_factory=list)

    def loose(self) -> int:
        return self.count

    def tidy(self, cancellation: Cancellation) -> Tidied:
        self.tidied += 1
        if self.waits:
            self.waits.set()
            while not cancellation.requested:
                pass
            self.stopped.append(True)
            cancellation.check()
        if self.error:
            raise self.error
        packed, self.count = self.count - self.left, self.left
        return Tidied(packed)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "state.db")
    yield made
    made.close()


def housekeeper(shelf: Shelf, database: Database, delay: float = 0.0) -> Housekeeper:
    return Housekeeper(cast(Any, shelf), database, delay=delay, limit=LIMIT)


async def considered(keeper: Housekeeper) -> None:
    """A change, and whatever follows from it."""
    keeper.consider()
    waiting = keeper._waiting
    assert waiting
    await waiting


@on_loop
async def test_nothing_is_tidied_before_it_is_worth_it(database: Database) -> None:
    shelf = Shelf(LIMIT - 1)
    keeper = housekeeper(shelf, database)
    await considered(keeper)
    assert shelf.tidied == 0
    shelf.count = LIMIT
    await considered(keeper)
    assert (shelf.tidied, shelf.count) == (1, 0)
    await keeper.close()


@on_loop
async def test_what_can_not_be_packed_does_not_count_again(database: Database) -> None:
    shelf = Shelf(LIMIT, left=LIMIT)
    keeper = housekeeper(shelf, database)
    for _ in range(3):
        await considered(keeper)
    assert shelf.tidied == 1
    shelf.count = 2 * LIMIT
    await considered(keeper)
    assert shelf.tidied == 2
    await keeper.close()


@on_loop
async def test_many_changes_are_followed_by_one_look(database: Database) -> None:
    shelf = Shelf(LIMIT)
    keeper = housekeeper(shelf, database, delay=0.05)
    for _ in range(100):
        keeper.consider()
    assert not keeper.busy
    await until(lambda: shelf.tidied > 0)
    await until(lambda: not keeper.busy)
    assert shelf.tidied == 1
    await keeper.close()


@on_loop
async def test_history_is_pruned_while_the_daemon_runs(database: Database) -> None:
    for number in range(KEEP + 5):
        database.save(
            Transaction(
                id=f"{number:026}",
                operation="Add",
                state=State.SUCCEEDED,
                uid=1,
                login="x",
                created=now(),
                dry_run=False,
            )
        )
    keeper = housekeeper(Shelf(), database)
    await considered(keeper)
    assert len(database.recent((), -1)) == KEEP
    await keeper.close()


@pytest.mark.parametrize("error", [Failed("no room"), OSError(5, "disk")])
def test_failure_is_logged_and_tried_again(error: Exception, database: Database) -> None:
    @on_loop
    async def scenario() -> None:
        shelf = Shelf(LIMIT, error=error)
        keeper = housekeeper(shelf, database)
        with structlog.testing.capture_logs() as logs:
            await considered(keeper)
        assert [entry["event"] for entry in logs] == ["the repository could not be tidied"]
        shelf.error = None
        await considered(keeper)
        assert shelf.count == 0
        await keeper.close()

    scenario()


@on_loop
async def test_closing_stops_what_is_being_tidied(database: Database) -> None:
    shelf = Shelf(LIMIT, waits=threading.Event())
    keeper = housekeeper(shelf, database)
    keeper.consider()
    await until(lambda: keeper.busy)
    await keeper.close()
    assert shelf.stopped == [True]
    assert not keeper.busy
    keeper.consider()
    assert shelf.tidied == 1
