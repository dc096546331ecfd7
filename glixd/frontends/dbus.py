# SPDX-License-Identifier: GPL-3.0-or-later
"""The D-Bus front-end: every object, method, property and signal of glixd on the bus, generated from the table.

The manager is one object; every transaction is another below it, with its state as properties. Who calls is what the bus
says. A method is one call on the engine, which decides; what is told to everybody is no more than that there is a
transaction and where it is, everything else goes to those who watch it.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from glixd import api
from glixd.api import Caller
from glixd.backends.bus import Bus, BusError, Message, MessageFlag, Variant
from glixd.errors import Cancelled, GlixError, InvalidRequest
from glixd.frontends import introspection
from glixd.frontends.bus_client import BusClient
from glixd.frontends.bus_values import empty, encoded, plain, variant
from glixd.frontends.introspection import INTROSPECTABLE, OBJECT_MANAGER, PEER, PROPERTIES, STANDARD, Property
from glixd.frontends.limits import BusLimits
from glixd.frontends.wire import explained, login
from glixd.protocol import (
    BUS_NAME,
    COMMIT,
    ERROR_PREFIX,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_INTERFACE,
    TRANSACTION_PATH,
    VERSION,
    ErrorCode,
    State,
)

if TYPE_CHECKING:
    from glixd.engine import Engine

log = structlog.get_logger()

_MANAGER_VALUES: Final = {"version": VERSION, "commit": COMMIT}
_ON_REQUEST: Final = ("log", "outcome")
"""Properties that GetManagedObjects leaves out for their size."""

Reply = tuple[str, list[object]]


class StandardError(InvalidRequest):
    """An error that the D-Bus specification has a name for; its code is for the log alone."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = f"{STANDARD}Error.{name}"


@dataclass(frozen=True, slots=True)
class _Call:
    """A method call and where it came from."""

    message: Message
    caller: Caller
    client: BusClient
    transaction: str | None
    """The transaction whose object was called; None for the manager and the paths above it."""


Method = Callable[[_Call], Awaitable[Reply]]


class DBusFrontend:
    """Serves one bus from `start` to `stop`; the name is requested when everything else is ready. An Observer of the engine."""

    def __init__(self, engine: Engine, bus: Bus, limits: BusLimits | None = None) -> None:
        self._engine = engine
        self._bus = bus
        self._limits = limits or BusLimits()
        self._clients: dict[str, BusClient] = {}
        self._under_way = 0
        self._connections: Counter[int] = Counter()
        self._per_uid: Counter[int] = Counter()
        self._held: dict[int, dict[BusClient, None]] = {}
        """By uid: connections whose calls wait because the uid has too many under way."""
        self._waiting_bytes: Counter[int | None] = Counter()
        """By uid, and under None those of callers that the bus has yet to introduce."""
        self._idle = asyncio.Event()
        self._idle.set()
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
        return self._under_way

    async def start(self) -> None:
        """Serve whoever calls from now on."""
        self._bus.handler = self._handle
        self._bus.on_vanished(self._vanished)
        self._engine.observe(self)

    async def stop(self, grace: float = 5.0) -> None:
        """Give the name back and answer what is under way; after `grace` seconds say to the rest that the daemon stops."""
        try:
            await self._bus.release_name(BUS_NAME)
        except BusError as error:
            log.debug("the bus is gone already", error=error.message)
        self._bus.handler = None
        if not await self._idle_within(grace):
            for client in self._clients.values():
                client.interrupt()
            await self._idle_within(1.0)
        self._stopped = True
        for name in tuple(self._clients):
            self._vanished(name)

    async def _idle_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

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

    def _broadcast(self, path: str, interface: str, member: str, signature: str, body: Sequence[object]) -> None:
        if not self._stopped and not self._bus.lost.done():
            self._bus.signal(path, interface, member, signature, body)

    # -- calls -----------------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        """Take a call in, unless its caller has too many connections or too many of its calls wait already."""
        client = self._clients.get(message.sender) or self._welcome(message.sender)
        size = self._bus.size
        if client.caller is not None and not self._admit(client, client.caller):
            self._refuse(message, self._too_many_connections(client.caller))
        elif not self._has_room(client, size):
            self._refuse(message, self._too_many_calls())
        else:
            client.waiting.append((message, size))
            self._account(client, size)
            self._count(1)
            self._advance(client)

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

    def _welcome(self, name: str) -> BusClient:
        client = self._clients[name] = BusClient(self._bus, name)
        client.introduction = asyncio.get_running_loop().create_task(self._introduce(client))
        return client

    async def _introduce(self, client: BusClient) -> None:
        """Learn from the bus who a connection is; its calls wait for that."""
        try:
            uid = await self._bus.uid(client.name)
        except BusError as error:
            log.debug("the caller is gone", sender=client.name, error=error.name)
            self._vanished(client.name)
            return
        if client.name not in self._clients:
            return
        caller = Caller(uid=uid, login=login(uid), address=client.name)
        size = client.waiting_bytes
        self._account(client, -size)
        client.caller = caller
        self._account(client, size)
        if self._admit(client, caller):
            self._advance(client)
            return
        log.warning("connection refused", uid=uid, sender=client.name)
        while client.waiting:
            self._refuse(self._next(client), self._too_many_connections(caller))
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

    def _dismiss(self, client: BusClient) -> None:
        """Make room for another connection of the uid."""
        if client.admitted and client.caller:
            self._connections[client.caller.uid] -= 1
            if not self._connections[client.caller.uid]:
                del self._connections[client.caller.uid]
            self._engine.detach(client)

    def _advance(self, client: BusClient) -> None:
        """Start the calls that wait, as many as may run of the connection and of its uid."""
        caller = client.caller
        while caller is not None and client.waiting and len(client.calls) < self._limits.under_way:
            if self._per_uid[caller.uid] >= self._limits.under_way_per_uid:
                self._held.setdefault(caller.uid, {})[client] = None
                return
            message = self._next(client)
            self._per_uid[caller.uid] += 1
            task = asyncio.get_running_loop().create_task(self._serve(message, caller, client))
            client.calls[task] = message.interface == MANAGER_INTERFACE and _is_mutation(message.member)
            task.add_done_callback(functools.partial(self._done, client, caller.uid))

    def _next(self, client: BusClient) -> Message:
        message, size = client.waiting.popleft()
        self._account(client, -size)
        return message

    def _done(self, client: BusClient, uid: int, task: asyncio.Task[None]) -> None:
        del client.calls[task]
        self._per_uid[uid] -= 1
        self._count(-1)
        self._advance(client)
        self._advance_held(uid)
        if not self._per_uid[uid]:
            del self._per_uid[uid]

    def _advance_held(self, uid: int) -> None:
        """Connections of one uid take turns when it has too many calls under way."""
        held = self._held.get(uid, {})
        while held and self._per_uid[uid] < self._limits.under_way_per_uid:
            client = next(iter(held))
            del held[client]
            self._advance(client)
        if not held:
            self._held.pop(uid, None)

    def _count(self, change: int) -> None:
        self._under_way += change
        if self._under_way:
            self._idle.clear()
        else:
            self._idle.set()

    async def _serve(self, message: Message, caller: Caller, client: BusClient) -> None:
        try:
            signature, body = await self._dispatch(message, caller, client)
            self._bus.answer(message, signature, body)
        except asyncio.CancelledError:
            self._refuse(message, _stopping(message.member))
        except Exception as error:  # noqa: BLE001 — the door: what is not for callers is logged and named Internal
            self._refuse(message, explained(error, message.member))

    def _refuse(self, message: Message, error: GlixError) -> None:
        if self._bus.lost.done():
            return
        if isinstance(error, StandardError):
            self._bus.refuse(message, error.name, error.message)
        else:
            facts = {"hint": variant(error.hint), "details": variant(error.details)}
            self._bus.refuse(message, ERROR_PREFIX + error.code, error.message, ("a{sv}", facts))

    def _vanished(self, name: str) -> None:
        """Forget a connection that left: nobody is told its progress or waits for it, its transactions go on."""
        if client := self._clients.pop(name, None):
            while client.waiting:
                self._next(client)
                self._count(-1)
            client.leave()
            self._dismiss(client)

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

    async def _dispatch(self, message: Message, caller: Caller, client: BusClient) -> Reply:
        interfaces, transaction = _object(message.path)
        call = _Call(message, caller, client, transaction)
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

    async def _operate(self, call: _Call) -> Reply:
        message = call.message
        row = api.OPERATIONS.get(message.member)
        if row is None:
            raise StandardError("UnknownMethod", f"{MANAGER_INTERFACE} has no method {message.member}.")
        taken = introspection.in_arguments(row)
        if message.signature != "".join(signature for _, signature in taken):
            raise _wrong_arguments(row, taken, message.signature)
        *typed, options = message.body
        names = [name for name, _ in taken[:-1]]
        arguments = {**_options(options, names), **dict(zip(names, map(plain, typed), strict=True))}
        result = await self._run(call, row, arguments)
        if isinstance(result, api.Started):
            return "o", [_path(result.transaction)]
        return "a{sv}", [encoded(result)]

    async def _cancel(self, call: _Call) -> Reply:
        options = _options(call.message.body[0], ["transaction"])
        await self._run(call, api.operation("Cancel"), {**options, "transaction": call.transaction})
        return "", []

    async def _run(self, call: _Call, row: api.Operation, arguments: dict[str, object]) -> api.Value:
        may_ask = bool(call.message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
        if may_ask and "interactive" in row.parameters.model_fields:
            arguments.setdefault("interactive", True)
        return await self._engine.call(row, api.parse(row, arguments), call.caller, call.client)

    async def _transaction(self, call: _Call) -> api.Transaction:
        found = await self._run(call, api.operation("GetTransaction"), {"transaction": call.transaction})
        assert isinstance(found, api.Transaction)  # noqa: S101 — the table says so
        return found

    # -- the standard interfaces -----------------------------------------------------------------------------------

    async def _introspect(self, call: _Call) -> Reply:
        path = call.message.path
        if call.transaction is not None:
            return "s", [introspection.transaction()]
        if path == OBJECT_PATH:
            return "s", [introspection.manager()]
        if path == TRANSACTION_PATH:
            return "s", [introspection.folder(found.id for found in self._engine.visible(call.caller))]
        below = OBJECT_PATH.removeprefix(path).lstrip("/")
        return "s", [introspection.folder([below.split("/")[0]])]

    async def _get(self, call: _Call) -> Reply:
        interface, name = call.message.body
        declared = self._declared(call, interface)
        wanted = next((one for one in declared if one.name == name), None)
        if wanted is None:
            raise StandardError("UnknownProperty", f"There is no property {name}.")
        return "v", [(await self._values(call, (wanted,)))[name]]

    async def _get_all(self, call: _Call) -> Reply:
        return "a{sv}", [await self._values(call, self._declared(call, call.message.body[0]))]

    async def _set(self, call: _Call) -> Reply:
        interface, name, _ = call.message.body
        if any(one.name == name for one in self._declared(call, interface)):
            raise StandardError("PropertyReadOnly", f"The property {name} can't be set.")
        raise StandardError("UnknownProperty", f"There is no property {name}.")

    def _declared(self, call: _Call, interface: str) -> tuple[Property, ...]:
        """The properties of an interface of the object; of all of them when none is named."""
        interfaces, _ = _object(call.message.path)
        if interface and interface not in interfaces:
            raise StandardError("UnknownInterface", f"{call.message.path} has no interface {interface}.")
        if call.transaction is None:
            return introspection.MANAGER_PROPERTIES if interface in ("", MANAGER_INTERFACE) else ()
        return introspection.TRANSACTION_PROPERTIES if interface in ("", TRANSACTION_INTERFACE) else ()

    async def _values(self, call: _Call, declared: Sequence[Property]) -> dict[str, Variant]:
        if not declared:
            return {}
        if call.transaction is None:
            return {one.name: Variant("s", _MANAGER_VALUES[one.field]) for one in declared}
        return _properties(await self._transaction(call), declared)

    async def _managed_objects(self, call: _Call) -> Reply:
        declared = [one for one in introspection.TRANSACTION_PROPERTIES if one.field not in _ON_REQUEST]
        objects = {
            _path(found.id): {TRANSACTION_INTERFACE: _properties(found, declared)}
            for found in self._engine.visible(call.caller)
        }
        return "a{oa{sa{sv}}}", [objects]


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


def _wrong_arguments(row: api.Operation, taken: Sequence[tuple[str, str]], given: str) -> InvalidRequest:
    expected = ", ".join(f"{signature} {name}" for name, signature in taken)
    signature = "".join(signature for _, signature in taken)
    return InvalidRequest(
        f"{row.name} takes ({expected}); the signature is {signature}, and was {given or 'empty'}.",
        hint="Every optional parameter goes into the options, which may be empty.",
        details={"argument": "signature", "expected": signature, "given": given},
    )


def _is_mutation(member: str) -> bool:
    row = api.OPERATIONS.get(member)
    return row is not None and row.kind is api.Kind.MUTATION


def _stopping(operation: str) -> Cancelled:
    return Cancelled(
        f"The daemon stopped before {operation} had an answer.", code=ErrorCode.INTERRUPTED, hint="Ask again."
    )


async def _ping(_: _Call) -> Reply:
    return "", []


async def _machine_id(_: _Call) -> Reply:
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
