# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that blocks, on threads of its own beside the event loop."""

from __future__ import annotations

import asyncio
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
