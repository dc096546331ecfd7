# SPDX-License-Identifier: GPL-3.0-or-later
"""The same call over D-Bus (busctl), JSON-RPC (a script of ten lines) and glixctl: one transaction, one error, one history."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin
from xml.etree import ElementTree

import pytest

from glixd import api
from glixd.api import Kind
from glixd.backends.bus import Bus, Message
from glixd.frontends import bus_values
from glixd.protocol import (
    BUS_NAME,
    ERRORS,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_INTERFACE,
    TRANSACTION_PATH,
    ErrorCode,
    Exit,
)
from tests.support.daemon import Answer, RpcError, RunningDaemon, Site, Template, new_site
from tests.support.loop import PATIENCE, on_loop, until
from tests.support.private_bus import private_bus

pytestmark = [pytest.mark.integration, pytest.mark.nix]

SCRIPT: Final = """\
import json, socket, sys
path, method, parameters = sys.argv[1:]
stream = socket.socket(socket.AF_UNIX)
stream.connect(path)
stream.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": json.loads(parameters)}).encode() + b"\\n")
for line in stream.makefile():
    answer = json.loads(line)
    if answer.get("id") == 1:
        print(json.dumps(answer))
        break
"""


@dataclass(frozen=True)
class Case:
    """One call: as an operation with its parameters, and as a command line."""

    operation: str
    parameters: Answer
    words: tuple[str, ...]
    status: int = Exit.DONE
    error: ErrorCode | None = None


CASES: Final = (
    Case("Add", {"refs": ["firefox"]}, ("add", "firefox")),
    Case("Add", {"refs": ["firefox"]}, ("add", "firefox"), Exit.REFUSED, ErrorCode.ALREADY_INSTALLED),
    Case("Add", {"refs": ["fierfox"]}, ("add", "fierfox"), Exit.NOT_FOUND, ErrorCode.UNKNOWN_PACKAGE),
    Case("Add", {"refs": ["path:./x"]}, ("add", "path:./x"), Exit.REFUSED, ErrorCode.BAD_REFERENCE),
    Case("Add", {"refs": ["hello", "git"], "dry_run": True}, ("add", "--dry-run", "hello", "git")),
    Case(
        "Add",
        {"refs": ["git"], "host": "nowhere"},
        ("add", "git", "--host=nowhere"),
        Exit.NOT_FOUND,
        ErrorCode.UNKNOWN_HOST,
    ),
    Case(
        "Add",
        {"refs": ["ripgrep"], "scope": "home", "user": "alice", "reason": "To search", "evaluate": False},
        ("add", "ripgrep", "--scope=home", "--user=alice", "--reason", "To search", "--no-evaluate"),
    ),
    Case("Disable", {"names": ["firefox"]}, ("disable", "firefox")),
    Case("Disable", {"names": ["firefox"]}, ("disable", "firefox"), Exit.NOTHING_TO_DO),
    Case("Enable", {"names": ["firefox", "ripgrep"]}, ("enable", "firefox", "ripgrep")),
    Case("Set", {"name": "ripgrep", "changes": {"config.theme": "dark"}}, ("set", "ripgrep", "config.theme=dark")),
    Case(
        "SetHost",
        {"host": "laptop", "changes": {"state_version": "24.11"}},
        ("host", "set", "laptop", "state_version=24.11"),
    ),
    Case("Remove", {"names": ["firefocks"]}, ("remove", "firefocks"), Exit.NOT_FOUND, ErrorCode.NOT_INSTALLED),
    Case("Remove", {"names": ["firefox"]}, ("remove", "firefox")),
    Case(
        "Init",
        {"host": "pi", "user": "bob", "system": "aarch64-linux"},
        ("init", "--host=pi", "--user=bob", "--system=aarch64-linux"),
    ),
    Case("Regenerate", {}, ("regen",), Exit.NOTHING_TO_DO),
)

MALFORMED: Final = (
    ("Add", {"refs": ["a\x1bb"]}, ("add", "a\x1bb")),
    ("Remove", {"names": ["a b"]}, ("remove", "a b")),
    ("Disable", {"names": ["firefox"], "host": "../.."}, ("disable", "firefox", "--host", "../..")),
    ("Show", {"name": "-"}, ("show", "-")),
    ("GetTransaction", {"transaction": "x"}, ("transaction", "show", "x")),
    ("GetTransaction", {"transaction": "0" * 26}, ("transaction", "show", "0" * 26)),
    ("Show", {"name": "emacs"}, ("show", "emacs")),
    ("List", {"host": "nowhere"}, ("list", "--host", "nowhere")),
)
"""What is refused at once, with no transaction."""


class Refused(Exception):
    """busctl was answered with an error; the message is what it printed."""


@dataclass
class World:
    """A home with a daemon on a bus of its own."""

    site: Site
    daemon: RunningDaemon
    address: str
    transaction: str = ""
    """A transaction that has ended."""

    def by_script(self, operation: str, parameters: Answer) -> Any:
        """JSON-RPC, by the script."""
        words = [sys.executable, "-c", SCRIPT, os.fspath(self.site.socket), operation, json.dumps(parameters)]
        answer = json.loads(self.execute(words).stdout)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def by_busctl(self, operation: str, parameters: Answer) -> Any:
        """D-Bus, by busctl."""
        return _decoded(*self.busctl(operation, parameters))

    def busctl(self, operation: str, parameters: Answer) -> tuple[str, Any]:
        """The signature and the undecoded result of a call."""
        names = api.required(api.operation(operation).parameters)
        given = {name: bus_values.variant(value) for name, value in parameters.items()}
        words = [word for name in names for word in _words(given[name].signature, given[name].value)]
        options = {name: value for name, value in given.items() if name not in names}
        words += [str(len(options))]
        for name, value in options.items():
            words += [name, value.signature, *_words(value.signature, value.value)]
        signature = "".join(given[name].signature for name in names) + "a{sv}"
        command = ["busctl", "--user", "--json=short", "call", BUS_NAME, OBJECT_PATH, MANAGER_INTERFACE]
        done = self.execute([*command, operation, signature, *words])
        if done.returncode:
            raise Refused(done.stderr)
        answer = json.loads(done.stdout)
        return answer["type"], answer["data"][0]

    def by_glixctl(self, words: tuple[str, ...], transport: str) -> subprocess.CompletedProcess[str]:
        """The client."""
        return self.site.glixctl("--transport", transport, "--quiet", *words)

    def execute(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program as the user."""
        environment = self.site.environment()
        return subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )


Way = Callable[[World, Case], Answer]


def script(world: World, case: Case) -> Answer:
    """The transaction of a case by JSON-RPC."""
    started = world.by_script(case.operation, case.parameters)
    ended: Answer = world.by_script("Wait", started)
    return ended


def busctl(world: World, case: Case) -> Answer:
    """The transaction of a case by D-Bus."""
    signature, path = world.busctl(case.operation, case.parameters)
    assert signature == "o"
    assert path.startswith(f"{TRANSACTION_PATH}/")
    ended: Answer = world.by_busctl("Wait", {"transaction": path.rpartition("/")[2]})
    return ended


def _glixctl(transport: str) -> Way:
    def run(world: World, case: Case) -> Answer:
        done = world.by_glixctl((*case.words, "--json"), transport)
        assert done.returncode == case.status, (case, done.stderr)
        ended: Answer = json.loads(done.stdout)
        return ended

    return run


WAYS: Final[dict[str, Way]] = {
    "busctl": busctl,
    "script": script,
    "glixctl by socket": _glixctl("socket"),
    "glixctl by bus": _glixctl("bus"),
}


@contextmanager
def make_world(folder: Path, template: Template) -> Iterator[World]:
    """A world on a copy of the repository."""
    with new_site(folder, template.nix, template) as site, private_bus(site.runtime) as address:
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = address
        with RunningDaemon(site, bus=address) as daemon:
            yield World(site, daemon, address)


@pytest.fixture
def world(tmp_path: Path, template: Template) -> Iterator[World]:
    """A world of the test's own."""
    with make_world(tmp_path / "world", template) as made:
        yield made


def test_every_way_gives_the_same_transactions_and_the_same_history(tmp_path: Path, template: Template) -> None:
    transactions: dict[str, list[Answer]] = {}
    histories: dict[str, list[Answer]] = {}
    for name, way in WAYS.items():
        with make_world(tmp_path / name.replace(" ", "-"), template) as world:
            transactions[name] = [_lasting(way(world, case)) for case in CASES]
            histories[name] = [_lasting(entry) for entry in world.by_script("History", {})["entries"]]
            listed = world.by_busctl("ListTransactions", {})["transactions"]
            assert [_brief(entry) for entry in reversed(listed)] == [_brief(one) for one in transactions[name]]
    first = transactions["script"]
    for case, transaction in zip(CASES, first, strict=True):
        assert transaction.get("error", {}).get("name") == case.error, transaction
        assert ERRORS[case.error].exit_code == case.status if case.error else transaction["state"] == "succeeded"
    for name in WAYS:
        assert transactions[name] == first, name
        assert histories[name] == histories["script"], name
    changes = [case for case in CASES if case.status is Exit.DONE and "dry_run" not in case.parameters]
    assert len(histories["script"]) == 1 + len(changes)


def test_malformed_requests_get_the_same_refusal_every_way_and_no_transaction(world: World) -> None:
    for operation, parameters, words in MALFORMED:
        with pytest.raises(RpcError) as refused:
            world.by_script(operation, parameters)
        with pytest.raises(Refused) as on_the_bus:
            world.busctl(operation, parameters)
        code = ErrorCode(refused.value.name)
        assert refused.value.message in str(on_the_bus.value), operation
        answers = [world.by_glixctl(words, transport) for transport in ("socket", "bus")]
        assert [done.returncode for done in answers] == [ERRORS[code].exit_code] * 2, (words, answers)
        assert answers[0].stderr == answers[1].stderr
        argument = refused.value.details.get("argument")
        # glixctl names what was typed where the daemon names its parameter; the rest is the same, word for word
        said = refused.value.message.removeprefix(f"{argument}: ") if argument else refused.value.message
        assert said, operation
        assert said in answers[0].stderr, operation
    assert world.by_script("ListTransactions", {}) == {"transactions": []}


QUERIES: Final[dict[str, Callable[[World], Answer]]] = {
    "Ping": lambda _: {},
    "GetCapabilities": lambda _: {},
    "ListHosts": lambda _: {},
    "List": lambda _: {"host": "laptop", "include_disabled": True, "limit": 1},
    "Show": lambda _: {"name": "firefox", "host": "laptop"},
    "Info": lambda _: {},
    "Resolve": lambda _: {"refs": ["firefox", "github:owner/tool#a.b"]},
    "History": lambda _: {"limit": 1},
    "ListInputs": lambda _: {},
    "Diff": lambda _: {"host": "laptop"},
    "Doctor": lambda _: {},
    "ListTransactions": lambda _: {"states": ["succeeded"], "limit": 5},
    "GetTransaction": lambda world: {"transaction": world.transaction},
    "Watch": lambda world: {"transaction": world.transaction},
    "Unwatch": lambda world: {"transaction": world.transaction},
    "Wait": lambda world: {"transaction": world.transaction, "timeout": 1.5},
    "RefreshIndex": lambda _: {"timeout": 60.0},
    "Search": lambda _: {"query": "python", "limit": 3, "offset": 1},
    "GetBundle": lambda _: {},
    "ListGenerations": lambda _: {},
    "TransactionLog": lambda world: {"transaction": world.transaction},
    "ListRegistries": lambda _: {"host": "laptop"},
    "RefreshRegistries": lambda _: {},
}


def test_every_query_answers_the_same_over_both_transports(world: World) -> None:
    world.transaction = world.daemon.done("Add", refs=["firefox", "hello"])["id"]
    world.daemon.health()
    queries = {name for name, row in api.OPERATIONS.items() if row.kind is Kind.QUERY}
    queries -= {
        "Cancel",
        "ShowRegistry",
        "Upload",
        "DiffGenerations",
    }  # they need what is not here, and have tests of their own
    assert set(QUERIES) == queries, "a query without a case here"
    for name, parameters in QUERIES.items():
        asked = parameters(world)
        assert world.by_busctl(name, asked) == world.by_script(name, asked), name


def test_cancel_of_what_has_ended_is_the_same_refusal_over_both_transports(world: World) -> None:
    transaction = world.daemon.done("Add", refs=["firefox"])["id"]
    with pytest.raises(RpcError) as refused:
        world.by_script("Cancel", {"transaction": transaction})
    with pytest.raises(Refused) as on_the_bus:
        world.busctl("Cancel", {"transaction": transaction})
    assert refused.value.message in str(on_the_bus.value)
    answers = [world.by_glixctl(("transaction", "cancel", transaction), transport) for transport in ("socket", "bus")]
    assert [done.returncode for done in answers] == [ERRORS[ErrorCode(refused.value.name)].exit_code] * 2
    assert answers[0].stderr == answers[1].stderr


def test_introspection_of_the_running_daemon_equals_the_table(world: World) -> None:
    command = ["busctl", "--user", "--json=short", "call", BUS_NAME, OBJECT_PATH]
    words = [*command, "org.freedesktop.DBus.Introspectable", "Introspect"]
    document = json.loads(world.execute(words).stdout)["data"][0]
    interface = ElementTree.fromstring(document).find(f"interface[@name='{MANAGER_INTERFACE}']")
    assert interface is not None
    described = {
        method.attrib["name"]: [
            (argument.attrib["direction"], argument.attrib["name"], argument.attrib["type"])
            for argument in method.findall("arg")
        ]
        for method in interface.findall("method")
    }
    assert described == {name: _arguments(row) for name, row in api.OPERATIONS.items()}


def test_open_rpc_description_of_the_running_daemon_equals_the_table(world: World) -> None:
    methods = {method["name"]: method for method in world.by_script("rpc.discover", {})["methods"]}
    assert set(methods) - {"rpc.discover"} == set(api.OPERATIONS)
    for name, row in api.OPERATIONS.items():
        described = {parameter["name"]: parameter.get("required", False) for parameter in methods[name]["params"]}
        required = api.required(row.parameters)
        assert described == {parameter: parameter in required for parameter in row.parameters.model_fields}, name


# -- signals -------------------------------------------------------------------------------------------------------


@dataclass
class Listener:
    """A client on the bus with every signal of the daemon that reached it."""

    bus: Bus
    heard: list[tuple[str, str, Any]] = field(default_factory=list)

    async def listen(self) -> None:
        for interface, member in (
            (TRANSACTION_INTERFACE, "Progress"),
            (MANAGER_INTERFACE, "Changed"),
            ("org.freedesktop.DBus.ObjectManager", "InterfacesAdded"),
            ("org.freedesktop.DBus.Properties", "PropertiesChanged"),
        ):
            await self.bus.subscribe(interface, member, self._hear)

    def _hear(self, message: Message) -> None:
        self.heard.append((message.member, message.path, [bus_values.plain(value) for value in message.body]))

    async def add(self, name: str) -> str:
        call = Message(
            destination=BUS_NAME,
            path=OBJECT_PATH,
            interface=MANAGER_INTERFACE,
            member="Add",
            signature="asa{sv}",
            body=[[name], {}],
        )
        return str((await self.bus.call(call, PATIENCE)).body[0])

    def named(self, member: str) -> list[tuple[str, Any]]:
        return [(path, body) for name, path, body in self.heard if name == member]

    @property
    def told_the_end(self) -> bool:
        """Whether the last progress has come; that of a change that is committed may come after the change is told."""
        progress = self.named("Progress")
        return bool(progress) and progress[-1][1][0]["state"] == "succeeded"

    def last_state(self, path: str) -> str | None:
        """The state that a transaction was last said to have."""
        states = [body[1].get("State") for place, body in self.named("PropertiesChanged") if place == path]
        return states[-1] if states else None


def test_progress_goes_to_the_one_who_asked_and_the_rest_to_everybody_without_what_is_installed(world: World) -> None:
    @on_loop
    async def scenario() -> None:
        starter, bystander = Listener(await Bus.connect(world.address)), Listener(await Bus.connect(world.address))
        try:
            await starter.listen()
            await bystander.listen()
            path = await starter.add("firefox")
            await until(lambda: starter.told_the_end and bool(bystander.named("Changed") and starter.named("Changed")))
            await until(lambda: bystander.last_state(path) == starter.last_state(path) == "succeeded")
            _check_signals(starter, bystander, path)
        finally:
            await starter.bus.close()
            await bystander.bus.close()

    scenario()


def _check_signals(starter: Listener, bystander: Listener, path: str) -> None:
    progress = starter.named("Progress")
    assert progress
    assert {place for place, _ in progress} == {path}
    assert progress[-1][1][0]["state"] == "succeeded"
    assert bystander.named("Progress") == []
    for listener in (starter, bystander):
        assert [body for _, body in listener.named("Changed")] == [["laptop"]]
        ((place, (added, interfaces)),) = listener.named("InterfacesAdded")
        assert (place, added) == (OBJECT_PATH, path)
        assert set(interfaces[TRANSACTION_INTERFACE]) <= {"Id", "State"}
    told = repr(bystander.heard)
    assert "firefox" not in told


def test_progress_on_the_socket_goes_to_the_one_who_asked_and_changes_to_everybody(world: World) -> None:
    with world.daemon.connect() as starter, world.daemon.connect() as bystander, world.daemon.connect() as watcher:
        with world.site.locked():
            transaction = starter.call("Add", refs=["firefox"])["transaction"]
            starter.reach(transaction, "running")
            watcher.call("Watch", transaction=transaction)
            bystander.call("Watch", transaction=transaction)
            bystander.call("Unwatch", transaction=transaction)
        for client in (starter, watcher, bystander):
            assert client.wait(transaction)["state"] == "succeeded"
            while not client.notified("Changed"):
                client.receive()
            assert client.notified("Changed") == [{"host": "laptop"}]
        for client in (starter, watcher):
            assert client.notified("Progress")[-1]["state"] == "succeeded"
            assert {event["transaction"] for event in client.notified("Progress")} == {transaction}
        assert bystander.notified("Progress") == []


# -- helpers -------------------------------------------------------------------------------------------------------


def _lasting(value: Answer) -> Answer:
    """A transaction or an entry of the history without what no two of them share."""
    kept = {name: content for name, content in value.items() if name not in ("id", "created", "finished", "time")}
    return {name: bool(content) if name in ("commit", "transaction") else content for name, content in kept.items()}


def _brief(transaction: Answer) -> list[Any]:
    """What a list of transactions says of one, without what no two of them share."""
    return [transaction[name] for name in ("operation", "host", "state", "dry_run")] + [transaction.get("error")]


def _words(signature: str, value: Any) -> list[str]:
    """A value as busctl takes it."""
    if signature == "v":
        return [value.signature, *_words(value.signature, value.value)]
    if signature.startswith("a{s"):
        return [str(len(value)), *(word for key in value for word in (key, *_words(signature[3:-1], value[key])))]
    if signature.startswith("a"):
        return [str(len(value)), *(word for one in value for word in _words(signature[1:], one))]
    return [str(value).lower() if signature == "b" else str(value)]


def _decoded(signature: str, data: Any) -> Any:
    """A value as busctl prints it."""
    if signature == "v":
        return _decoded(data["type"], data["data"])
    if signature.startswith("a{s"):
        return {name: _decoded(signature[3:-1], value) for name, value in data.items()}
    if signature.startswith("a"):
        return [_decoded(signature[1:], value) for value in data]
    return data


def _arguments(row: api.Operation) -> list[tuple[str, str, str]]:
    """What a method of the bus takes and gives, by the rules of the API: required parameters in order, then options."""
    fields = row.parameters.model_fields
    typed = [("in", name, _signature(field.annotation)) for name, field in fields.items() if field.is_required()]
    given = ("out", "transaction", "o") if row.kind is Kind.MUTATION else ("out", "result", "a{sv}")
    return [*typed, ("in", "options", "a{sv}"), given]


def _signature(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        (one,) = (choice for choice in get_args(annotation) if choice is not NoneType)
        return _signature(one)
    if origin is tuple:
        return "a" + _signature(get_args(annotation)[0])
    if hasattr(annotation, "__metadata__"):
        return _signature(annotation.__origin__)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "s"
    return {str: "s", bool: "b", int: "x", float: "d"}.get(annotation, "a{sv}")
