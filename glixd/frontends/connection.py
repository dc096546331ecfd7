# SPDX-License-Identifier: GPL-3.0-or-later
"""One peer of the JSON-RPC socket: its messages, the calls it has under way and what it has yet to read."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from glixd import api
from glixd.api import Caller
from glixd.errors import GlixError, InvalidRequest
from glixd.frontends import messages, strict_json
from glixd.frontends.framing import Frames, FramingLost, framed
from glixd.frontends.limits import Limits
from glixd.frontends.messages import Reply, Request
from glixd.frontends.wire import explained

if TYPE_CHECKING:
    from glixd.engine import Engine

log = structlog.get_logger()

_DISCOVER: Final = "rpc.discover"
_HANG_UP_CHECK: Final = 1.0
"""Seconds between looks whether a half-closed peer is gone altogether."""


class Connection(asyncio.Protocol):
    """One peer: its messages, the calls it has under way and what it has yet to read. A Client of the engine."""

    def __init__(self, engine: Engine, caller: Caller, limits: Limits, ended: Callable[[Connection], None]) -> None:
        self.caller = caller
        self._ended = ended
        self._engine = engine
        self._limits = limits
        self._frames = Frames(limits.message)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made, before all else
        self._loop = asyncio.get_running_loop()
        self._calls: dict[asyncio.Task[None], api.Kind] = {}
        self._changed: dict[str, None] = {}
        """Hosts whose Changed waits until the peer has read what it was sent."""
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
        hosts, self._changed = self._changed, {}
        for host in hosts:
            self.changed(host)
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for the peer's sake; a mutation that is being accepted goes on."""
        self._lost = True
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
        if self._choked:
            self._changed[host] = None
        else:
            self._send(messages.notification(b"Changed", messages.encoded({"host": host})))

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Read nothing more and close when everything is answered."""
        self._finishing = True
        self._settle()

    def interrupt(self) -> None:
        """Tell those that still wait that the daemon stops."""
        for call in tuple(self._calls):
            call.cancel()

    def cut_off(self, reason: str) -> None:
        """Drop the peer at once."""
        if not self._lost:
            log.warning("connection cut off", uid=self.caller.uid, connection=self.caller.address, reason=reason)
            self._transport.abort()

    # -- messages in -----------------------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return self._choked or self._finishing or len(self._calls) >= self._limits.under_way

    def _pump(self) -> None:
        """Serve the complete messages, as many as may be under way."""
        while not self._full and not self._transport.is_closing():
            try:
                message = self._frames.next()
            except FramingLost as error:
                self._send(messages.error(b"null", error))
                self._finishing = True
                break
            except GlixError as error:
                self._cancel_timer("_arrival")
                self._send(messages.error(b"null", error))
                continue
            if message is None:
                break
            self._cancel_timer("_arrival")
            self._receive(message)
        self._settle()

    def _settle(self) -> None:
        """Read on or pause, watch over a message that is arriving, or end."""
        if self._lost or self._transport.is_closing():
            return
        if (self._eof or self._finishing) and not self._calls and not (self._choked and not self._finishing):
            self._close()
            return
        wanted = not self._full and not self._eof
        if wanted and not self._reading:
            self._transport.resume_reading()
        elif self._reading and not wanted and not self._eof:
            self._transport.pause_reading()
        self._reading = wanted
        if not wanted:
            self._cancel_timer("_arrival")
        elif self._frames.partial and self._arrival is None:
            self._arrival = self._loop.call_later(
                self._limits.arrival, self.cut_off, "a message did not arrive in time"
            )

    def _close(self) -> None:
        """End when the peer has read what is buffered, or when it does not."""
        self._transport.close()
        if self._stall is None:
            self._stall = self._loop.call_later(self._limits.stalled, self._check_stall, self._taken)

    def _receive(self, raw: bytes) -> None:
        try:
            message = strict_json.loads(raw)
        except GlixError as error:
            self._send(messages.error(b"null", error, code=messages.PARSE_ERROR))
            return
        if not isinstance(message, list):
            self._serve(message, self._send)
        elif not message:
            self._send(messages.error(b"null", messages.malformed("A batch needs at least one request.")))
        elif len(message) > self._limits.batch:
            self._send(
                messages.error(b"null", messages.too_many("The batch has too many requests.", self._limits.batch))
            )
        else:
            batch = _Batch(len(message), self._send)
            for entry in message:
                self._serve(entry, batch.add, batch.skip)

    def _serve(self, message: object, reply: Reply, silent: Callable[[], None] | None = None) -> None:
        """Answer one request by `reply`; a notification ends in `silent`."""
        try:
            request = Request.read(message)
        except GlixError as error:
            reply(messages.error(messages.usable_id(message), error))
            return
        try:
            if request.method == _DISCOVER:
                request.answer(messages.result(request.id or b"null", _discovered(request)), reply, silent)
                return
            row = api.operation(request.method)
            parameters = api.parse(row, request.arguments(api.required(row.parameters)))
        except Exception as error:  # noqa: BLE001 — as in _call
            told = explained(error, request.method)
            request.answer(messages.error(request.id or b"null", told), reply, silent)
            return
        task = self._loop.create_task(self._call(request, row, parameters, reply, silent))
        self._calls[task] = row.kind
        task.add_done_callback(self._called)

    async def _call(
        self,
        request: Request,
        row: api.Operation,
        parameters: api.Parameters,
        reply: Reply,
        silent: Callable[[], None] | None,
    ) -> None:
        identity = request.id or b"null"
        try:
            value = await self._engine.call(row, parameters, self.caller, self)
            answer = messages.result(identity, value.model_dump_json(exclude_none=True).encode())
        except asyncio.CancelledError:
            answer = messages.error(identity, messages.stopping(row.name))
        except Exception as error:  # noqa: BLE001 — the door: what is not for callers is logged and named Internal
            answer = messages.error(identity, explained(error, row.name))
        request.answer(answer, reply, silent)

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
        if self._transport.get_write_buffer_size() > self._limits.hard:
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

    def __init__(self, entries: int, send: Reply) -> None:
        self._missing = entries
        self._send = send
        self._answers: list[bytes] = []

    def add(self, answer: bytes) -> None:
        """Take the answer of one entry."""
        self._answers.append(answer)
        self.skip()

    def skip(self) -> None:
        """Count an entry that wants no answer."""
        self._missing -= 1
        if not self._missing and self._answers:
            self._send(b"[" + b",".join(self._answers) + b"]")


def _discovered(request: Request) -> bytes:
    from glixd.frontends.openrpc import document  # builds a schema of every model: only who asks pays for it

    if request.arguments():
        raise InvalidRequest(f"{_DISCOVER} has no parameters.")
    return document()
