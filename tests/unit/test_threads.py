# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads that every uid has its part of."""

from __future__ import annotations

import asyncio
import threading

import pytest

from glixd.threads import FairThreads
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
