# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is to be evaluated: the newest wish first, one at a time, and people before all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from glixd.backends.evaluator import OwnEvaluator
from glixd.backends.nix import Nix
from glixd.backends.process import UNLIMITED, Cancellation, Processes
from glixd.backends.state import Database
from glixd.errors import Cancelled
from glixd.health import YIELDS, HealthKeeper
from tests.support.loop import on_loop, until

PATIENCE = 30.0


class SlowNix(Nix):
    """A nix whose evaluations end when the test says so, or when they are cancelled."""

    def __init__(self, root: Path) -> None:
        processes = Processes({})
        super().__init__(processes, OwnEvaluator(processes, root, root))
        self.begun: list[str] = []
        self.stopped = 0
        self.memory: set[int | None] = set()
        self.go_on = threading.Semaphore(0)
        self._told = threading.Condition()

    def evaluate_host(
        self, commit: str, host: str, *, cancellation: Cancellation | None = None, memory: int | None = None
    ) -> str:
        """Stand still until it is allowed to end."""
        self.memory.add(memory)
        with self._told:
            self.begun.append(f"{host} {commit}")
            self._told.notify_all()
        stop, mine = cancellation or Cancellation(), False
        try:
            while not mine:
                mine = self.go_on.acquire(timeout=0.005)
                stop.check()
        except Cancelled:
            self.stopped += 1
            if mine:
                self.go_on.release()
            raise
        return "/store/x.drv"

    def wait(self, number: int) -> None:
        """Return when so many evaluations have begun."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.begun) >= number, PATIENCE), self.begun

    async def reach(self, number: int) -> None:
        """Let the loop run until so many evaluations have begun."""
        await asyncio.to_thread(self.wait, number)


@asynccontextmanager
async def keeping(folder: Path) -> AsyncIterator[tuple[HealthKeeper, SlowNix]]:
    database = Database(folder / "state.db")
    nix = SlowNix(folder)
    keeper = HealthKeeper(nix, database)
    try:
        yield keeper, nix
    finally:
        await keeper.close()
        database.close()


async def done(keeper: HealthKeeper, nix: SlowNix, number: int) -> None:
    """Let `number` evaluations end, and wait until there are no more."""
    nix.go_on.release(number)
    await until(lambda: not keeper.busy)


@on_loop
async def test_the_newest_wish_comes_first_and_within_it_the_order_that_was_asked_for(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (keeper, nix):
        keeper.evaluate(["a", "b", "c"], "1")
        await nix.reach(1)
        keeper.evaluate(["d", "c"], "2")
        assert keeper.of("c").commit == "2"
        await done(keeper, nix, 4)
        assert nix.begun == ["a 1", "d 2", "c 2", "b 1"]
        assert keeper.of("b").state == "ok"
        assert nix.memory == {UNLIMITED}, "the lowest priority"


@on_loop
async def test_nothing_begins_while_somebody_waits_and_what_runs_is_put_back(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (keeper, nix):
        keeper.evaluate(["a", "b"], "1")
        await nix.reach(1)
        with keeper.giving_way():
            await until(lambda: nix.stopped == 1)
            for _ in range(100):
                await asyncio.sleep(0)  # the keeper has its turn, and begins nothing
            assert nix.begun == ["a 1"]
            assert (keeper.of("a").state, keeper.busy) == ("evaluating", True)
        await done(keeper, nix, 2)
        assert nix.begun == ["a 1", "a 1", "b 1"]


@on_loop
async def test_a_newer_commit_takes_the_place_of_what_was_put_back(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (keeper, nix):
        keeper.evaluate(["a"], "1")
        await nix.reach(1)
        with keeper.giving_way():
            keeper.evaluate(["a"], "2")
        await done(keeper, nix, 1)
        assert nix.begun == ["a 1", "a 2"]
        assert keeper.of("a").commit == "2"


@on_loop
async def test_among_people_who_never_rest_an_evaluation_still_comes_to_an_end(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (keeper, nix):
        keeper.evaluate(["a"], "1")
        for number in range(1, YIELDS + 1):
            await nix.reach(number)
            with keeper.giving_way():
                pass
        await nix.reach(YIELDS + 1)
        with keeper.giving_way():
            await done(keeper, nix, 1)
        assert nix.begun == ["a 1"] * (YIELDS + 1)
        assert keeper.of("a").state == "ok"


@on_loop
async def test_closing_stops_what_runs_and_what_waits_for_people(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (keeper, nix):
        keeper.evaluate(["a", "b"], "1")
        await nix.reach(1)
        with keeper.giving_way():
            await keeper.close()
        assert nix.begun == ["a 1"]
        assert keeper.of("a").state == "unknown"
