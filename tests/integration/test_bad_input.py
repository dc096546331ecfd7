# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input through every door: a typed error in a sentence, the exit code, nothing changed, and the daemon goes on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from glixd.backends.bus import Bus, BusError, Message, Variant
from glixd.frontends import bus_values
from glixd.protocol import (
    BUS_NAME,
    ERROR_PREFIX,
    ERRORS,
    MANAGER_INTERFACE,
    OBJECT_PATH,
    TRANSACTION_PATH,
    ErrorCode,
    json_code,
)
from tests.support import corpus
from tests.support.corpus import Case, Inexpressible
from tests.support.daemon import PATIENCE, Answer, RpcClient, RpcError, RunningDaemon, Site, Template, new_site
from tests.support.private_bus import private_bus

pytestmark = [pytest.mark.integration, pytest.mark.nix]

CASES: Final = corpus.cases()
UNKNOWN_METHOD: Final = "org.freedesktop.DBus.Error.UnknownMethod"


@dataclass(frozen=True)
class Refusal:
    """An error as a caller sees it."""

    name: str
    message: str
    hint: str
    transaction: bool


@dataclass
class World:
    """A home with a daemon on a bus of its own, and what its repository looked like when all was well."""

    site: Site
    daemon: RunningDaemon
    address: str
    before: dict[str, str]

    def check(self) -> None:
        """The daemon answers, and the repository is as it was."""
        assert self.daemon.running
        assert self.daemon.call("Ping")
        assert fingerprint(self.site.repository, self.site) == self.before


def fingerprint(root: Path, site: Site) -> dict[str, str]:
    """Every ref, the head, and every file of the work tree with its mode."""
    found = {"HEAD": site.git("symbolic-ref", "HEAD"), "refs": site.git("for-each-ref")}
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders.remove(".git")
        for path in (Path(folder, name) for name in (*names, *folders)):
            facts = path.lstat()
            contents = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
            found[os.fspath(path)] = f"{facts.st_mode:o} {hashlib.sha256(contents).hexdigest()}"
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    """A host with firefox, with ripgrep disabled, and with a folder that is somebody's own."""
    folder = tmp_path_factory.mktemp("bad-input")
    with new_site(folder / "site", template.nix, template) as site, private_bus(site.runtime) as address:
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = address
        site.write({"hosts/taken/default.nix": "{ }\n"})
        site.commit({"hosts/modules/shared.nix": "{ }\n"})
        with RunningDaemon(site, bus=address) as daemon:
            daemon.done("Add", refs=["firefox", "ripgrep"])
            daemon.done("Disable", names=["ripgrep"])
            daemon.health()
            yield World(site, daemon, address, fingerprint(site.repository, site))


def by_socket(client: RpcClient, case: Case) -> Refusal:
    """What the socket says."""
    client.write(case.message(1))
    while (answer := client.receive()).get("id", 0) not in (1, None) or "method" in answer:
        pass
    if "error" in answer:
        error = answer["error"]
        if case.error is not ErrorCode.MALFORMED:
            assert error["code"] == json_code(case.error)
        return Refusal(error["data"]["name"], error["message"], error["data"]["hint"], transaction=False)
    return ended(client.wait(answer["result"]["transaction"]))


def ended(transaction: Answer) -> Refusal:
    """The error that a transaction ended with."""
    assert transaction["state"] == "failed", transaction
    assert "commit" not in transaction
    error = transaction["error"]
    assert error["code"] == json_code(ErrorCode(error["name"]))
    return Refusal(error["name"], error["message"], error.get("hint", ""), transaction=True)


async def by_bus(address: str, case: Case) -> Refusal:
    """What the bus says; the hint is part of the message there."""
    signature, body = case.call()
    bus = await Bus.connect(address)
    try:
        answer = (await _call(bus, case.operation, signature, body)).body[0]
        assert answer.startswith(f"{TRANSACTION_PATH}/"), answer
        options = {"timeout": Variant("d", PATIENCE)}
        ending = await _call(bus, "Wait", "sa{sv}", [answer.rpartition("/")[2], options])
        transaction: Any = bus_values.plain(ending.body[0])
        return ended(transaction)
    except BusError as error:
        return Refusal(error.name.removeprefix(ERROR_PREFIX), error.message, "", transaction=False)
    finally:
        await bus.close()


async def _call(bus: Bus, member: str, signature: str, body: list[object]) -> Message:
    message = Message(
        destination=BUS_NAME,
        path=OBJECT_PATH,
        interface=MANAGER_INTERFACE,
        member=member,
        signature=signature,
        body=body,
    )
    return await bus.call(message, PATIENCE)


def check_words(text: str) -> None:
    """What people read is plain text in lines, without the inside of the program."""
    assert all(line.isprintable() for line in text.split("\n")), repr(text)
    for word in ("Traceback", "ValidationError", "pydantic", "sqlite", "glixd/", ".py", "/nix/store"):
        assert word not in text
    assert len(text) < 5000


def expressible(case: Case) -> bool:
    """Whether the bus has types for it."""
    try:
        case.call()
    except Inexpressible:
        return False
    return True


# -- the corpus itself -------------------------------------------------------------------------------------------


def test_the_corpus_is_large_and_says_everything_once() -> None:
    assert len(CASES) >= 250
    assert len({str(case) for case in CASES}) == len(CASES)
    said = [(case.operation, repr(case.parameters), case.json) for case in CASES]
    assert len(set(said)) == len(said)
    assert sum(map(expressible, CASES)) >= 200
    assert sum(case.words is not None for case in CASES) >= 200


# -- the doors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case.socket], ids=str)
def test_bad_input_on_the_socket_is_refused_with_a_typed_error_and_changes_nothing(world: World, case: Case) -> None:
    with world.daemon.connect() as client:
        refusal = by_socket(client, case)
        assert client.call("Ping"), "the connection goes on"
    assert (refusal.name, refusal.transaction) == (case.error, case.transaction), refusal
    check_words(refusal.message)
    check_words(refusal.hint)
    world.check()


@pytest.mark.parametrize("case", [case for case in CASES if expressible(case)], ids=str)
def test_bad_input_on_the_bus_is_refused_with_the_same_error_and_changes_nothing(world: World, case: Case) -> None:
    refusal = asyncio.run(by_bus(world.address, case))
    expected = UNKNOWN_METHOD if case.error is ErrorCode.UNKNOWN_OPERATION else case.error.value
    assert (refusal.name, refusal.transaction) == (expected, case.transaction), refusal
    check_words(refusal.message)
    world.check()


@pytest.mark.parametrize("case", [case for case in CASES if case.words is not None], ids=str)
def test_bad_words_of_a_command_line_end_in_a_sentence_and_an_exit_code(world: World, case: Case) -> None:
    check_client(world, case, "socket")


@pytest.mark.parametrize(
    "case",
    [case for number, case in enumerate(CASES) if case.words is not None and (number % 20 == 0 or case.json)],
    ids=str,
)
def test_bad_words_end_the_same_way_over_the_bus(world: World, case: Case) -> None:
    check_client(world, case, "bus")


def check_client(world: World, case: Case, transport: str) -> None:
    assert case.words is not None
    done = world.site.glixctl("--json", "--transport", transport, *case.words)
    document = json.loads(done.stdout)
    assert document["error"]["name"] == case.client, done
    assert done.returncode == ERRORS[case.client].exit_code, done
    assert done.stderr, "a sentence for people, whatever scripts are told"
    check_words(done.stderr)
    check_words(done.stdout)
    world.check()


# -- messages that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", corpus.messages(), ids=lambda table: str(table["why"]))
def test_a_message_that_is_no_request_is_refused_and_the_connection_goes_on(
    world: World, table: dict[str, Any]
) -> None:
    with world.daemon.connect() as client:
        client.write(b'{"jsonrpc": "2.0", "id": 1, "method": "Ping"}\n')
        client.receive()
        client.write(table["message"].encode() + b"\n")
        answer = client.receive()
        assert answer["error"]["code"] == table["code"]
        assert answer["error"]["data"]["name"] == "Malformed"
        check_words(answer["error"]["message"])
        assert client.call("Ping")
    world.check()


def test_bytes_that_are_no_text_are_refused(world: World) -> None:
    with world.daemon.connect() as client:
        client.write(b'{"jsonrpc": "2.0", "id": 1, "method": "\xff\xfe"}\n')
        assert client.receive()["error"]["code"] == -32700
    world.check()


# -- what is there decides ---------------------------------------------------------------------------------------


def test_a_name_that_is_given_twice_is_done_once(world: World) -> None:
    transaction = world.daemon.done("Remove", names=["firefox", "firefox"], dry_run=True)
    assert [change["name"] for change in transaction["outcome"]["changes"]] == ["firefox"]
    world.check()


def test_what_is_so_already_is_nothing_to_do_and_no_error(world: World) -> None:
    for method, name in (("Enable", "firefox"), ("Disable", "ripgrep")):
        transaction = world.daemon.done(method, names=[name])
        assert transaction["outcome"]["changed"] is False
        assert "commit" not in transaction
    world.check()


def test_a_host_is_taken_as_it_is_also_where_others_are_near(world: World) -> None:
    with pytest.raises(RpcError) as refused:
        world.daemon.call("List", host="lapto")
    assert refused.value.name == "UnknownHost"
    assert "laptop" in json.dumps([refused.value.message, refused.value.hint, refused.value.details])
    world.check()
