# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of requests, shaped by the table, over both transports: every answer is a result or an error of the table.

A result is what the OpenRPC document says of it, an error has a name and a code of the table and is not Internal, and all
transactions end in the same way. ./check runs a few thousand requests; GLIX_FLOODS=full many more, GLIX_SEED other ones.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from glixd import api
from glixd.api import Kind
from glixd.backends.bus import Bus, BusError, Message
from glixd.errors import GlixError
from glixd.frontends import bus_values, strict_json
from glixd.protocol import (
    BUS_NAME,
    ERROR_PREFIX,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_PATH,
    ErrorCode,
    State,
    json_code,
)
from tests.support import openrpc as judge
from tests.support.corpus import Inexpressible
from tests.support.daemon import PATIENCE, RunningDaemon, Site, Template, new_site
from tests.support.flood import STANDARD, Vitals, sized
from tests.support.hermetic import HermeticNix
from tests.support.private_bus import private_bus
from tests.support.repositories import Sources
from tests.support.shapes import Shaped, Shapes

pytestmark = [pytest.mark.integration, pytest.mark.nix, pytest.mark.timeout(1800)]

SEED: Final = int(os.environ.get("GLIX_SEED", "20260101"))
BY_SOCKET: Final = sized(40_000, 2_100)
BY_BUS: Final = sized(20_000, 1_300)
AT_ONCE: Final = 24
"""Requests that are under way together."""
WAITING: Final = 300
"""Transactions that may wait for their end to be judged; the daemon keeps 500."""


@dataclass
class World:
    """A repository with a history, its daemon on both transports, and what the daemon says of its own answers."""

    site: Site
    daemon: RunningDaemon
    address: str
    words: dict[str, list[str]]
    document: dict[str, Any]
    transactions: set[str] = field(default_factory=set)
    """Those whose end is not judged yet."""
    ends: Counter[str] = field(default_factory=Counter)

    @functools.cached_property
    def schemas(self) -> dict[str, Any]:
        """A validator of the result of every method."""
        return {
            method["name"]: judge.validator(self.document, method["result"]["schema"])
            for method in self.document["methods"]
        }

    def check_result(self, request: Shaped, result: Any) -> None:
        """A result is what it is said to be."""
        error = next(self.schemas[request.method].iter_errors(result), None)
        assert error is None, (request, error)
        if api.OPERATIONS[request.method].kind is Kind.MUTATION:
            self.transactions.add(result["transaction"])

    def judge_ends(self, more_than: int = 0) -> None:
        """See how each transaction ended, where that many wait for it: the daemon forgets the oldest of thousands."""
        if len(self.transactions) <= more_than:
            return
        with self.daemon.connect() as client:
            for transaction in sorted(self.transactions):
                ended = client.wait(transaction)
                assert State(ended["state"]).final
                if ended["state"] == State.SUCCEEDED:
                    self.ends["succeeded"] += 1
                else:
                    assert known_error(ended["error"]["name"], ended["error"]["code"]), ended
                    self.ends[ended["error"]["name"]] += 1
        self.transactions.clear()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> Iterator[World]:
    """A nix of its own: what is asked for may delete all that nothing uses."""
    folder = tmp_path_factory.mktemp("fuzz")
    nix = HermeticNix(folder / "nix")
    template = Template.make(folder / "template", nix, sources)
    with new_site(folder / "site", nix, template) as site, private_bus(site.runtime) as address:
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = address
        with RunningDaemon(site, bus=address) as daemon:
            daemon.done("Add", refs=["firefox", "ripgrep"])
            daemon.done("Init", host="pi", user="bob", system="x86_64-linux")
            built = daemon.done("Rebuild", host="pi", action="dry-build")
            ended = daemon.done("Disable", names=["ripgrep"])
            daemon.health()
            yield World(site, daemon, address, _words(site, ended, built), daemon.call("rpc.discover"))
    nix.remove()


def _words(site: Site, ended: dict[str, Any], built: dict[str, Any]) -> dict[str, list[str]]:
    """What means something here, by the name of the parameter."""
    commits = site.git("log", "--format=%H").split()
    names = ["firefox", "ripgrep", "hello", "fd", "no-such-package", "7zip"]
    return {
        "host": ["laptop", "laptop", "server", "Laptop"],
        "to": ["server", "laptop", "x"],
        "name": names,
        "names": names,
        "refs": [
            *names,
            "nixpkgs#hello",
            "github:a/b",
            "path:./x",
            "git+file:///nowhere",
            "https://example.org/x.tar.gz",
        ],
        "user": ["alice", "bob", "root", "Alice"],
        "transaction": [ended["id"], "0" * 26, "0" * 25],
        "build": [built["id"], ended["id"], "0" * 26],
        "commit": [*commits, commits[0][:7], "0" * 40],
        "before": [commits[0][:7], "f" * 40],
        "to_commit": [*commits, "abcd"],
        "inputs": ["nixpkgs", "home-manager", "no-such"],
        "key": ["flake", "scope", "enabled", "config.theme", "pin", "Key"],
        "value": ["nixpkgs#hello", "true", "home", "dark", ""],
        "system": ["x86_64-linux", "aarch64-linux", "sparc-linux"],
        "older_than": ["1d", "0d", "3650d"],
        "url": ["https://127.0.0.1:1/x.json", "file:///nowhere"],
        "query": ["fire", "a b", "*"],
    }


def known_error(name: str, code: int | None = None) -> bool:
    """Whether the table has that error, with that code, and it is none of a defect."""
    if name not in set(ErrorCode) or name == ErrorCode.INTERNAL:
        return False
    return code is None or code in (json_code(ErrorCode(name)), -32700)


def report(transport: str, told: Counter[str], vitals: Vitals) -> str:
    results = told.pop("result", 0)
    errors = ", ".join(f"{times} {name}" for name, times in told.most_common())
    return f"fuzz: {transport}, seed {SEED}: {results + told.total()} requests, {results} results; {errors}; 0 unmapped; {vitals}"


# -- the socket ------------------------------------------------------------------------------------------------------


def test_every_answer_of_the_socket_is_a_result_or_an_error_of_the_table(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = Shapes(SEED, world.words)
    told: Counter[str] = Counter()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(os.fspath(world.daemon.socket))
        lines = peer.makefile("rb")
        for start in range(0, BY_SOCKET, AT_ONCE):
            asked = {number: shapes.next() for number in range(start, start + AT_ONCE)}
            peer.sendall(b"".join(json.dumps(one.message(number)).encode() + b"\n" for number, one in asked.items()))
            while asked:
                _take(world, json.loads(lines.readline()), asked, told)
            world.judge_ends(WAITING)
        lines.close()
    with capsys.disabled():
        print(report("socket", told, Vitals.of(world.daemon.pid)))
    assert world.daemon.call("Ping")


def _take(world: World, answer: dict[str, Any], asked: dict[int, Shaped], told: Counter[str]) -> None:
    """Judge one message of the daemon."""
    assert answer["jsonrpc"] == "2.0"
    if "method" in answer:
        assert answer["method"] in ("Progress", "Changed")
        return
    number = answer["id"]
    if number is None:  # it was no JSON that can be read, and what it asked is any such of those under way
        number = next(candidate for candidate, one in asked.items() if _unreadable(one))
    request = asked.pop(number)
    assert ("result" in answer) != ("error" in answer), answer
    if "result" in answer:
        world.check_result(request, answer["result"])
        told["result"] += 1
        return
    error = answer["error"]
    assert known_error(error["data"]["name"], error["code"]), (request, error)
    assert isinstance(error["message"], str)
    assert "Traceback" not in error["message"]
    told[error["data"]["name"]] += 1


def _unreadable(request: Shaped) -> bool:
    """Whether strict JSON refuses it: an integer over 64 bits, a number that is none, the same key twice."""
    try:
        strict_json.loads(json.dumps(request.message(1)).encode())
    except GlixError:
        return True
    return False


# -- the bus ---------------------------------------------------------------------------------------------------------


def test_every_answer_of_the_bus_is_a_result_or_an_error_of_the_table(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = Shapes(SEED + 1, world.words)
    told: Counter[str] = Counter()

    async def one(bus: Bus, request: Shaped) -> None:
        try:
            signature, body = request.call()
        except Inexpressible:
            told["(not to be said on the bus)"] += 1
            return
        message = Message(
            destination=BUS_NAME,
            path=OBJECT_PATH,
            interface=MANAGER_INTERFACE,
            member=request.method,
            signature=signature,
            body=body,
        )
        try:
            answer = await bus.call(message, PATIENCE)
        except BusError as error:
            name = error.name.removeprefix(ERROR_PREFIX)
            told[name if name.startswith(STANDARD) or known_error(name) else f"unmapped: {name} for {request}"] += 1
        else:
            world.check_result(request, _result(answer))
            told["result"] += 1

    async def all_of_them() -> None:
        bus = await Bus.connect(world.address)
        try:
            for _ in range(0, BY_BUS, AT_ONCE):
                await asyncio.gather(*(one(bus, shapes.next()) for _ in range(AT_ONCE)))
                world.judge_ends(WAITING)
        finally:
            await bus.close()

    asyncio.run(all_of_them())
    left_out = told.pop("(not to be said on the bus)", 0)
    assert left_out < BY_BUS / 3
    assert [name for name in told if name.startswith("unmapped")] == []
    with capsys.disabled():
        print(report("bus", told, Vitals.of(world.daemon.pid)))
    assert world.daemon.call("Ping")


def _result(answer: Message) -> Any:
    if answer.signature == "o":
        path = answer.body[0]
        assert path.startswith(f"{TRANSACTION_PATH}/")
        return {"transaction": path.rpartition("/")[2]}
    assert answer.signature == "a{sv}"
    return bus_values.plain(answer.body[0])


# -- what came of it -------------------------------------------------------------------------------------------------


def test_every_method_was_answered_with_a_result_or_refused_for_a_reason_of_its_own(world: World) -> None:
    """Whatever the table has, one of each is asked with parameters that are all of the right type."""
    shapes = Shapes(SEED + 2, world.words)
    seen: set[str] = set()
    with world.daemon.connect() as client:
        for method in api.OPERATIONS:
            for _ in range(sized(200, 20)):
                request = shapes.next(method)
                number = client.send(method, **request.parameters) if isinstance(request.parameters, dict) else 0
                if not number:
                    continue
                while (answer := client.receive()).get("id", 0) not in (number, None) or "method" in answer:
                    pass
                told = Counter[str]()
                _take(world, {**answer, "id": number}, {number: request}, told)
                seen.add(method)
            world.judge_ends(WAITING)
    assert seen == set(api.OPERATIONS)


def test_every_transaction_ends_in_success_or_in_an_error_of_the_table(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.judge_ends()
    with capsys.disabled():
        told = ", ".join(f"{times} {name}" for name, times in world.ends.most_common())
        print(f"fuzz: {world.ends.total()} transactions: {told}")
    assert world.ends
    world.site.git("fsck", "--strict")
    assert world.site.git("status", "--porcelain", "--untracked-files=no") == ""
