# SPDX-License-Identifier: GPL-3.0-or-later
"""The D-Bus transport: the same requests as on the socket, as calls of the Manager's methods.

The daemon describes its own methods: which parameters are typed arguments, and in which order, comes from its introspection;
all others travel by name in the last argument. The library is slow to load, so only functions that need it import it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from glixctl.errors import ClientError, Disconnected, NotListening, Unreachable
from glixd.protocol import (
    BUS_NAME,
    ERROR_PREFIX,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_INTERFACE,
    TRANSACTION_PATH,
    ErrorCode,
    Exit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

CONNECT = 10.0
"""Seconds in which the bus has to accept a connection."""

_INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
_BUS_ERROR = "org.freedesktop.DBus.Error."
_NOBODY = ("ServiceUnknown", "NameHasNoOwner")
_GONE = ("NoReply", "Disconnected", "Timeout", "TimedOut")


class BusTransport:
    """A connection to the daemon through the session bus (user mode) or the system bus."""

    def __init__(self, mode: str, silence: float) -> None:
        self._silence = silence
        self._loop = asyncio.new_event_loop()
        self._progress: Callable[[dict[str, Any]], None] | None = None
        self._daemon = ""
        self._lost: asyncio.Future[None] | None = None
        try:
            self._bus = self._wait(_connected(mode), CONNECT)
            self._bus.add_message_handler(self._heard)
            self._methods = self._introspected()
        except BaseException:
            self.close()
            raise

    def request(
        self, method: str, params: Mapping[str, Any], on_progress: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Call one method and return its result; progress that comes before it goes to `on_progress`."""
        self._progress = on_progress
        return result(self._call(call(method, params, self._methods.get(method, []))))

    def close(self) -> None:
        """End the connection; what was started goes on."""
        if self._loop.is_closed():
            return
        if bus := getattr(self, "_bus", None):
            bus.disconnect()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.wait({task}))
        self._loop.close()

    def _introspected(self) -> dict[str, list[tuple[str, str]]]:
        from dbus_next import Message

        reply = self._call(
            Message(destination=BUS_NAME, path=OBJECT_PATH, interface=_INTROSPECTABLE, member="Introspect")
        )
        self._daemon = reply.sender
        return methods(reply.body[0])

    def _call(self, message: Any) -> Any:
        """The reply to a message; an error reply is raised."""
        from dbus_next import MessageType

        try:
            reply = self._wait(self._answered(message), self._silence)
        except TimeoutError:
            raise Unreachable(f"The daemon has said nothing for {self._silence:.0f} seconds.") from None
        if reply is None:
            raise Disconnected(answering=False)
        if reply.message_type is MessageType.ERROR:
            raise error(reply.error_name, reply.body)
        return reply

    async def _answered(self, message: Any) -> Any:
        """The reply, or none when the bus goes away: the library itself would wait for ever."""
        if self._lost is None:
            self._lost = asyncio.ensure_future(self._end_of_the_bus())
        call = asyncio.ensure_future(self._bus.call(message))
        try:
            await asyncio.wait({call, self._lost}, return_when=asyncio.FIRST_COMPLETED)
            return call.result() if call.done() else None
        finally:
            call.cancel()

    async def _end_of_the_bus(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            await self._bus.wait_for_disconnect()

    def _wait(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, seconds))

    def _heard(self, message: Any) -> None:
        """Pass on the progress that the daemon sends to this connection."""
        from dbus_next import MessageType

        ours = message.message_type is MessageType.SIGNAL and message.sender == self._daemon
        if ours and message.interface == TRANSACTION_INTERFACE and message.member == "Progress" and self._progress:
            event = plain(message.body[0]) if message.body else {}
            self._progress({"transaction": message.path.removeprefix(f"{TRANSACTION_PATH}/"), **event})


def methods(xml: str) -> dict[str, list[tuple[str, str]]]:
    """The methods of the Manager in the daemon's introspection: the names and signatures of their arguments."""
    from dbus_next.introspection import Node

    return {
        method.name: [(argument.name, argument.signature) for argument in method.in_args]
        for interface in Node.parse(xml).interfaces
        if interface.name == MANAGER_INTERFACE
        for method in interface.methods
    }


def call(method: str, params: Mapping[str, Any], arguments: list[tuple[str, str]]) -> Any:
    """The message that asks for `method`: its typed arguments in order, everything else in the options at the end."""
    from dbus_next import Message, MessageFlag

    params = dict(params)
    _check_text(params)
    interactive = params.pop("interactive", False)
    typed = arguments[:-1]  # the last one is the options
    body = [_argument(params.pop(name), signature) for name, signature in typed]
    return Message(
        destination=BUS_NAME,
        path=OBJECT_PATH,
        interface=MANAGER_INTERFACE,
        member=method,
        signature="".join(signature for _, signature in typed) + "a{sv}",
        body=[*body, {name: variant(value) for name, value in params.items()}],
        flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE,
    )


def _argument(value: Any, signature: str) -> Any:
    """A typed argument: where it is a dictionary of anything, each of its values carries its own type."""
    if signature == "a{sv}":
        return {key: variant(item) for key, item in value.items()}
    return [_argument(item, signature[1:]) for item in value] if signature == "aa{sv}" else value


def _check_text(params: Mapping[str, Any]) -> None:
    """Refuse what the daemon refuses on the socket, and what no message of the bus can hold: bytes that are no text."""
    try:
        json.dumps(params, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ClientError("An argument is no UTF-8 text.", name=ErrorCode.MALFORMED, exit_code=Exit.USAGE) from None


def variant(value: Any) -> Any:
    """An option as it travels on the bus."""
    from dbus_next import Variant

    match value:
        case bool():
            return Variant("b", value)
        case int():
            return Variant("x", value)
        case float():
            return Variant("d", value)
        case str():
            return Variant("s", value)
        case dict():
            return Variant("a{sv}", {key: variant(item) for key, item in value.items()})
        case _:
            return Variant("as", list(value))


def result(reply: Any) -> dict[str, Any]:
    """What a reply says, in the form of the socket: a model, or the transaction that was started."""
    match reply.signature:
        case "":
            return {}
        case "o":
            return {"transaction": reply.body[0].rpartition("/")[2]}
        case _:
            value: dict[str, Any] = plain(reply.body[0])
            return value


def plain(value: Any) -> Any:
    """`value` without the wrappers that carry types on the bus."""
    from dbus_next import Variant

    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def error(name: str, body: list[Any]) -> ClientError:
    """The error that an error reply means: one of glixd's own, or what the bus says about the daemon."""
    message = str(body[0]) if body else ""
    if name.startswith(ERROR_PREFIX):
        more = plain(body[1]) if len(body) > 1 and isinstance(body[1], dict) else {}
        return ClientError.from_wire({"name": name.removeprefix(ERROR_PREFIX), "message": message, **more})
    short = name.removeprefix(_BUS_ERROR)
    if short in _NOBODY:
        return NotListening(f"No daemon has the name {BUS_NAME} on the bus.")
    if short in _GONE:
        return Disconnected(answering=False)
    return Unreachable(f"The bus refuses the call: {message or name}.")


async def _connected(mode: str) -> Any:
    from dbus_next import BusType
    from dbus_next.aio import MessageBus
    from dbus_next.errors import AuthError, InvalidAddressError

    try:
        return await MessageBus(bus_type=BusType.SYSTEM if mode == "system" else BusType.SESSION).connect()
    except (OSError, InvalidAddressError, AuthError) as reason:
        said = (reason.strerror if isinstance(reason, OSError) else None) or str(reason).rstrip(".")
        if mode == "system":
            raise Unreachable(
                f"The system bus can't be reached: {said}.",
                "Is glixd installed as a service here? --mode user asks your own daemon.",
            ) from None
        raise Unreachable(
            f"The session bus can't be reached: {said}.",
            "Leave --transport out to ask on the socket, or log in to a session that has a bus.",
        ) from None
