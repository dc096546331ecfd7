# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection of the bus that has called us: who it is, what of it waits, runs, and what it is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from glixd import api
from glixd.api import Caller, Presence
from glixd.backends.bus import Bus, Call, Stencil
from glixd.frontends.bus_values import encoded
from glixd.frontends.limits import BusLimits
from glixd.protocol import TRANSACTION_INTERFACE, TRANSACTION_PATH


class BusClient:
    """A Client of the engine, once it is admitted."""

    def __init__(self, bus: Bus, name: str, start: Callable[[BusClient], None]) -> None:
        self._bus = bus
        self._start = start
        self.name = name
        self.caller: Caller | None = None
        self.presence = Presence()
        """Who it is; None until the bus has said so."""
        self.admitted = False
        """Whether it counts as one of the connections of its uid; the calls of others are refused."""
        self.refusals: dict[str, Stencil] = {}
        """What its calls are answered while it is not admitted, and those for which there is no room."""
        self.introduction: asyncio.Task[None] | None = None
        self.waiting: deque[Call] = deque()
        self.waiting_bytes = 0
        self.calls: dict[asyncio.Task[None], bool] = {}
        """What it has under way, and whether that is a mutation, which goes on without it."""

    def turn(self) -> bool:
        """Start one call; the next one asks for a turn of its own."""
        self._start(self)
        return False

    def has_room(self, size: int, limits: BusLimits) -> bool:
        """Whether one more call of that size may wait."""
        taken = len(self.waiting) + len(self.calls)
        return taken < limits.waiting + limits.under_way and self.waiting_bytes + size <= limits.waiting_bytes

    def progress(self, event: api.ProgressEvent) -> bool:
        """Send the progress of a transaction, unless the bus is slow to take what it was sent before."""
        if self._bus.lost.done():
            return True
        if self._bus.congested:
            return False
        body = [encoded(event)]
        path = f"{TRANSACTION_PATH}/{event.transaction}"
        self._bus.signal(path, TRANSACTION_INTERFACE, "Progress", "a{sv}", body, self.name)
        return True

    def changed(self, host: str) -> None:
        """Nothing: on the bus everybody is told at once."""

    def staged(self, host: str) -> None:
        """Nothing, for the same reason."""

    def leave(self) -> None:
        """Give up waiting for somebody who is gone."""
        for task, mutation in self.calls.items():
            if not mutation:
                task.cancel()

    def interrupt(self) -> None:
        """Tell those that still wait that the daemon stops."""
        for task in self.calls:
            task.cancel()
