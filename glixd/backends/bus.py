# SPDX-License-Identifier: GPL-3.0-or-later
"""The message bus: one hardened connection.

Of the D-Bus library (bus_library.py) this takes what it is good at, building, marshalling and unmarshalling messages. Its
connection is not used, because it ends at a full socket buffer, grows with every signature that a stranger sends, parses
messages of any size, waits for answers for ever and spins when the bus hangs up. Here asyncio's own transport writes and
closes; a message is taken in by its header alone (bus_header.py), so that a flood is quickly in and nobody has to wait
for it, and its body is read when it is its turn; a call has a timeout; file descriptors are never accepted; and what waits
to be written is bounded. A connection that is lost is not mended: `lost`
says so, and the daemon ends and is started anew.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from glixd.backends import bus_header, bus_library
from glixd.backends.bus_header import Call, Kind
from glixd.backends.bus_library import Message, MessageFlag, MessageType, Variant
from glixd.backends.bus_outgoing import Outgoing
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.protocol import ERROR_PREFIX, MAX_BUS_MESSAGE, ErrorCode
from glixd.values import dataclass

__all__ = ["Bus", "BusError", "Call", "Message", "MessageFlag", "MessageType", "Stencil", "Variant", "clean"]

log = get_logger()

_DBUS: Final = "org.freedesktop.DBus"
_DBUS_PATH: Final = "/org/freedesktop/DBus"
_STANDARD_ERROR: Final = _DBUS + ".Error."
_DO_NOT_QUEUE: Final = 4
_OWNED: Final = (1, 4)
"""Answers to RequestName that mean that the name is ours: primary owner, already owner."""

_MAX_HEADER: Final = 64 * 1024
_MAX_REPLY: Final = 8 * 1024 * 1024
"""Largest answer to a call of ours that is read."""
_MAX_SENT: Final = 8 * 1024 * 1024
"""Largest message that is sent; the bus cuts a sender off at 32 MiB."""
_MAX_AUTHENTICATION: Final = 16 * 1024
_WRITTEN: Final = 16 * 1024
"""Bytes that are handed on before the kernel takes them: the order of the rest is still open."""
_KERNEL: Final = 32 * 1024
"""Bytes that the kernel is asked to take before the bus reads them; usually it is 208 KiB, for which a busy bus takes 50 ms."""
_HIGH_WATER: Final = 1024 * 1024
"""Bytes that the bus has yet to take, from which on nothing more is read and no progress is sent."""
_MAX_UNSENT: Final = 64 * 1024 * 1024
"""Bytes that the bus has yet to take, over which it counts as lost."""
_MAX_UIDS: Final = 4096
_SLICE: Final = 0.002
"""Seconds for which messages are taken in before the rest of the daemon has its turn."""
_CALL_TIMEOUT: Final = 30.0
_LATE: Final = 0.05
"""Seconds to read what came in time, while this process did not run: the clock is looked at before the connection is."""
_CONNECT_TIMEOUT: Final = 10.0

_MARK: Final = 0x7FEDCBA9
"""Stands for the serial that a stencil leaves open."""

Handler = Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class Stencil:
    """An error as it is sent, but for its own serial and that of the call it answers."""

    begin: bytes
    middle: bytes
    end: bytes


class BusError(Failed):
    """A call on the bus was answered with an error, or not at all; `name` is the D-Bus name of the error."""

    def __init__(self, name: str, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message, code=code)
        self.name = name


class Bus:
    """One authenticated connection to a bus.

    `lost` is done when the connection has ended, with the reason. `handler` is given every method call for us; it may not
    block, and answers by `answer` or `refuse`.
    """

    def __init__(self) -> None:
        self.unique_name = ""
        self.handler: Handler | None = None
        self.lost: asyncio.Future[BusError] = asyncio.get_running_loop().create_future()
        self._stream = _Stream(self)
        self._serials = itertools.count()
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._signals: dict[tuple[str, str], list[tuple[str, Handler]]] = {}
        self._vanished: list[Callable[[str], None]] = []
        self._uids: OrderedDict[str, asyncio.Task[int]] = OrderedDict()

    # -- the connection --------------------------------------------------------------------------------------------

    @classmethod
    async def connect(cls, address: str = "session", *, timeout: float = _CONNECT_TIMEOUT) -> Bus:  # noqa: ASYNC109 — of the whole exchange
        """Connect to `session`, `system` or an address, and authenticate as our uid; raises BusError."""
        bus = cls()
        try:
            async with asyncio.timeout(timeout):
                await bus._open(_resolved(address))
                bus.unique_name = str((await bus.call(_to_the_bus("Hello"))).body[0])
                await bus.subscribe(_DBUS, "NameOwnerChanged", bus._name_owner_changed, "arg2=''", sender=_DBUS)
        except (OSError, TimeoutError) as error:
            await bus.close()
            raise BusError(
                _STANDARD_ERROR + "NoServer", f"There is no bus at {address}: {str(error) or 'no answer'}"
            ) from error
        except BaseException:
            await bus.close()
            raise
        return bus

    async def close(self) -> None:
        """End the connection; what was sent before is written as far as the bus takes it at once."""
        self._stream.close()
        self._lose(BusError(_STANDARD_ERROR + "Disconnected", "The connection to the bus was closed."))
        await self._stream.closed.wait()

    async def request_name(self, name: str) -> None:
        """Own a well-known name; raises Busy when somebody else does."""
        reply = await self.call(_to_the_bus("RequestName", "su", [name, _DO_NOT_QUEUE]))
        if reply.body[0] not in _OWNED:
            raise Failed(
                f"Somebody else owns {name} on the bus.",
                code=ErrorCode.BUSY,
                hint="Another glixd runs on this bus.",
                details={"name": name},
            )

    async def release_name(self, name: str) -> None:
        """Give a well-known name back."""
        await self.call(_to_the_bus("ReleaseName", "s", [name]))

    # -- messages out ----------------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the bus is slow to take what was sent."""
        return self._stream.choked

    def send(self, message: Message) -> None:
        """Send a message; raises BusError when the connection is lost, TooLarge for what the bus would not take."""
        if self.lost.done():
            reason = self.lost.result()
            raise BusError(reason.name, reason.message)
        if not message.serial:
            message.serial = self._next_serial()
        self._stream.send(message.destination or "", _marshalled(message))

    async def call(self, message: Message, timeout: float = _CALL_TIMEOUT) -> Message:  # noqa: ASYNC109 — no call is without
        """Send a call and wait for its answer; raises BusError for an error, a timeout or a lost connection."""
        message.serial = self._next_serial()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[message.serial] = answer
        try:
            self.send(message)
            for seconds in (timeout, _LATE):
                done, _ = await asyncio.wait([answer], timeout=seconds)
                if done:
                    return answer.result()
            raise BusError(
                _STANDARD_ERROR + "NoReply",
                f"{message.destination} did not answer {message.member} within {timeout:g} seconds.",
                code=ErrorCode.TIMED_OUT,
            )
        finally:
            del self._pending[message.serial]

    def answer(self, call: Call, signature: str = "", body: Sequence[object] = ()) -> None:
        """Answer a call, if its caller wants to know."""
        if not call.flags & MessageFlag.NO_REPLY_EXPECTED:
            self.send(_reply(call, MessageType.METHOD_RETURN, signature, body))

    def ready(self, call: Call, signature: str, body: Sequence[object]) -> bytes:
        """The answer to a call as bytes, for `send_ready`; made on any thread. Raises TooLarge."""
        message = _reply(call, MessageType.METHOD_RETURN, signature, body)
        message.serial = self._next_serial()
        return _marshalled(message)

    def send_ready(self, call: Call, data: bytes) -> None:
        """Send what `ready` made, if the caller wants to know."""
        if not call.flags & MessageFlag.NO_REPLY_EXPECTED and not self.lost.done():
            self._stream.send(call.sender, data)

    def refuse(self, call: Call, name: str, text: str, *facts: tuple[str, object]) -> None:
        """Answer a call with an error, if its caller wants to know; `facts` are further typed arguments."""
        if not call.flags & MessageFlag.NO_REPLY_EXPECTED:
            signature = "s" + "".join(signature for signature, _ in facts)
            body = [clean(text), *(value for _, value in facts)]
            message = _reply(call, MessageType.ERROR, signature, body, error_name=name)
            self.send(message)

    def stencil(self, call: Call, name: str, text: str, *facts: tuple[str, object]) -> Stencil:
        """The same refusal for any number of calls of one connection, for `stamp`: made once, because that takes long."""
        pattern = replace(call, reply_serial=0, serial=_MARK)
        message = _reply(
            pattern,
            MessageType.ERROR,
            "s" + "".join(signature for signature, _ in facts),
            [clean(text), *(value for _, value in facts)],
            error_name=name,
        )
        message.serial = 1
        data = _marshalled(message)
        place = data.find(_MARK.to_bytes(4, "little"))
        return Stencil(data[:8], data[12:place], data[place + 4 :])

    def stamp(self, stencil: Stencil, call: Call) -> None:
        """Answer a call with a refusal that is made already, if its caller wants to know."""
        if not call.flags & MessageFlag.NO_REPLY_EXPECTED and not self.lost.done():
            serial, reply = (number.to_bytes(4, "little") for number in (self._next_serial(), call.serial))
            self._stream.send(call.sender, stencil.begin + serial + stencil.middle + reply + stencil.end)

    def signal(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[object],
        destination: str | None = None,
    ) -> None:
        """Send a signal to one connection, or to whoever listens."""
        self.send(
            Message(
                destination=destination,
                path=path,
                interface=interface,
                member=member,
                message_type=MessageType.SIGNAL,
                signature=signature,
                body=list(body),
            )
        )

    # -- who is there ----------------------------------------------------------------------------------------------

    async def uid(self, unique_name: str) -> int:
        """The uid of a connection, as the bus knows it from the kernel; raises BusError when it is gone."""
        task = self._uids.get(unique_name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask_uid(unique_name))
            task.add_done_callback(lambda done: self._keep_uid(unique_name, done))
            self._uids[unique_name] = task
            if len(self._uids) > _MAX_UIDS:
                self._uids.popitem(last=False)
        return await asyncio.shield(task)

    def on_vanished(self, callback: Callable[[str], None]) -> None:
        """Call back with the unique name of every connection that leaves the bus."""
        self._vanished.append(callback)

    async def subscribe(self, interface: str, member: str, callback: Handler, rule: str = "", sender: str = "") -> None:
        """Call back with every such signal, of `sender` alone where it is given; `rule` narrows the match further."""
        match = f"type='signal',interface='{interface}',member='{member}'" + (f",{rule}" if rule else "")
        self._signals.setdefault((interface, member), []).append((sender, callback))
        await self.call(_to_the_bus("AddMatch", "s", [match]))

    async def _ask_uid(self, unique_name: str) -> int:
        reply = await self.call(_to_the_bus("GetConnectionUnixUser", "s", [unique_name]))
        return int(reply.body[0])

    def _keep_uid(self, unique_name: str, task: asyncio.Task[int]) -> None:
        if (task.cancelled() or task.exception()) and self._uids.get(unique_name) is task:
            del self._uids[unique_name]

    def _name_owner_changed(self, message: Call) -> None:
        if message.signature != "sss":
            return
        name, _, new_owner = message.body
        if name.startswith(":") and not new_owner:
            self._uids.pop(name, None)
            for callback in self._vanished:
                callback(name)

    # -- messages in, given by the stream --------------------------------------------------------------------------

    def _received(self, message: Call) -> None:
        match message.kind:
            case Kind.CALL:
                self._called(message)
            case Kind.SIGNAL:
                for sender, callback in self._signals.get((message.interface, message.member), ()):
                    if sender in ("", message.sender):  # anybody can send us a signal of any name
                        callback(message)
            case _ if message.reply_serial in self._pending:
                if answer := _unmarshalled(message.data):
                    self._answered(answer)

    def _called(self, message: Call) -> None:
        if self.handler is not None:
            self.handler(message)
        else:
            self.refuse(message, _STANDARD_ERROR + "UnknownObject", f"There is no object {message.path} here.")

    def _answered(self, message: Message) -> None:
        answer = self._pending.get(message.reply_serial)
        if answer is None or answer.done():
            return
        if message.message_type is MessageType.METHOD_RETURN:
            answer.set_result(message)
        else:
            text = message.body[0] if message.body and isinstance(message.body[0], str) else message.error_name
            answer.set_exception(BusError(message.error_name, text))

    def _awaits(self, message: Call) -> bool:
        return message.kind == Kind.RETURN and message.reply_serial in self._pending

    def _oversized(self, message: Call, size: int) -> None:
        """Refuse a message whose body is passed over."""
        text = f"The message has {size} bytes of arguments, over the limit of {MAX_BUS_MESSAGE}; it was not read."
        log.warning("oversized message", sender=message.sender, member=message.member, size=size)
        if message.kind == Kind.CALL:
            self.refuse(message, ERROR_PREFIX + ErrorCode.TOO_LARGE, text)
        elif (answer := self._pending.get(message.reply_serial)) is not None and not answer.done():
            answer.set_exception(BusError(ERROR_PREFIX + ErrorCode.TOO_LARGE, text, code=ErrorCode.TOO_LARGE))

    def _lose(self, reason: BusError) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(reason)
        self._uids.clear()

    # -- helpers ---------------------------------------------------------------------------------------------------

    async def _open(self, address: str) -> None:
        """Try the addresses of a list in turn, as the specification says."""
        failure: OSError | None = None
        for transport, options in bus_library.parse_address(address):
            path = options.get("path") or ("\0" + options["abstract"] if "abstract" in options else "")
            if transport != "unix" or not path:
                failure = failure or OSError(f"{transport} is no transport that is used here")
                continue
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: self._stream, path)
            except OSError as error:
                failure = error
            else:
                await self._stream.authenticated
                return
        raise failure or OSError("the address is empty")

    def _next_serial(self) -> int:
        return next(self._serials) % 0xFFFFFFFF + 1


class _Stream(asyncio.Protocol):
    """Bytes to messages: authenticates, cuts the stream by the sizes of the headers, and never keeps a body over the limit."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._skip = 0
        """Bytes of a refused message that are still to come."""
        self._again: asyncio.Handle | None = None
        self._outgoing = Outgoing()
        self._full = False
        """Whether so much is written that the rest waits."""
        self._together = False
        """Whether what is sent is written in a moment, all at once: each write lets other threads go first."""
        self.authenticated: asyncio.Future[None] = self._loop.create_future()
        self.authenticated.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.closed = asyncio.Event()
        self.closed.set()
        self.choked = False

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are; the bus compares that with what the kernel tells it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — a stream socket has no other
        self._transport = transport
        self.closed.clear()
        transport.set_write_buffer_limits(high=_WRITTEN)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL)
        transport.write(b"\0AUTH EXTERNAL %b\r\n" % str(os.geteuid()).encode().hex().encode())

    def data_received(self, data: bytes) -> None:
        """Take bytes, and serve the messages that are complete."""
        self._buffer += data
        if self._skip:
            self._drop()
        if self._again is None:
            self._take_turn()

    def pause_writing(self) -> None:
        """Write nothing more until the bus has taken what is written."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        if self._again is not None:
            self._again.cancel()
        reason = BusError(_STANDARD_ERROR + "Disconnected", f"The connection to the bus is lost: {exc or 'it hung up'}")
        if not self.authenticated.done():
            self.authenticated.set_exception(reason)
        self._bus._lose(reason)
        self.closed.set()

    # -- used by the bus -------------------------------------------------------------------------------------------

    def send(self, destination: str, message: bytes) -> None:
        """Send a message; a bus that takes nothing for long is not read either, and in the end given up."""
        if self._transport is None or self._transport.is_closing():
            return
        self._outgoing.add(destination, message)
        if not self._together:
            self._flush()
        if self._outgoing.size > _MAX_UNSENT:
            self._give_up("it does not take what is sent")
        elif self._outgoing.size > _HIGH_WATER and not self.choked:
            self.choked = True
            self._pace()

    def _flush(self) -> None:
        """Write what may be written, and read on where that was much; nobody says so where the bus takes all of it at once."""
        while not self._full and self._outgoing.size:
            self._write(self._outgoing.take(_WRITTEN))
        if self.choked and self._outgoing.size <= _HIGH_WATER // 2:
            self.choked = False
            if self._again is None:
                self._again = self._loop.call_soon(self._take_turn)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Write what can be written at once, and close."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(self._outgoing.take(self._outgoing.size))
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()

    # -- messages --------------------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Serve some messages; more of them wait until others had their turn."""
        self._again = None
        if not self.authenticated.done() and not self._authenticate():
            return
        self._together = True
        until = self._loop.time() + _SLICE
        while not (self.choked or self._transport is None or self._transport.is_closing()) and self._serve_one():
            if self._loop.time() >= until:
                self._again = self._loop.call_soon(self._take_turn)
                break
        self._together = False
        self._flush()
        self._pace()

    def _pace(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self.choked or self._again is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _authenticate(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_AUTHENTICATION:
                self._give_up("it does not speak the protocol")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if not line.startswith(b"OK "):
            self._give_up(f"it refused to authenticate uid {os.geteuid()}")
            return False
        self._write(b"BEGIN\r\n")
        self.authenticated.set_result(None)
        return True

    def _serve_one(self) -> bool:
        """Serve the next message if it is complete, or refuse it if its size says so."""
        if self._skip or len(self._buffer) < bus_header.FIXED:
            return False
        header, body = bus_header.sizes(self._buffer)
        if header < 0:
            self._give_up("it does not speak the protocol")
            return False
        if header > _MAX_HEADER:
            log.warning("oversized header", size=header)
            self._pass_over(header + body)
            return True
        if len(self._buffer) < header:
            return False
        if body > MAX_BUS_MESSAGE and not self._wanted(header, body):
            return True
        if len(self._buffer) < header + body:
            return False
        with memoryview(self._buffer) as kept:
            data = bytes(kept[: header + body])
        del self._buffer[: header + body]
        self._deliver(data)
        return True

    def _wanted(self, header: int, body: int) -> bool:
        """Whether a large message is an answer that we wait for; any other is refused by its header alone."""
        message = bus_header.read(bytes(self._buffer[:header]))
        if message is not None and self._bus._awaits(message) and body <= _MAX_REPLY:
            return True
        self._pass_over(header + body)
        if message is not None:
            self._bus._oversized(message, body)
        return False

    def _deliver(self, data: bytes) -> None:
        message = bus_header.read(data)
        if message is None:
            log.warning("message ignored", size=len(data))
            return
        try:
            self._bus._received(message)
        except Exception:  # the door: one message that we can't serve must not end the connection
            log.exception("defect", sender=message.sender, member=message.member)

    def _pass_over(self, size: int) -> None:
        self._skip = size
        self._drop()

    def _drop(self) -> None:
        dropped = min(self._skip, len(self._buffer))
        del self._buffer[:dropped]
        self._skip -= dropped

    def _give_up(self, why: str) -> None:
        log.error("bus given up", reason=why)
        reason = BusError(_STANDARD_ERROR + "Disconnected", f"The connection to the bus was given up: {why}.")
        if not self.authenticated.done():
            self.authenticated.set_exception(reason)
        self._bus._lose(reason)
        if self._transport is not None:
            self._transport.abort()


def clean(text: str) -> str:
    """Text that the bus carries: it cuts off whoever sends a NUL or a lone surrogate."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    return text.encode(errors="replace").decode()


def _to_the_bus(member: str, signature: str = "", body: Sequence[object] = ()) -> Message:
    return Message(
        destination=_DBUS, path=_DBUS_PATH, interface=_DBUS, member=member, signature=signature, body=list(body)
    )


def _marshalled(message: Message) -> bytes:
    data = bus_library.marshalled(message)
    if len(data) > _MAX_SENT:
        raise Failed(
            f"The message has {len(data)} bytes, which is more than the bus carries.", code=ErrorCode.TOO_LARGE
        )
    return data


def _reply(
    call: Call, kind: MessageType, signature: str, body: Sequence[object], error_name: str | None = None
) -> Message:
    return Message(
        message_type=kind,
        reply_serial=call.serial,
        destination=call.sender,
        error_name=error_name,
        signature=signature,
        body=list(body),
    )


def _resolved(address: str) -> str:
    """The address of a well-known bus."""
    match address:
        case "system":
            return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
        case "session":
            runtime = os.environ.get("XDG_RUNTIME_DIR")
            fallback = f"unix:path={runtime}/bus" if runtime else ""
            found = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or fallback
            if not found:
                raise BusError(_STANDARD_ERROR + "NoServer", "There is no session bus.")
            return found
        case _:
            return address


def _unmarshalled(data: bytes) -> Message | None:
    """The message in `data`, or None for one that can't be understood, which the specification has us ignore."""
    try:
        return bus_library.unmarshalled(data)
    except Exception as error:  # noqa: BLE001 — the library raises whatever its parts raise
        log.warning("message ignored", error=f"{type(error).__name__}: {error}")
        return None
    finally:
        bus_library.bound()
