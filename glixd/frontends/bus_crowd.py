# SPDX-License-Identifier: GPL-3.0-or-later
"""Everybody who calls on the bus: connections are let in, their calls wait in bounds, and are started in turn.

The bus is one stream: a message that is not taken from it holds up all that come behind. So every call is taken at once,
into the line of its connection or, where that is full, refused; and from the lines they are started a few at a time.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from glixd import api
from glixd.api import Caller
from glixd.backends.bus import Bus, BusError, Call
from glixd.errors import GlixError, InvalidRequest
from glixd.frontends.bus_client import BusClient
from glixd.frontends.bus_values import told
from glixd.frontends.limits import BusLimits
from glixd.frontends.turns import Rounds
from glixd.frontends.wire import login
from glixd.log import get_logger
from glixd.protocol import MANAGER_INTERFACE, ErrorCode

if TYPE_CHECKING:
    from glixd.engine import Engine

log = get_logger()

Serve = Callable[[Call, Caller, BusClient], Coroutine[Any, Any, None]]


class Crowd:
    """The connections that have called. `serve` answers one call."""

    def __init__(self, engine: Engine, bus: Bus, limits: BusLimits, serve: Serve) -> None:
        self._engine = engine
        self._bus = bus
        self._limits = limits
        self._serve = serve
        self._clients: dict[str, BusClient] = {}
        self._connections: Counter[int] = Counter()
        self._rounds = Rounds()
        self._running: Counter[int] = Counter()
        self._held: dict[int, dict[BusClient, None]] = {}
        """By uid: connections whose calls wait because the uid has too many that run."""
        self._waiting_bytes: Counter[int | None] = Counter()
        """By uid, and under None those of callers that the bus has yet to introduce."""
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def calls(self) -> int:
        """How many calls run or wait."""
        return self._calls

    @property
    def waiting_bytes(self) -> int:
        """How many bytes the calls have that wait."""
        return self._waiting_bytes.total()

    async def idle_within(self, seconds: float) -> bool:
        """Whether everything is answered in that time."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def interrupt(self) -> None:
        """Tell those that still wait that the daemon stops."""
        for client in self._clients.values():
            client.interrupt()

    def dissolve(self) -> None:
        """Forget everybody."""
        for name in tuple(self._clients):
            self.vanished(name)

    # -- coming and going ------------------------------------------------------------------------------------------

    def handle(self, call: Call) -> None:
        """Take a call in, unless its caller has too many connections or too many of its calls wait already."""
        client = self._clients.get(call.sender) or self._welcome(call.sender)
        if client.caller is not None and not self._admit(client, client.caller):
            self._turn_away(client, call, "connections", functools.partial(self._too_many_connections, client.caller))
        elif not self._has_room(client, call.size):
            self._turn_away(client, call, "calls", self._too_many_calls)
        else:
            client.waiting.append(call)
            self._account(client, call.size)
            self._count(1)
            self._advance(client)

    def vanished(self, name: str) -> None:
        """Forget a connection that left: nobody is told its progress or waits for it, its transactions go on."""
        client = self._clients.pop(name, None)
        if client is None:
            return
        while client.waiting:
            self._next(client)
            self._count(-1)
        client.presence.leave()
        client.leave()
        if client.admitted and client.caller:
            uid = client.caller.uid
            self._rounds.drop(uid, client)
            self._held.get(uid, {}).pop(client, None)
            self._connections[uid] -= 1
            if not self._connections[uid]:
                del self._connections[uid]
            self._engine.detach(client)

    def _welcome(self, name: str) -> BusClient:
        client = self._clients[name] = BusClient(self._bus, name, self._start)
        client.introduction = asyncio.get_running_loop().create_task(self._introduce(client))
        return client

    async def _introduce(self, client: BusClient) -> None:
        """Learn from the bus who a connection is; its calls wait for that."""
        try:
            uid = await self._bus.uid(client.name)
        except BusError as error:
            log.debug("the caller is gone", sender=client.name, error=error.name)
            self.vanished(client.name)
            return
        if client.name not in self._clients:
            return
        caller = Caller(uid=uid, login=login(uid), address=client.name, presence=client.presence)
        size = client.waiting_bytes
        self._account(client, -size)
        client.caller = caller
        self._account(client, size)
        if self._admit(client, caller):
            self._advance(client)
            return
        log.warning("connection refused", uid=uid, sender=client.name)
        while client.waiting:
            refusal = functools.partial(self._too_many_connections, caller)
            self._turn_away(client, self._next(client), "connections", refusal)
            self._count(-1)

    def _admit(self, client: BusClient, caller: Caller) -> bool:
        """Whether a connection counts among those of its uid, where there is room for it."""
        if client.admitted:
            return True
        others = self._connections.total() - self._connections[0]
        if self._connections[caller.uid] >= self._limits.connections_per_uid:
            return False
        if caller.uid != 0 and others >= self._limits.connections:
            return False
        self._connections[caller.uid] += 1
        client.admitted = True
        self._engine.attach(client)
        return True

    def _turn_away(self, client: BusClient, call: Call, what: str, why: Callable[[], GlixError]) -> None:
        """Refuse a call since there are too many; there may be thousands of them."""
        refusal = client.refusals.get(what)
        if refusal is None:
            name, text, facts = told(why())
            refusal = client.refusals[what] = self._bus.stencil(call, name, text, facts)
        self._bus.stamp(refusal, call)

    # -- waiting and running ---------------------------------------------------------------------------------------

    def _has_room(self, client: BusClient, size: int) -> bool:
        limits, caller = self._limits, client.caller
        own = self._waiting_bytes[caller.uid] if caller else 0
        return (
            client.has_room(size, limits)
            and own + size <= limits.waiting_bytes_per_uid
            and self._waiting_bytes.total() + size <= limits.waiting_bytes_in_all
        )

    def _account(self, client: BusClient, size: int) -> None:
        """Count bytes that wait from now on, or no more."""
        uid = client.caller.uid if client.caller else None
        client.waiting_bytes += size
        self._waiting_bytes[uid] += size
        if not self._waiting_bytes[uid]:
            del self._waiting_bytes[uid]

    def _next(self, client: BusClient) -> Call:
        call = client.waiting.popleft()
        self._account(client, -call.size)
        return call

    def _advance(self, client: BusClient) -> None:
        """Let a connection have its turns, if it has calls that may run."""
        caller = client.caller
        if caller is None or not client.admitted or not client.waiting or len(client.calls) >= self._limits.under_way:
            return
        if self._running[caller.uid] >= self._limits.under_way_per_uid:
            self._held.setdefault(caller.uid, {})[client] = None
            return
        self._rounds.ask(caller.uid, client)

    def _start(self, client: BusClient) -> None:
        """Start one call of a connection: it has its turn."""
        caller = client.caller
        if caller is None or not client.waiting:
            return
        if self._running[caller.uid] >= self._limits.under_way_per_uid:
            self._held.setdefault(caller.uid, {})[client] = None
            return
        call = self._next(client)
        self._running[caller.uid] += 1
        task = asyncio.get_running_loop().create_task(self._serve(call, caller, client))
        client.calls[task] = call.interface == MANAGER_INTERFACE and _is_mutation(call.member)
        task.add_done_callback(functools.partial(self._done, client, caller.uid))
        self._advance(client)

    def _done(self, client: BusClient, uid: int, task: asyncio.Task[None]) -> None:
        del client.calls[task]
        self._running[uid] -= 1
        if not self._running[uid]:
            del self._running[uid]
        self._count(-1)
        self._advance(client)
        held = self._held.get(uid, {})
        if held:
            other = next(iter(held))
            del held[other]
            self._advance(other)
        if not held:
            self._held.pop(uid, None)

    def _count(self, change: int) -> None:
        self._calls += change
        if self._calls:
            self._idle.clear()
        else:
            self._idle.set()

    # -- refusals --------------------------------------------------------------------------------------------------

    def _too_many_calls(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self._limits.under_way} calls of this connection are under way, and too many wait behind them.",
            code=ErrorCode.LIMIT_EXCEEDED,
            hint="Wait for answers.",
            details={"limit": self._limits.waiting},
        )

    def _too_many_connections(self, caller: Caller) -> InvalidRequest:
        limit = self._limits.connections_per_uid
        return InvalidRequest(
            f"uid {caller.uid} has {limit} connections that call glixd, or all together have {self._limits.connections}.",
            code=ErrorCode.LIMIT_EXCEEDED,
            hint="Close some, and call again.",
            details={"limit": limit},
        )


def _is_mutation(member: str) -> bool:
    row = api.OPERATIONS.get(member)
    return row is not None and row.kind is api.Kind.MUTATION
