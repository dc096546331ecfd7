# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON-RPC 2.0 on a Unix socket: bytes to validated requests, answers and notifications back to bytes.

A connection carries any number of requests, one per line or behind `Content-Length` headers, alone or in batches. They run
beside each other, so that a `Wait` holds up nothing, and are answered as they end. What a peer can make the daemon hold is
bounded everywhere: the size of a message, the requests under way, the time for one message to arrive, the answers that wait
to be read, and the connections of one uid. Nothing is decided here: every request goes to the engine with the uid that the
kernel gives.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final

from glixd.api import Caller
from glixd.errors import GlixError
from glixd.frontends import messages
from glixd.frontends.connection import Connection, Shared
from glixd.frontends.limits import Limits
from glixd.frontends.peer import Peer
from glixd.frontends.turns import Rounds
from glixd.frontends.unix_socket import listen, peer_uid
from glixd.frontends.wire import login
from glixd.log import get_logger
from glixd.threads import FairThreads

if TYPE_CHECKING:
    from glixd.engine import Engine

__all__ = ["JsonRpcServer", "listen"]

log = get_logger()

_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST: Final = 1.0
"""Seconds without accepting when the process has no descriptors or memory left."""


class JsonRpcServer:
    """Serves the connections of one listening socket, which it owns from `start` to `stop`."""

    def __init__(self, engine: Engine, listener: socket.socket, limits: Limits | None = None) -> None:
        self._engine = engine
        self._listener = listener
        self._limits = limits or Limits()
        self._open: dict[Connection, Peer | None] = {}
        self._shared = Shared(Rounds(), FairThreads(2, "message", each=1), self._unread)
        self._per_uid: Counter[int] = Counter()
        self._numbers = itertools.count(1)
        self._adopting: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    async def start(self) -> None:
        """Accept connections from now on."""
        self._listener.setblocking(False)
        self._watch()

    async def stop(self, grace: float = 5.0) -> None:
        """Accept and read nothing more, answer what is under way, and close.

        After `grace` seconds those that still wait are told that the daemon stops.
        """
        self._unwatch()
        self._listener.close()
        await asyncio.gather(*self._adopting)
        for connection in tuple(self._open):
            connection.finish()
        if not await self._closed_within(grace):
            for connection in tuple(self._open):
                connection.interrupt()
            if not await self._closed_within(1.0):
                for connection in tuple(self._open):
                    connection.cut_off("the daemon stops")
        self._shared.large.close()

    def _unread(self, uid: int) -> int:
        return sum(connection.unread for connection in self._open if connection.caller.uid == uid)

    def drain(self) -> int:
        """Accept every connection that already waits, and say how many there were: before an idle daemon ends."""
        before = len(self._open)
        while self._accept_one():
            pass
        return len(self._open) - before

    def _forget(self, connection: Connection) -> None:
        """Account for the end of a connection."""
        if connection in self._open:
            connection.caller.presence.leave()
            if peer := self._open.pop(connection):
                peer.close()
            uid = connection.caller.uid
            self._per_uid[uid] -= 1
            if not self._per_uid[uid]:
                del self._per_uid[uid]
            if not self._open:
                self._none_open.set()

    async def _closed_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._none_open.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _watch(self) -> None:
        self._resting = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _unwatch(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(64):  # the rest comes with the next round of the loop, after others had their turn
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            log.error("no room for connections", error=str(error))
            self._unwatch()
            self._resting = asyncio.get_running_loop().call_later(_REST, self._watch)
            return False
        self._welcome(connection)
        return True

    def _welcome(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        uid = peer_uid(peer)
        if refusal := self._refusal(uid):
            log.warning("connection refused", uid=uid, reason=refusal.message)
            _turn_away(peer, refusal)
            return
        process = Peer.of(peer)
        caller = Caller(uid=uid, login=login(uid), address=f"socket:{next(self._numbers)}", process=process)
        connection = Connection(self._engine, caller, self._limits, self._forget, self._shared)
        self._open[connection] = process
        self._per_uid[uid] += 1
        self._none_open.clear()
        task = asyncio.get_running_loop().create_task(self._adopt(peer, connection))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, peer: socket.socket, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, peer)
        except OSError as error:
            log.warning("connection lost at once", error=str(error))
            peer.close()
            self._forget(connection)

    def _refusal(self, uid: int) -> GlixError | None:
        limit = self._limits.connections_per_uid
        if self._per_uid[uid] >= limit:
            return messages.too_many(f"uid {uid} has {limit} connections open, which is the most it may have.", limit)
        limit = self._limits.connections
        if uid != 0 and len(self._open) - self._per_uid[0] >= limit:
            return messages.too_many(f"{limit} connections are open, which is the most there may be.", limit)
        return None


def _turn_away(peer: socket.socket, refusal: GlixError) -> None:
    """Say why and close; a fresh socket always has room for one sentence."""
    with peer:
        try:
            peer.send(messages.error(b"null", refusal) + b"\n")
        except OSError as error:
            log.debug("the refused peer is gone", error=str(error))
