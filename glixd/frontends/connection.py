# SPDX-License-Identifier: GPL-3.0-or-later
"""One peer of the JSON-RPC socket: its messages, the calls it has under way and what it has yet to read."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from glixd import api
from glixd.api import Caller
from glixd.errors import GlixError
from glixd.frontends import incoming, messages
from glixd.frontends.framing import Frames, FramingLost, framed
from glixd.frontends.incoming import Incoming, Work
from glixd.frontends.limits import Limits
from glixd.frontends.messages import Reply
from glixd.frontends.turns import Rounds
from glixd.frontends.wire import explained
from glixd.log import get_logger
from glixd.threads import FairThreads
from glixd.values import dataclass

if TYPE_CHECKING:
    from glixd.engine import Engine

log = get_logger()

_LARGE: Final = 16 * 1024
"""Bytes from which on a message takes so long to read that it is read aside."""
_HANG_UP_CHECK: Final = 1.0
"""Seconds between looks whether a half-closed peer is gone altogether."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a server have in common."""

    rounds: Rounds
    large: FairThreads
    """Where large messages are read, so that nobody has to wait for that."""
    unread: Callable[[int], int]
    """Bytes that the peers of a uid have yet to read."""


_Entry = tuple[Work, Reply, Callable[[], None]]
"""A request, what is called with its answer, and what is called where it wants none."""


class Connection(asyncio.Protocol):
    """One peer: its messages, the calls it has under way and what it has yet to read. A Client of the engine."""

    def __init__(
        self,
        engine: Engine,
        caller: Caller,
        limits: Limits,
        ended: Callable[[Connection], None],
        shared: Shared,
    ) -> None:
        self.caller = caller
        self._ended = ended
        self._engine = engine
        self._limits = limits
        self._shared = shared
        self._in_line = False
        """Whether it waits for its turn to serve a message."""
        self._studying: asyncio.Task[None] | None = None
        """A large message that is read on another thread."""
        self._requests: deque[_Entry] = deque()
        """Of a message that was read: each has a turn of its own, as a batch of 64 keeps others waiting as long as 64 messages."""
        self._frames = Frames(limits.message)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made, before all else
        self._loop = asyncio.get_running_loop()
        self._calls: dict[asyncio.Task[None], api.Kind] = {}
        self._news: dict[tuple[bytes, str], None] = {}
        """What happened to hosts, which waits until the peer has read what it was sent."""
        self._sent = 0
        self._choked = False
        self._reading = True
        self._eof = False
        self._finishing = False
        self._lost = False
        self._arrival: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._hang_up: asyncio.TimerHandle | None = None

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce the peer to the engine."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — a stream socket has no other
        self._transport = transport
        transport.set_write_buffer_limits(high=self._limits.high_water)
        self._engine.attach(self)

    def data_received(self, data: bytes) -> None:
        """Serve what is complete."""
        self._frames.feed(data)
        self._pump()

    def eof_received(self) -> bool:
        """A peer that has said all may still read its answers; one that hung up may not."""
        self._eof = True
        if self._frames.partial:
            self._frames.feed(b"\n")  # an end of line that a peer left out at the end of all
        self._pump()
        self._check_hang_up()
        return True

    def pause_writing(self) -> None:
        """Send no progress and read no requests until the peer has read what it was sent."""
        self._choked = True
        self._stall = self._loop.call_later(self._limits.stalled, self._check_stall, self._taken)
        self._settle()

    def resume_writing(self) -> None:
        """Send what waited, and go on."""
        self._choked = False
        self._cancel_timer("_stall")
        news, self._news = self._news, {}
        for word, host in news:
            self._announce(word, host)
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for the peer's sake; a mutation that is being accepted goes on."""
        self._lost = True
        self._requests.clear()
        self._shared.rounds.drop(self.caller.uid, self)
        for timer in ("_arrival", "_stall", "_hang_up"):
            self._cancel_timer(timer)
        for call, kind in self._calls.items():
            if kind is api.Kind.QUERY:
                call.cancel()
        self._engine.detach(self)
        self._ended(self)

    # -- what the engine tells a client ----------------------------------------------------------------------------

    def progress(self, event: api.ProgressEvent) -> bool:
        """Send the progress of a transaction, unless the peer has not read what it was sent before."""
        if self._choked:
            return False
        self._send(messages.notification(b"Progress", event.model_dump_json(exclude_none=True).encode()))
        return True

    def changed(self, host: str) -> None:
        """Say that the manifest of a host changed: now, or once when the peer has caught up."""
        self._announce(b"Changed", host)

    def staged(self, host: str) -> None:
        """Say in the same way that an update of a host is built."""
        self._announce(b"Staged", host)

    def _announce(self, word: bytes, host: str) -> None:
        if self._choked:
            self._news[word, host] = None
        else:
            self._send(messages.notification(word, messages.encoded({"host": host})))

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Read nothing more and close when everything is answered."""
        self._finishing = True
        self._settle()

    def interrupt(self) -> None:
        """Tell those that still wait that the daemon stops."""
        while self._requests:
            work, reply, silent = self._requests.popleft()
            stopping = messages.stopping(work.row.name if work.row else "")
            _tell(work, messages.error(work.id or b"null", stopping), reply, silent)
        for call in tuple(self._calls):
            call.cancel()

    def cut_off(self, reason: str) -> None:
        """Drop the peer at once."""
        if not self._lost:
            log.warning("connection cut off", uid=self.caller.uid, connection=self.caller.address, reason=reason)
            self._transport.abort()

    # -- messages in -----------------------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Bytes that the peer has yet to read."""
        return 0 if self._lost or self._transport is None else self._transport.get_write_buffer_size()

    @property
    def _full(self) -> bool:
        """Whether no further request may be started."""
        return self._choked or len(self._calls) >= self._limits.under_way

    @property
    def _satisfied(self) -> bool:
        """Whether no further message is wanted."""
        return self._full or self._finishing or self._studying is not None or bool(self._requests)

    @property
    def _has_more(self) -> bool:
        """Whether there may be something to do in a turn."""
        return not self._full if self._requests else self._frames.partial and not self._satisfied

    def _pump(self) -> None:
        """Wait for a turn to serve the next request, if there may be one."""
        if self._has_more and not self._lost and not self._transport.is_closing():
            self._in_line = True
            self._shared.rounds.ask(self.caller.uid, self)
        self._settle()

    def turn(self) -> bool:
        """Start one request, or take one message in; whether there may be more, as many as may be under way."""
        self._in_line = False
        if self._has_more and not self._transport.is_closing():
            self._in_line = self._start_one() if self._requests else self._take_one()
        self._settle()
        return self._in_line

    def _start_one(self) -> bool:
        self._serve(*self._requests.popleft())
        return self._has_more

    def _take_one(self) -> bool:
        try:
            message = self._frames.next()
        except FramingLost as error:
            self._send(messages.error(b"null", error))
            self._finishing = True
            return False
        except GlixError as error:
            self._cancel_timer("_arrival")
            self._send(messages.error(b"null", error))
            return True
        if message is None:
            return False
        self._cancel_timer("_arrival")
        self._receive(message)
        return self._has_more

    def _settle(self) -> None:
        """Read on or pause, watch over a message that is arriving, or end."""
        if self._lost or self._transport.is_closing():
            return
        busy = self._calls or self._requests or self._studying or (self._in_line and not self._finishing)
        if (self._eof or self._finishing) and not busy and not (self._choked and not self._finishing):
            self._close()
            return
        wanted = not self._satisfied and not self._eof and not self._in_line
        if wanted and not self._reading:
            self._transport.resume_reading()
        elif self._reading and not wanted and not self._eof:
            self._transport.pause_reading()
        self._reading = wanted
        if self._satisfied or self._eof:
            self._cancel_timer("_arrival")
        elif not self._in_line and self._frames.partial and self._arrival is None:
            self._arrival = self._loop.call_later(
                self._limits.arrival, self.cut_off, "a message did not arrive in time"
            )

    def _close(self) -> None:
        """End when the peer has read what is buffered, or when it does not."""
        self._transport.close()
        if self._stall is None:
            self._stall = self._loop.call_later(self._limits.stalled, self._check_stall, self._taken)

    def _receive(self, raw: bytes) -> None:
        if len(raw) > _LARGE or incoming.DISCOVER in raw:
            self._studying = self._loop.create_task(self._study(raw))
        else:
            self._take(incoming.read(raw, self._limits.batch))

    async def _study(self, raw: bytes) -> None:
        """Read a large message aside; until then its connection is served nothing more."""
        read = await self._shared.large.run_for(self.caller.uid, incoming.read, raw, self._limits.batch)
        self._studying = None
        if not self._lost:
            self._take(read)
            self._pump()

    def _take(self, message: Incoming) -> None:
        if message.refusal:
            self._send(message.refusal)
        elif message.batch:
            batch = _Batch(message.works, self._send, self._limits.batch_bytes)
            for work in message.works:
                entry = work, partial(batch.add, work.id or b"null"), batch.skip
                if work.row is None:
                    self._serve(*entry)  # its answer is there, and takes up room
                else:
                    self._requests.append(entry)
        else:
            for work in message.works:
                self._serve(work, self._send, _nothing)

    def _serve(self, work: Work, reply: Reply, silent: Callable[[], None]) -> None:
        """Answer one request by `reply`; a notification ends in `silent`."""
        if work.row is None or work.parameters is None:
            _tell(work, work.answer, reply, silent)
            return
        task = self._loop.create_task(self._call(work, work.row, work.parameters, reply, silent))
        self._calls[task] = work.row.kind
        task.add_done_callback(self._called)

    async def _call(
        self, work: Work, row: api.Operation, parameters: api.Parameters, reply: Reply, silent: Callable[[], None]
    ) -> None:
        identity = work.id or b"null"
        try:
            value = await self._engine.call(row, parameters, self.caller, self)
            answer = messages.result(identity, value.model_dump_json(exclude_none=True).encode())
        except asyncio.CancelledError:
            answer = messages.error(identity, messages.stopping(row.name))
        except Exception as error:  # noqa: BLE001 — the door: what is not for callers is logged and named Internal
            answer = messages.error(identity, explained(error, row.name))
        _tell(work, answer, reply, silent)

    def _called(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        if not self._lost:
            self._pump()

    # -- messages out ----------------------------------------------------------------------------------------------

    @property
    def _taken(self) -> int:
        """Bytes that the peer's side of the socket has taken so far."""
        return self._sent - self._transport.get_write_buffer_size()

    def _send(self, message: bytes) -> None:
        if self._lost or self._transport.is_closing():
            return
        data = framed(message, self._frames.framing)
        self._sent += len(data)
        self._transport.write(data)
        unread = self.unread
        if unread > self._limits.hard or (
            unread > self._limits.high_water and self._shared.unread(self.caller.uid) > self._limits.hard_per_uid
        ):
            self.cut_off("it does not read its answers")

    def _check_stall(self, taken_before: int) -> None:
        if self._taken == taken_before:
            self.cut_off("it does not read its answers")
        else:
            self._stall = self._loop.call_later(self._limits.stalled, self._check_stall, self._taken)

    def _check_hang_up(self) -> None:
        """A closed socket looks half-closed to a reader; only poll tells the difference."""
        if self._lost or self._transport.is_closing():
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):
            self._transport.abort()
        else:
            self._hang_up = self._loop.call_later(_HANG_UP_CHECK, self._check_hang_up)

    def _cancel_timer(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)


class _Batch:
    """Collects the answers of a batch and sends them as one message when the last is there."""

    def __init__(self, works: Sequence[Work], send: Reply, room: int) -> None:
        self._missing = len(works)
        self._send = send
        self._room = room
        self._answers: list[bytes] = []

    def add(self, identity: bytes, answer: bytes) -> None:
        """Take the answer of one entry, or refuse it where there is no room for it beside the others."""
        if len(answer) > self._room:
            answer = messages.error(identity, messages.too_large("The answers of the batch are too large together."))
        self._room -= len(answer)
        self._answers.append(answer)
        self.skip()

    def skip(self) -> None:
        """Count an entry that wants no answer."""
        self._missing -= 1
        if not self._missing and self._answers:
            self._send(b"[" + b",".join(self._answers) + b"]")


def _tell(work: Work, answer: bytes, reply: Reply, silent: Callable[[], None]) -> None:
    if work.id is None:
        silent()
    else:
        reply(answer)


def _nothing() -> None:
    """What a notification is answered."""
