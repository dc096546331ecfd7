# SPDX-License-Identifier: GPL-3.0-or-later
"""The D-Bus front-end on a real bus, seen by clients of our own and by foreign ones."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

import pytest

from glixd import api
from glixd.backends.bus import Bus, BusError, Message, MessageFlag, Variant
from glixd.frontends import bus_values
from glixd.frontends.bus_values import variant
from glixd.frontends.dbus import DBusFrontend
from glixd.frontends.limits import BusLimits
from glixd.protocol import (
    BUS_NAME,
    COMMIT,
    ERROR_PREFIX,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_INTERFACE,
    TRANSACTION_PATH,
    VERSION,
    State,
)
from tests.support.fake_engine import FakeEngine
from tests.support.loop import PATIENCE, on_loop, until
from tests.support.private_bus import private_bus

if TYPE_CHECKING:
    from glixd.engine import Engine

STANDARD = "org.freedesktop.DBus."
PROPERTIES = STANDARD + "Properties"
INTROSPECTABLE = STANDARD + "Introspectable"
OBJECT_MANAGER = STANDARD + "ObjectManager"
UNKNOWN = "01jzzzzzzzzzzzzzzzzzzzzzzz"


def plain(value: object) -> Any:
    """What came from the bus, to look into."""
    return bus_values.plain(value)


@dataclass
class Peer:
    """A client of the daemon with everything that it heard."""

    bus: Bus
    heard: list[tuple[str, str, list[Any]]] = field(default_factory=list)

    async def call(
        self,
        member: str,
        signature: str = "a{sv}",
        *body: Any,
        interface: str | None = MANAGER_INTERFACE,
        path: str = OBJECT_PATH,
        flags: MessageFlag = MessageFlag.NONE,
    ) -> Any:
        message = Message(
            destination=BUS_NAME,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body) if body or not signature else [{}],
            flags=flags,
        )
        reply = await self.bus.call(message, PATIENCE)
        return reply.body[0] if reply.body else None

    async def add(self, **options: Any) -> str:
        """Start a transaction and give its path."""
        return str(await self.call("Add", "asa{sv}", ["firefox"], {key: variant(one) for key, one in options.items()}))

    async def listen(self) -> None:
        for interface, member in (
            (TRANSACTION_INTERFACE, "Progress"),
            (MANAGER_INTERFACE, "Changed"),
            (PROPERTIES, "PropertiesChanged"),
            (OBJECT_MANAGER, "InterfacesAdded"),
            (OBJECT_MANAGER, "InterfacesRemoved"),
        ):
            await self.bus.subscribe(interface, member, self._hear)

    def _hear(self, message: Message) -> None:
        self.heard.append((message.member, message.path, [plain(value) for value in message.body]))


@dataclass
class World:
    """A bus with the front-end on it."""

    address: str
    engine: FakeEngine
    frontend: DBusFrontend
    bus: Bus

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        bus = await Bus.connect(self.address)
        try:
            yield Peer(bus)
        finally:
            await bus.close()


@asynccontextmanager
async def world(
    folder: Path, engine: FakeEngine | None = None, limits: BusLimits | None = None
) -> AsyncIterator[World]:
    engine = engine or FakeEngine()
    with private_bus(folder) as address:
        bus = await Bus.connect(address)
        frontend = DBusFrontend(cast("Engine", engine), bus, limits)
        await frontend.start()
        await bus.request_name(BUS_NAME)
        try:
            yield World(address, engine, frontend, bus)
        finally:
            await frontend.stop(grace=0.05)
            await bus.close()


@contextmanager
def refused(name: str) -> Iterator[pytest.ExceptionInfo[BusError]]:
    """Expect an error of that name on the bus."""
    with pytest.raises(BusError) as caught:
        yield caught
    assert caught.value.name == name


@on_loop
async def test_a_query_answers_a_dictionary_and_the_caller_is_who_the_bus_says(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        assert plain(await peer.call("Ping")) == {"version": "1", "commit": "c0ffee"}
        [(_, _, caller)] = it.engine.calls
        assert (caller.uid, caller.login) == (os.getuid(), pwd.getpwuid(os.getuid()).pw_name)
        assert caller.address == peer.bus.unique_name


@on_loop
async def test_models_nest_and_what_is_none_is_absent(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        hosts = await peer.call("ListHosts")
        assert hosts["hosts"].signature == "aa{sv}"
        assert plain(hosts) == {
            "hosts": [
                {"name": "laptop", "packages": 3, "enabled": 2, "health": {"state": "ok", "commit": "c0ffee"}},
            ]
        }
        shown = await peer.call("Show", "sa{sv}", "firefox", {})
        assert shown["config"] == Variant("a{ss}", {"theme": "dark"})


@on_loop
async def test_a_mutation_answers_the_path_of_its_transaction(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        path = await peer.add(scope="home", dry_run=True)
        [transaction] = it.engine.transactions
        assert path == f"{TRANSACTION_PATH}/{transaction}"
        [(_, parameters, _)] = it.engine.calls
        assert isinstance(parameters, api.AddParameters)
        assert (parameters.refs, parameters.scope, parameters.dry_run) == (("firefox",), api.Scope.HOME, True)


@on_loop
async def test_the_flag_of_the_message_says_whether_the_caller_may_be_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        allow = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
        for flags, options in ((MessageFlag.NONE, {}), (allow, {}), (allow, {"interactive": Variant("b", False)})):
            await peer.call("Add", "asa{sv}", ["firefox"], options, flags=flags)
        asked = [cast("api.AddParameters", parameters).interactive for _, parameters, _ in it.engine.calls]
        assert asked == [False, True, False]


@on_loop
async def test_an_error_has_our_name_a_sentence_a_hint_and_details(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        bodies: list[Any] = []
        answered = peer.bus._answered

        def noted(message: Message) -> None:
            bodies.append(plain(message.body))
            answered(message)

        peer.bus._answered = noted  # type: ignore[method-assign]
        with refused(ERROR_PREFIX + "NotInstalled"):
            await peer.call("Show", "sa{sv}", "emacs", {})
        details = {"name": "emacs", "closest": ["firefox"], "count": 1, "certain": False}
        assert bodies == [["emacs is not installed.", {"hint": "List shows what is.", "details": details}]]


@on_loop
async def test_a_defect_is_internal_and_tells_nothing_of_itself(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        with refused(ERROR_PREFIX + "Internal") as defect:
            await peer.call("Show", "sa{sv}", "defect", {})
        assert "secret" not in defect.value.message
        assert plain(await peer.call("Ping"))


@pytest.mark.parametrize(
    ("member", "signature", "body", "error"),
    [
        ("Show", "a{sv}", [{}], "InvalidArgument"),
        ("Show", "s", ["firefox"], "InvalidArgument"),
        ("Show", "asa{sv}", [["firefox"], {}], "InvalidArgument"),
        ("Show", "sa{sv}", ["a b", {}], "InvalidArgument"),
        ("Show", "sa{sv}", ["firefox", {"colour": Variant("s", "red")}], "InvalidArgument"),
        ("Show", "sa{sv}", ["firefox", {"name": Variant("s", "emacs")}], "InvalidArgument"),
        ("Show", "sa{sv}", ["firefox", {"host": Variant("i", 1)}], "InvalidArgument"),
        ("Add", "asa{sv}", [[], {}], "InvalidArgument"),
        ("Ping", "", [], "InvalidArgument"),
        ("List", "a{sv}", [{"limit": Variant("x", 0)}], "InvalidArgument"),
        ("Doze", "a{sv}", [{}], f"{STANDARD}Error.UnknownMethod"),
    ],
)
@on_loop
async def test_bad_arguments_are_refused_by_name(
    tmp_path: Path, member: str, signature: str, body: list[Any], error: str
) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        with refused(error if "." in error else ERROR_PREFIX + error):
            await peer.call(member, signature, *body)
        assert it.engine.calls == []


@on_loop
async def test_a_wrong_signature_is_told_the_right_one(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        with refused(ERROR_PREFIX + "InvalidArgument") as wrong:
            await peer.call("Add", "s", "firefox")
        assert "as refs, a{sv} options" in wrong.value.message


@pytest.mark.parametrize(
    ("path", "interface", "member", "error"),
    [
        ("/nowhere", MANAGER_INTERFACE, "Ping", "UnknownObject"),
        (f"{TRANSACTION_PATH}/short", TRANSACTION_INTERFACE, "Cancel", "UnknownObject"),
        ("/nowhere", None, "Ping2", "UnknownObject"),
        (OBJECT_PATH, "org.example.Other", "Ping", "UnknownInterface"),
        ("/", MANAGER_INTERFACE, "Ping", "UnknownInterface"),
        (OBJECT_PATH, PROPERTIES, "Take", "UnknownMethod"),
        (OBJECT_PATH, None, "Take", "UnknownMethod"),
        (OBJECT_PATH, PROPERTIES, "GetAll", "InvalidArgs"),
    ],
)
@on_loop
async def test_the_standard_errors_have_their_standard_names(
    tmp_path: Path, path: str, interface: str | None, member: str, error: str
) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        with refused(f"{STANDARD}Error.{error}"):
            await peer.call(member, path=path, interface=interface)


@on_loop
async def test_a_method_is_found_without_its_interface(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        assert plain(await peer.call("ListHosts", interface=None))
        assert "<node>" in await peer.call("Introspect", "", interface=None)


@on_loop
async def test_the_properties_of_the_manager_can_be_read_and_not_set(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:

        async def properties(member: str, signature: str, *body: Any) -> Any:
            return plain(await peer.call(member, signature, *body, interface=PROPERTIES))

        assert await properties("Get", "ss", MANAGER_INTERFACE, "Version") == VERSION
        everything = {"Version": VERSION, "Commit": COMMIT}
        assert await properties("GetAll", "s", MANAGER_INTERFACE) == everything
        assert await properties("GetAll", "s", "") == everything
        assert await properties("GetAll", "s", PROPERTIES) == {}
        with refused(f"{STANDARD}Error.UnknownProperty"):
            await properties("Get", "ss", MANAGER_INTERFACE, "Colour")
        with refused(f"{STANDARD}Error.UnknownInterface"):
            await properties("GetAll", "s", "org.example.Other")
        with refused(f"{STANDARD}Error.PropertyReadOnly"):
            await properties("Set", "ssv", MANAGER_INTERFACE, "Version", Variant("s", "9"))
        with refused(f"{STANDARD}Error.UnknownProperty"):
            await properties("Set", "ssv", MANAGER_INTERFACE, "Colour", Variant("s", "9"))


@on_loop
async def test_the_properties_of_a_transaction_come_from_the_engine_and_are_empty_while_absent(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        path = await peer.add()
        got = plain(await peer.call("GetAll", "s", TRANSACTION_INTERFACE, path=path, interface=PROPERTIES))
        assert (got["State"], got["Host"], got["DryRun"], got["Uid"]) == ("queued", "laptop", False, os.getuid())
        assert (got["Commit"], got["Error"], got["Log"]) == ("", {}, [])
        assert [name for name, _, _ in it.engine.calls] == ["Add", "GetTransaction"]
        unknown = f"{TRANSACTION_PATH}/{UNKNOWN}"
        with refused(ERROR_PREFIX + "UnknownTransaction"):
            await peer.call("Get", "ss", TRANSACTION_INTERFACE, "State", path=unknown, interface=PROPERTIES)


@on_loop
async def test_cancel_of_a_transaction_is_the_operation_of_that_name(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        path = await peer.add()
        with refused(ERROR_PREFIX + "UnsupportedHere"):
            await peer.call("Cancel", path=path, interface=TRANSACTION_INTERFACE)
        name, parameters, _ = it.engine.calls[-1]
        assert (name, parameters) == ("Cancel", api.TransactionParameters(transaction=path.rpartition("/")[2]))


@on_loop
async def test_managed_objects_and_children_are_those_the_engine_shows_the_caller(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        path = await peer.add()
        it.engine.transactions[UNKNOWN] = it.engine.transactions[path.rpartition("/")[2]].model_copy(
            update={"id": UNKNOWN, "uid": 4711}
        )
        objects = plain(await peer.call("GetManagedObjects", "", interface=OBJECT_MANAGER))
        assert list(objects) == [path]
        assert objects[path][TRANSACTION_INTERFACE]["State"] == "queued"
        children = ElementTree.fromstring(
            await peer.call("Introspect", "", path=TRANSACTION_PATH, interface=INTROSPECTABLE)
        )
        assert [node.get("name") for node in children.iter("node")][1:] == [path.rpartition("/")[2]]


@on_loop
async def test_everybody_hears_of_states_and_only_the_watcher_hears_progress(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as owner, it.peer() as other:
        await owner.listen()
        await other.listen()
        path = await owner.add()
        transaction = path.rpartition("/")[2]
        it.engine.move(transaction, State.RUNNING)
        it.engine.change("laptop")
        it.engine.forget(transaction)
        known = {TRANSACTION_INTERFACE: {"Id": transaction, "State": "queued"}}
        broadcast = [
            ("InterfacesAdded", OBJECT_PATH, [path, known]),
            ("PropertiesChanged", path, [TRANSACTION_INTERFACE, {"State": "running"}, []]),
            ("Changed", OBJECT_PATH, ["laptop"]),
            ("InterfacesRemoved", OBJECT_PATH, [path, [TRANSACTION_INTERFACE]]),
        ]
        event = {"transaction": transaction, "state": "running", "percent": 50.0, "lines": ["a line"]}
        await until(lambda: len(owner.heard) == 5 and len(other.heard) == 4)
        assert other.heard == broadcast
        assert owner.heard == [broadcast[0], ("Progress", path, [event]), *broadcast[1:]]


@on_loop
async def test_a_wait_holds_up_nothing_and_ends_with_the_transaction(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        transaction = (await peer.add()).rpartition("/")[2]
        waiting = asyncio.create_task(peer.call("Wait", "sa{sv}", transaction, {}))
        await until(lambda: it.engine.pending_waits == 1)
        await peer.call("Ping")
        it.engine.move(transaction, State.SUCCEEDED)
        assert plain(await waiting)["state"] == "succeeded"


@on_loop
async def test_a_connection_that_leaves_is_detached_and_its_transaction_stays(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        async with it.peer() as peer:
            transaction = (await peer.add()).rpartition("/")[2]
            waiting = asyncio.create_task(peer.call("Wait", "sa{sv}", transaction, {}))
            await until(lambda: it.engine.pending_waits == 1)
        with refused(f"{STANDARD}Error.Disconnected"):
            await waiting
        await until(lambda: it.engine.pending_waits == 0 and it.frontend.calls == 0)
        assert it.engine.clients == []
        assert it.engine.watchers == {transaction: []}
        assert transaction in it.engine.transactions


@on_loop
async def test_a_caller_that_wants_no_answer_gets_none_and_is_served(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        for member in ("Ping", "Doze"):
            message = Message(
                destination=BUS_NAME,
                path=OBJECT_PATH,
                interface=MANAGER_INTERFACE,
                member=member,
                signature="a{sv}",
                body=[{}],
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
            answers: list[Message] = []
            peer.bus._answered = answers.append  # type: ignore[method-assign, assignment]
            peer.bus.send(message)
            del peer.bus._answered
        await peer.call("ListHosts")
        assert answers == []
        assert [name for name, _, _ in it.engine.calls] == ["Ping", "ListHosts"]


@on_loop
async def test_calls_of_one_connection_wait_and_then_are_refused_and_others_are_served(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer, it.peer() as other:
        transaction = (await peer.add()).rpartition("/")[2]
        waits = [asyncio.create_task(peer.call("Wait", "sa{sv}", transaction, {})) for _ in range(64 + 256)]
        await until(lambda: it.frontend.calls == 64 + 256 and it.engine.pending_waits == 64)
        with refused(ERROR_PREFIX + "LimitExceeded"):
            await peer.call("Ping")
        assert await other.call("Ping")
        it.engine.move(transaction, State.SUCCEEDED)
        assert len(await asyncio.gather(*waits)) == 64 + 256


@on_loop
async def test_bytes_that_wait_are_limited_too_and_leave_with_their_connection(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        async with it.peer() as peer:
            transaction = (await peer.add()).rpartition("/")[2]
            calls = [asyncio.create_task(peer.call("Wait", "sa{sv}", transaction, {})) for _ in range(64)]
            large = {"reason": Variant("s", "x" * 200_000)}
            calls += [asyncio.create_task(peer.call("Add", "asa{sv}", ["firefox"], large)) for _ in range(2)]
            await until(lambda: it.frontend.calls == 66)
            with refused(ERROR_PREFIX + "LimitExceeded"):
                await peer.call("Add", "asa{sv}", ["firefox"], large)
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: it.frontend.calls == 0)
        assert it.frontend._crowd.waiting_bytes == 0


@on_loop
async def test_bytes_that_wait_are_limited_by_uid_so_that_one_leaves_room_for_others(tmp_path: Path) -> None:
    limits = BusLimits(under_way=1, waiting_bytes_per_uid=300_000)
    async with world(tmp_path, limits=limits) as it, it.peer() as first, it.peer() as second:
        transaction = (await first.add()).rpartition("/")[2]
        await second.call("Ping")
        large = {"reason": Variant("s", "x" * 200_000)}
        calls = []
        for peer in (first, second):
            calls.append(asyncio.create_task(peer.call("Wait", "sa{sv}", transaction, {})))
            await until(lambda: it.engine.pending_waits == len(calls))
        waiting = asyncio.create_task(first.call("Add", "asa{sv}", ["firefox"], large))
        await until(lambda: it.frontend.calls == 3)
        with refused(ERROR_PREFIX + "LimitExceeded"):
            await second.call("Add", "asa{sv}", ["firefox"], large)
        it.engine.move(transaction, State.SUCCEEDED)
        await asyncio.gather(*calls, waiting, return_exceptions=True)
        assert it.frontend._crowd.waiting_bytes == 0


@on_loop
async def test_connections_of_one_uid_are_limited_and_one_that_leaves_makes_room(tmp_path: Path) -> None:
    async with world(tmp_path, limits=BusLimits(connections_per_uid=2)) as it, it.peer() as first, it.peer() as third:
        async with it.peer() as second:
            assert await first.call("Ping")
            assert await second.call("Ping")
            for _ in range(2):
                with refused(ERROR_PREFIX + "LimitExceeded"):
                    await third.call("Ping")
            assert len(it.engine.clients) == 2
        await until(lambda: len(it.engine.clients) == 1)
        assert await third.call("Ping")


@on_loop
async def test_all_that_a_refused_connection_sent_at_once_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, limits=BusLimits(connections_per_uid=1)) as it, it.peer() as first, it.peer() as other:
        await first.call("Ping")
        answers = await asyncio.gather(*(other.call("Ping") for _ in range(50)), return_exceptions=True)
        assert {getattr(answer, "name", "") for answer in answers} == {ERROR_PREFIX + "LimitExceeded"}
        assert it.frontend.calls == 0
        assert it.frontend._crowd.waiting_bytes == 0


@on_loop
async def test_a_flood_of_connections_is_answered_completely(tmp_path: Path) -> None:
    async def pipeline(it: World) -> int:
        async with it.peer() as peer:
            return len(await asyncio.gather(*(peer.call("Ping") for _ in range(100))))

    async with world(tmp_path) as it:
        assert await asyncio.gather(*(pipeline(it) for _ in range(20))) == [100] * 20
        assert not it.bus.lost.done()


@on_loop
async def test_stopping_tells_those_that_still_wait_and_gives_the_name_back(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        transaction = (await peer.add()).rpartition("/")[2]
        waiting = asyncio.create_task(peer.call("Wait", "sa{sv}", transaction, {}))
        await until(lambda: it.engine.pending_waits == 1)
        await it.frontend.stop(grace=0.01)
        with refused(ERROR_PREFIX + "Interrupted"):
            await waiting
        await peer.bus.request_name(BUS_NAME)


@on_loop
async def test_a_lost_bus_disturbs_nobody_who_has_something_to_tell(tmp_path: Path) -> None:
    async with world(tmp_path) as it, it.peer() as peer:
        transaction = (await peer.add()).rpartition("/")[2]
        await it.bus.close()
        it.engine.move(transaction, State.RUNNING)
        it.engine.change("laptop")
        assert it.engine.refused_events == []


@on_loop
async def test_foreign_clients_can_call_and_introspect(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        path = await _started(it)
        ping = await _foreign(it, "busctl", "call", BUS_NAME, OBJECT_PATH, MANAGER_INTERFACE, "Ping", "a{sv}", "0")
        assert ping == 'a{sv} 2 "version" s "1" "commit" s "c0ffee"\n'
        for place in (OBJECT_PATH, path):
            shown = await _foreign(it, "busctl", "introspect", BUS_NAME, place)
            assert ".GetManagedObjects" in shown or ".Cancel" in shown
        tree = await _foreign(it, "busctl", "--list", "tree", BUS_NAME)
        assert tree.split() == ["/", "/org", "/org/glixos", OBJECT_PATH, TRANSACTION_PATH, path]
        tree = await _foreign(it, "gdbus", "introspect", "--recurse", "--dest", BUS_NAME, "--object-path", "/")
        assert f"interface {MANAGER_INTERFACE}" in tree
        assert f"interface {TRANSACTION_INTERFACE}" in tree


async def _started(it: World) -> str:
    async with it.peer() as peer:
        return await peer.add()


async def _foreign(it: World, program: str, *arguments: str) -> str:
    bus = [f"--address={it.address}"] if program == "busctl" else []
    if program == "gdbus":
        arguments = (arguments[0], "--address", it.address, *arguments[1:])
    process = await asyncio.create_subprocess_exec(
        program, *bus, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, output.decode()
    return output.decode()
