# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that blocks, on threads of its own beside the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, TypeVar

Answer = TypeVar("Answer")
Item = TypeVar("Item")

TOGETHER: Final = 64
"""Items that are worked on at once at most."""


class Threads:
    """A few threads of one kind; further work waits until one is free."""

    def __init__(self, number: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def run(self, work: Callable[..., Answer], *arguments: object) -> Answer:
        """What `work` answers; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments))

    def close(self) -> None:
        """Take no more work, and wait for what runs."""
        self._pool.shutdown()


class Gathering(Threads, Generic[Item]):
    """A thread for work that is done for many as quickly as for one: what comes while it works is done together next, in order."""

    def __init__(self, name: str, work: Callable[..., object]) -> None:
        super().__init__(1, name)
        self._work = work
        self._waiting: list[tuple[Item, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> None:
        """Return when the work is done for an item; raises what it raises for this one."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, done))
        if self._task is None:
            self._task = loop.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            if not await self._done(some):
                for one in some:
                    await self._done([one])
        self._task = None

    async def _done(self, some: list[tuple[Item, asyncio.Future[None]]]) -> bool:
        """Do it for some; False where it failed for several, of which only one may be why."""
        work = self.run(self._work, *(item for item, _ in some))
        (found,) = await asyncio.gather(work, return_exceptions=True)
        error = found if isinstance(found, BaseException) else None
        if error and len(some) > 1:
            return False
        for _, done in some:
            if done.done():  # whoever waited has gone
                continue
            if error:
                done.set_exception(error)
            else:
                done.set_result(None)
        return True


class FairThreads(Threads):
    """The same, with so many at once for each uid: however much one has to do, another waits for no more than a thread."""

    def __init__(self, number: int, name: str, *, each: int) -> None:
        super().__init__(number, name)
        self._each = each
        self._turns: dict[int, asyncio.Semaphore] = {}
        self._present: Counter[int] = Counter()

    async def run_for(self, uid: int, work: Callable[..., Answer], *arguments: object) -> Answer:
        """What `work` answers, when it is the turn of the uid; raises what it raises."""
        self._present[uid] += 1
        try:
            async with self._turns.setdefault(uid, asyncio.Semaphore(self._each)):
                return await self.run(work, *arguments)
        finally:
            self._present[uid] -= 1
            if not self._present[uid]:
                del self._present[uid], self._turns[uid]
