# SPDX-License-Identifier: GPL-3.0-or-later
"""The D-Bus front-end: every object, method, property and signal of glixd on the bus, generated from the table.

The manager is one object; every transaction is another below it, with its state as properties. Who calls is what the bus
says. A method is one call on the engine, which decides; what is told to everybody is no more than that there is a
transaction and where it is, everything else goes to those who watch it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from glixd import api
from glixd.api import Caller
from glixd.backends.bus import Bus, BusError, Call, MessageFlag, Variant
from glixd.errors import Cancelled, GlixError, InvalidRequest
from glixd.frontends import introspection
from glixd.frontends.bus_client import BusClient
from glixd.frontends.bus_crowd import Crowd
from glixd.frontends.bus_values import empty, encoded, plain, told
from glixd.frontends.introspection import INTROSPECTABLE, OBJECT_MANAGER, PEER, PROPERTIES, STANDARD, Property
from glixd.frontends.limits import BusLimits
from glixd.frontends.wire import explained
from glixd.log import get_logger
from glixd.protocol import (
    BUS_NAME,
    COMMIT,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_INTERFACE,
    TRANSACTION_PATH,
    VERSION,
    ErrorCode,
    State,
)
from glixd.threads import FairThreads
from glixd.values import dataclass

if TYPE_CHECKING:
    from glixd.engine import Engine

log = get_logger()

_LARGE: Final = 8 * 1024
"""Bytes from which on a message takes so long that it is read aside."""
_MANAGER_VALUES: Final = {"version": VERSION, "commit": COMMIT}
_ON_REQUEST: Final = ("log", "outcome")
"""Properties that GetManagedObjects leaves out for their size."""

Reply = tuple[str, list[object]]
Read = TypeVar("Read")


class StandardError(InvalidRequest):
    """An error that the D-Bus specification has a name for; its code is for the log alone."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = f"{STANDARD}Error.{name}"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A method call and where it came from."""

    message: Call
    caller: Caller
    client: BusClient
    transaction: str | None
    """The transaction whose object was called; None for the manager and the paths above it."""


@dataclass(frozen=True, slots=True)
class _Aside:
    """A reply that is so large that it is made on a thread of its own."""

    make: Callable[[], Reply]


Method = Callable[[_Asked], Awaitable[Reply | _Aside]]


class DBusFrontend:
    """Serves one bus from `start` to `stop`; the name is requested when everything else is ready. An Observer of the engine."""

    def __init__(self, engine: Engine, bus: Bus, limits: BusLimits | None = None) -> None:
        self._engine = engine
        self._bus = bus
        self._crowd = Crowd(engine, bus, limits or BusLimits(), self._serve)
        self._large = FairThreads(2, "message", each=1)
        """Where large messages are read and written, so that nobody has to wait for that."""
        self._stopped = False
        self._standard: dict[tuple[str, str], tuple[str, Method]] = {
            (INTROSPECTABLE, "Introspect"): ("", self._introspect),
            (PEER, "Ping"): ("", _ping),
            (PEER, "GetMachineId"): ("", _machine_id),
            (PROPERTIES, "Get"): ("ss", self._get),
            (PROPERTIES, "GetAll"): ("s", self._get_all),
            (PROPERTIES, "Set"): ("ssv", self._set),
            (OBJECT_MANAGER, "GetManagedObjects"): ("", self._managed_objects),
            (TRANSACTION_INTERFACE, "Cancel"): ("a{sv}", self._cancel),
        }

    @property
    def calls(self) -> int:
        """How many calls run or wait."""
        return self._crowd.calls

    async def start(self) -> None:
        """Serve whoever calls from now on."""
        self._bus.handler = self._crowd.handle
        self._bus.on_vanished(self._crowd.vanished)
        self._engine.observe(self)

    async def stop(self, grace: float = 5.0) -> None:
        """Give the name back and answer what is under way; after `grace` seconds say to the rest that the daemon stops."""
        try:
            await self._bus.release_name(BUS_NAME)
        except BusError as error:
            log.debug("the bus is gone already", error=error.message)
        self._bus.handler = None
        if not await self._crowd.idle_within(grace):
            self._crowd.interrupt()
            await self._crowd.idle_within(1.0)
        self._stopped = True
        self._crowd.dissolve()
        self._large.close()

    # -- what the engine tells an observer -------------------------------------------------------------------------

    def added(self, transaction: str, state: State) -> None:
        """Tell everybody that there is a transaction, and no more of it."""
        known = {"Id": Variant("s", transaction), "State": Variant("s", state.value)}
        body = [_path(transaction), {TRANSACTION_INTERFACE: known}]
        self._broadcast(OBJECT_PATH, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", body)

    def state_changed(self, transaction: str, state: State) -> None:
        """Tell everybody where a transaction is."""
        changed = {"State": Variant("s", state.value)}
        body = [TRANSACTION_INTERFACE, changed, []]
        self._broadcast(_path(transaction), PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def removed(self, transaction: str) -> None:
        """Tell everybody that a transaction has left the history."""
        body = [_path(transaction), [TRANSACTION_INTERFACE]]
        self._broadcast(OBJECT_PATH, OBJECT_MANAGER, "InterfacesRemoved", "oas", body)

    def changed(self, host: str) -> None:
        """Tell everybody that the manifest of a host changed."""
        self._broadcast(OBJECT_PATH, MANAGER_INTERFACE, "Changed", "s", [host])

    def staged(self, host: str) -> None:
        """Tell everybody that an update of a host is built and can be switched to."""
        self._broadcast(OBJECT_PATH, MANAGER_INTERFACE, "Staged", "s", [host])

    def _broadcast(self, path: str, interface: str, member: str, signature: str, body: Sequence[object]) -> None:
        if not self._stopped and not self._bus.lost.done():
            self._bus.signal(path, interface, member, signature, body)

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _serve(self, message: Call, caller: Caller, client: BusClient) -> None:
        try:
            reply = await self._dispatch(message, caller, client)
            if isinstance(reply, _Aside):
                ready = await self._large.run_for(caller.uid, lambda: self._bus.ready(message, *reply.make()))
                self._bus.send_ready(message, ready)
            else:
                self._bus.answer(message, *reply)
        except asyncio.CancelledError:
            self._refuse(message, _stopping(message.member))
        except Exception as error:  # noqa: BLE001 — the door: what is not for callers is logged and named Internal
            self._refuse(message, explained(error, message.member))

    def _refuse(self, message: Call, error: GlixError) -> None:
        if self._bus.lost.done():
            return
        if isinstance(error, StandardError):
            self._bus.refuse(message, error.name, error.message)
        else:
            name, text, facts = told(error)
            self._bus.refuse(message, name, text, facts)

    async def _dispatch(self, message: Call, caller: Caller, client: BusClient) -> Reply | _Aside:
        interfaces, transaction = _object(message.path)
        call = _Asked(message, caller, client, transaction)
        interface = message.interface or self._implied(interfaces, message.member)
        if interface == PEER:
            interfaces = (*interfaces, PEER)  # every path answers a ping, an object or not
        if not interfaces:
            raise StandardError("UnknownObject", f"There is no object {message.path}.")
        if interface not in interfaces:
            raise StandardError("UnknownInterface", f"{message.path} has no interface {interface}.")
        if interface == MANAGER_INTERFACE:
            return await self._operate(call)
        expected, method = self._standard.get((interface, message.member), ("", None))
        if method is None:
            raise StandardError("UnknownMethod", f"{interface} has no method {message.member}.")
        if message.signature != expected:
            raise StandardError(
                "InvalidArgs", f"{message.member} takes ({expected}), and was given ({message.signature})."
            )
        await self._aside(call, lambda: message.body)
        return await method(call)

    def _implied(self, interfaces: Sequence[str], member: str) -> str:
        """The interface of a call that names none."""
        if MANAGER_INTERFACE in interfaces and member in api.OPERATIONS:
            return MANAGER_INTERFACE
        for interface in interfaces:
            if (interface, member) in self._standard:
                return interface
        if not interfaces:
            return ""
        raise StandardError("UnknownMethod", f"There is no method {member} here.")

    # -- the manager and transactions ------------------------------------------------------------------------------

    async def _operate(self, call: _Asked) -> Reply | _Aside:
        message = call.message
        row = api.OPERATIONS.get(message.member)
        if row is None:
            raise StandardError("UnknownMethod", f"{MANAGER_INTERFACE} has no method {message.member}.")
        taken = introspection.in_arguments(row)
        if message.signature != "".join(signature for _, signature in taken):
            raise _wrong_arguments(row, taken, message.signature)
        names = [name for name, _ in taken[:-1]]
        parameters = await self._aside(call, lambda: _parameters(message, row, names))
        result = await self._engine.call(row, parameters, call.caller, call.client)
        if isinstance(result, api.Started):
            return "o", [_path(result.transaction)]
        if len(result.model_dump_json()) > _LARGE:
            return _Aside(lambda: ("a{sv}", [encoded(result)]))
        return "a{sv}", [encoded(result)]

    async def _aside(self, call: _Asked, read: Callable[[], Read]) -> Read:
        """What `read` makes of the arguments of a call; elsewhere where there are many of them."""
        if call.message.size > _LARGE:
            return await self._large.run_for(call.caller.uid, read)
        return read()

    async def _cancel(self, call: _Asked) -> Reply:
        options = _options(call.message.body[0], ["transaction"])
        await self._run(call, api.operation("Cancel"), {**options, "transaction": call.transaction})
        return "", []

    async def _run(self, call: _Asked, row: api.Operation, arguments: dict[str, object]) -> api.Value:
        return await self._engine.call(row, _parsed(call.message, row, arguments), call.caller, call.client)

    async def _transaction(self, call: _Asked) -> api.Transaction:
        found = await self._run(call, api.operation("GetTransaction"), {"transaction": call.transaction})
        assert isinstance(found, api.Transaction)  # noqa: S101 — the table says so
        return found

    # -- the standard interfaces -----------------------------------------------------------------------------------

    async def _introspect(self, call: _Asked) -> Reply:
        path = call.message.path
        if call.transaction is not None:
            return "s", [introspection.transaction()]
        if path == OBJECT_PATH:
            return "s", [introspection.manager()]
        if path == TRANSACTION_PATH:
            return "s", [introspection.folder(found.id for found in self._engine.visible(call.caller))]
        below = OBJECT_PATH.removeprefix(path).lstrip("/")
        return "s", [introspection.folder([below.split("/")[0]])]

    async def _get(self, call: _Asked) -> Reply:
        interface, name = call.message.body
        declared = self._declared(call, interface)
        wanted = next((one for one in declared if one.name == name), None)
        if wanted is None:
            raise StandardError("UnknownProperty", f"There is no property {name}.")
        return "v", [(await self._values(call, (wanted,)))[name]]

    async def _get_all(self, call: _Asked) -> Reply:
        return "a{sv}", [await self._values(call, self._declared(call, call.message.body[0]))]

    async def _set(self, call: _Asked) -> Reply:
        interface, name, _ = call.message.body
        if any(one.name == name for one in self._declared(call, interface)):
            raise StandardError("PropertyReadOnly", f"The property {name} can't be set.")
        raise StandardError("UnknownProperty", f"There is no property {name}.")

    def _declared(self, call: _Asked, interface: str) -> tuple[Property, ...]:
        """The properties of an interface of the object; of all of them when none is named."""
        interfaces, _ = _object(call.message.path)
        if interface and interface not in interfaces:
            raise StandardError("UnknownInterface", f"{call.message.path} has no interface {interface}.")
        if call.transaction is None:
            return introspection.MANAGER_PROPERTIES if interface in ("", MANAGER_INTERFACE) else ()
        return introspection.TRANSACTION_PROPERTIES if interface in ("", TRANSACTION_INTERFACE) else ()

    async def _values(self, call: _Asked, declared: Sequence[Property]) -> dict[str, Variant]:
        if not declared:
            return {}
        if call.transaction is None:
            return {one.name: Variant("s", _MANAGER_VALUES[one.field]) for one in declared}
        return _properties(await self._transaction(call), declared)

    async def _managed_objects(self, call: _Asked) -> _Aside:
        declared = [one for one in introspection.TRANSACTION_PROPERTIES if one.field not in _ON_REQUEST]
        visible = self._engine.visible(call.caller)

        def make() -> Reply:
            return "a{oa{sa{sv}}}", [
                {_path(found.id): {TRANSACTION_INTERFACE: _properties(found, declared)} for found in visible}
            ]

        return _Aside(make)


_MANAGER: Final = (INTROSPECTABLE, PEER, PROPERTIES, OBJECT_MANAGER, MANAGER_INTERFACE)
_TRANSACTION: Final = (INTROSPECTABLE, PEER, PROPERTIES, TRANSACTION_INTERFACE)
_FOLDER: Final = (INTROSPECTABLE, PEER)


def _object(path: str) -> tuple[tuple[str, ...], str | None]:
    """The interfaces of the object at a path, none when there is no object, and the id when it is a transaction."""
    if path == OBJECT_PATH:
        return _MANAGER, None
    if path == TRANSACTION_PATH or path == "/" or OBJECT_PATH.startswith(path + "/"):
        return _FOLDER, None
    folder, _, name = path.rpartition("/")
    if folder == TRANSACTION_PATH and api.TRANSACTION_ID.fullmatch(name):
        return _TRANSACTION, name
    return (), None


def _path(transaction: str) -> str:
    return f"{TRANSACTION_PATH}/{transaction}"


def _properties(transaction: api.Transaction, declared: Sequence[Property]) -> dict[str, Variant]:
    """Every property with a value; what is not there yet is empty."""
    present = encoded(transaction)
    return {one.name: present.get(one.field) or Variant(one.signature, empty(one.signature)) for one in declared}


def _options(options: Mapping[str, Any], typed: Sequence[str]) -> dict[str, object]:
    for name in typed:
        if name in options:
            raise InvalidRequest(f"{name} is an argument of its own and no option.", details={"argument": name})
    return {name: plain(value) for name, value in options.items()}


def _parameters(message: Call, row: api.Operation, names: Sequence[str]) -> api.Parameters:
    """What a call of the manager asks for: its typed arguments by name, and the options behind them."""
    *typed, options = message.body
    return _parsed(message, row, {**_options(options, names), **dict(zip(names, map(plain, typed), strict=True))})


def _parsed(message: Call, row: api.Operation, arguments: dict[str, object]) -> api.Parameters:
    may_ask = bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
    if may_ask and "interactive" in row.parameters.model_fields:
        arguments.setdefault("interactive", True)
    return api.parse(row, arguments)


def _wrong_arguments(row: api.Operation, taken: Sequence[tuple[str, str]], given: str) -> InvalidRequest:
    expected = ", ".join(f"{signature} {name}" for name, signature in taken)
    signature = "".join(signature for _, signature in taken)
    return InvalidRequest(
        f"{row.name} takes ({expected}); the signature is {signature}, and was {given or 'empty'}.",
        hint="Every optional parameter goes into the options, which may be empty.",
        details={"argument": "signature", "expected": signature, "given": given},
    )


def _stopping(operation: str) -> Cancelled:
    return Cancelled(
        f"The daemon stopped before {operation} had an answer.", code=ErrorCode.INTERRUPTED, hint="Ask again."
    )


async def _ping(_: _Asked) -> Reply:
    return "", []


async def _machine_id(_: _Asked) -> Reply:
    if identity := _read_machine_id():
        return "s", [identity]
    raise StandardError("Failed", "This machine has no id.")


def _read_machine_id() -> str:
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            return Path(place).read_text(encoding="ascii").strip()
        except OSError:
            continue
    return ""
