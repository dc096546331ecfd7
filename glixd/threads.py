# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that blocks, on threads of its own beside the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Answer = TypeVar("Answer")


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
