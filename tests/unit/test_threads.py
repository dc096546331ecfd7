# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads that every uid has its part of, and one on which what comes together is done together."""

from __future__ import annotations

import asyncio
import threading

import pytest

from glixd.threads import FairThreads, Gathering
from tests.support.loop import PATIENCE, on_loop, until


@on_loop
async def test_one_uid_with_much_to_do_leaves_a_thread_to_others() -> None:
    threads = FairThreads(2, "test", each=1)
    go = threading.Event()
    much = [asyncio.create_task(threads.run_for(1, go.wait, PATIENCE)) for _ in range(10)]
    assert await asyncio.wait_for(threads.run_for(2, lambda: "served"), PATIENCE) == "served"
    assert not any(task.done() for task in much)
    go.set()
    assert await asyncio.gather(*much) == [True] * 10
    threads.close()


@on_loop
async def test_what_fails_or_is_given_up_makes_room_and_leaves_nothing() -> None:
    threads = FairThreads(2, "test", each=1)
    with pytest.raises(ZeroDivisionError):
        await threads.run_for(1, lambda: 1 / 0)
    go = threading.Event()
    given_up = [asyncio.create_task(threads.run_for(1, go.wait, PATIENCE)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    go.set()
    await until(lambda: all(task.done() for task in given_up))
    assert await threads.run_for(1, lambda: "served") == "served"
    assert not threads._turns
    assert not threads._present
    threads.close()


@on_loop
async def test_what_comes_while_it_works_is_done_together_and_in_order() -> None:
    go = threading.Event()
    done: list[tuple[int, ...]] = []

    def work(*items: int) -> None:
        go.wait(PATIENCE)
        done.append(items)

    thread = Gathering[int]("test", work)
    first = asyncio.create_task(thread.add(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    more = [asyncio.create_task(thread.add(number)) for number in range(1, 5)]
    await asyncio.sleep(0)
    assert not first.done()
    go.set()
    await asyncio.gather(first, *more)
    await thread.add(5)
    assert done == [(0,), (1, 2, 3, 4), (5,)]
    thread.close()


@on_loop
async def test_one_that_fails_takes_nobody_with_it() -> None:
    done: list[int] = []

    def work(*items: int) -> None:
        if 2 in items:
            raise ZeroDivisionError
        done.extend(items)

    thread = Gathering[int]("test", work)
    found = await asyncio.gather(*(thread.add(number) for number in range(5)), return_exceptions=True)
    assert [type(one) for one in found] == [type(None), type(None), ZeroDivisionError, type(None), type(None)]
    assert sorted(done) == [0, 1, 3, 4]
    await thread.add(6)
    assert done[-1] == 6
    thread.close()


@on_loop
async def test_one_that_is_given_up_holds_nobody_up() -> None:
    go = threading.Event()
    thread = Gathering[int]("test", lambda *_: go.wait(PATIENCE))
    tasks = [asyncio.create_task(thread.add(number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[1].cancel()
    go.set()
    await asyncio.wait_for(tasks[2], PATIENCE)
    await thread.add(3)
    thread.close()
