# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what grows with every change within bounds, in the background: the objects, the history and the memory."""

from __future__ import annotations

import asyncio
import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from glixd import memory
from glixd.backends.packs import Packs
from glixd.backends.process import Cancellation
from glixd.backends.state import Database
from glixd.errors import Cancelled, GlixError
from glixd.log import get_logger

log = get_logger()

LOOSE: Final = 2048
"""Loose objects that are packed: those of some four hundred changes, a few in each folder of the store."""


class Housekeeper:
    """Tidies a while after a change, once for all the changes of that while. Never in anybody's way: see Packs."""

    def __init__(self, packs: Packs, database: Database, *, delay: float, limit: int = LOOSE) -> None:
        self._packs = packs
        self._database = database
        self._delay = delay
        self._limit = limit
        self._left = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="housekeeping")
        self._cancellation = Cancellation()
        self._waiting: asyncio.Task[None] | None = None
        self._working: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something is being tidied that an end of the daemon would cut short."""
        return self._working is not None

    def consider(self) -> None:
        """Something may have changed: a while later, look."""
        if not self._closed and (self._waiting is None or self._waiting.done()):
            self._waiting = asyncio.get_running_loop().create_task(self._later())

    async def close(self) -> None:
        """Stop; the next daemon goes on from there."""
        self._closed = True
        if self._waiting:
            self._waiting.cancel()
        self._cancellation.request()
        if self._working:
            await asyncio.wait([self._working])
        self._worker.shutdown()

    async def _later(self) -> None:
        await asyncio.sleep(self._delay)
        self._working = asyncio.get_running_loop().run_in_executor(self._worker, self._work)
        try:
            await asyncio.shield(self._working)
        finally:
            self._working = None

    # -- on the worker thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Whatever goes wrong is nobody's failure: everything is still there, and the next time tries again."""
        try:
            memory.give_back()
            self._database.prune(datetime.datetime.now(datetime.UTC))
            if self._packs.loose() < self._left + self._limit:
                return
            done = self._packs.tidy(self._cancellation)
            self._left = self._packs.loose()
            log.info(
                "tidied the repository", packed=done.packed, merged=done.merged, pruned=done.pruned, loose=self._left
            )
        except Cancelled:
            return
        except (GlixError, OSError) as error:
            log.warning("the repository could not be tidied", reason=str(error))
        except Exception:
            log.exception("tidying the repository met a defect")
