# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket under attack: whatever strangers send or do not read, others are served, and nothing grows.

The attackers are another user where the tests run as root. ./check runs small floods; GLIX_FLOODS=full the whole ones.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

import pytest

from glixd.protocol import MAX_CONNECTIONS_PER_UID, MAX_JSON_MESSAGE
from tests.support.daemon import RunningDaemon, Template, new_site
from tests.support.flood import FULL, GROWTH, OWN, PEAK, SLOWEST, Result, flood, sized, warm
from tests.support.raw_bus import CLOSED, RESULT

pytestmark = [pytest.mark.integration, pytest.mark.nix, pytest.mark.timeout(600)]

FILES: Final = 2 * MAX_CONNECTIONS_PER_UID + 16
"""Descriptors that the daemon may have more in a flood: what one uid may connect, each with its process, and its own work."""
CONNECTIONS: Final = MAX_CONNECTIONS_PER_UID - 1
"""As many as an attacker may have who is the same user as the bystander."""
MIB: Final = 1 << 20


@dataclass
class World:
    """A daemon whose socket every uid can reach."""

    daemon: RunningDaemon

    def flood(self, attack: Any) -> Result:
        """Let an attack loose on the socket, and judge what may be judged of all of them."""
        pid = self.daemon.pid
        result = flood(self.daemon, "none", attack, os.fspath(self.daemon.socket))
        assert self.daemon.running
        assert self.daemon.pid == pid, "no restart"
        assert result.unmapped.total() == 0, result.unmapped
        assert result.bystander.times["socket"]
        assert result.bystander.quantile("socket", 0.99) < SLOWEST
        assert result.peak - result.before.rss < PEAK
        assert result.after.rss - result.before.rss < GROWTH
        assert result.after.descriptors <= result.before.descriptors + OWN
        assert result.open_files <= result.before.descriptors + FILES
        return result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("socket-floods")
    with new_site(folder / "site", template.nix, template) as site:
        site.extra |= {"GLIXD_CALLS_PER_SECOND": "20", "GLIXD_CALLS_AT_ONCE": "40"}
        with RunningDaemon(site) as daemon:
            for place in (site.runtime, daemon.socket.parent):
                place.chmod(0o711)
            daemon.socket.chmod(0o666)
            warm(daemon)
            flood(daemon, "none", nothing, os.fspath(daemon.socket)).print()
            yield World(daemon)


# -- what attackers are made of ---------------------------------------------------------------------------------------


class Peer:
    """One connection that sends bytes as they are, and counts what comes back line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, path: str) -> Peer:
        return cls(*await asyncio.open_unix_connection(path, limit=1 << 27))

    async def send(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answers(self, number: int) -> Counter[str]:
        """What so many requests were answered, those of a batch one by one; `closed` for what never will be."""
        found: Counter[str] = Counter()
        while found.total() < number:
            try:
                line = await self.reader.readline()
            except ConnectionError:
                line = b""
            if not line:
                found[CLOSED] += number - found.total()
                break
            answer = json.loads(line)
            found.update(map(_name, answer if isinstance(answer, list) else [answer]))
        return found

    def end(self) -> None:
        self.writer.transport.abort()


def _name(answer: dict[str, Any]) -> str:
    return str(answer["error"]["data"]["name"]) if "error" in answer else RESULT


def request(method: str, identity: int = 1, **parameters: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "method": method, "params": parameters}).encode() + b"\n"


async def everybody(path: str, number: int, act: Callable[[Peer], Awaitable[Counter[str]]]) -> Counter[str]:
    """So many connections that do the same at the same time."""
    peers = [await Peer.open(path) for _ in range(number)]
    counted = await asyncio.gather(*(act(peer) for peer in peers))
    for peer in peers:
        peer.end()
    return sum(counted, Counter())


# -- the attacks; each runs in a process of its own -------------------------------------------------------------------


async def nothing(_: str) -> Counter[str]:
    """No attack at all: what the bystander meets on this machine now."""
    await asyncio.sleep(0.5)
    return Counter()


async def many_connections_with_many_requests(path: str) -> Counter[str]:
    """As many connections as one may have, with as many requests as fit, all sent before an answer is read."""
    number = sized(1000, 100)
    sent = b"".join(request(("Ping", "ListHosts", "GetCapabilities", "Nonsense")[index % 4]) for index in range(number))

    async def act(peer: Peer) -> Counter[str]:
        reading = asyncio.ensure_future(peer.answers(number))
        await peer.send(sent)
        return await reading

    return await everybody(path, CONNECTIONS, act)


async def more_connections_than_anybody_may_have(path: str) -> Counter[str]:
    """Descriptors are what is attacked: connections that are opened and kept."""

    found: Counter[str] = Counter()
    with ExitStack() as kept:
        for _ in range(sized(1000, 200)):
            peer = kept.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(path)
            with suppress(ConnectionError):  # who is refused may have been so before the request came
                peer.sendall(request("Ping"))
            with peer.makefile("rb") as lines:
                found[_name(json.loads(lines.readline()))] += 1
    return found


async def large_documents(path: str) -> Counter[str]:
    """Documents of 1 MiB in which everything takes as long to read as it can."""
    documents = [
        b"[" + b",".join([b'{"a":1}'] * (MIB // 8 - 2)) + b"]",
        b"[" + b",".join([b"1"] * (MIB // 2 - 2)) + b"]",
        b"{" + b",".join(b'"%d":1' % number for number in range(MIB // 11 - 2)) + b"}",
        b"[" * (MIB // 2 - 1) + b"]" * (MIB // 2 - 1),
        b'{"a":' * (MIB // 6),
        request("Add", refs=["x"] * 200_000)[:-1],
        request("Resolve", refs=["x" * 1_000_000])[:-1],
    ]

    turns = itertools.count()

    async def act(peer: Peer) -> Counter[str]:
        for _ in range(sized(8, 1)):
            await peer.send(documents[next(turns) % len(documents)] + b"\n")
        return await peer.answers(sized(8, 1))

    return await everybody(path, sized(CONNECTIONS, 14), act)


async def more_than_a_message_may_have(path: str) -> Counter[str]:
    """Lines and announced lengths of up to 64 MiB, which nobody keeps."""
    size = sized(64, 8) * MIB

    async def act(peer: Peer) -> Counter[str]:
        await peer.send(b'"')
        for _ in range(size // (1 << 16)):
            await peer.send(b"x" * (1 << 16))
        await peer.send(b'"\n' + request("Ping"))
        return await peer.answers(2)

    return await everybody(path, 4, act)


async def large_batches(path: str) -> Counter[str]:
    """Batches of 10,000, which are refused as a whole, and of as many as may be."""
    ping = request("Ping")[:-1]
    large = b"[" + b",".join([ping] * 10_000) + b"]\n"
    allowed = b"[" + b",".join([ping] * 64) + b"]\n"
    assert len(large) < MAX_JSON_MESSAGE
    rounds = sized(20, 3)

    async def act(peer: Peer) -> Counter[str]:
        for _ in range(rounds):
            await peer.send(large + allowed)
        return await peer.answers(rounds * 65)

    return await everybody(path, 8, act)


async def slow_senders(path: str) -> Counter[str]:
    """Everybody sends one byte now and then."""

    async def act(peer: Peer) -> Counter[str]:
        for byte in request("Ping")[: sized(70, 30)]:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.02)
        return Counter()

    return await everybody(path, CONNECTIONS, act)


async def senders_that_never_read(path: str) -> Counter[str]:
    """Everybody asks for the largest answer there is, as often as may be, and reads none."""
    discover = b"[" + b",".join([b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}'] * 64) + b"]\n"

    async def act(peer: Peer) -> Counter[str]:
        await peer.send(discover * 2)
        await asyncio.sleep(sized(5, 1))
        return Counter()

    return await everybody(path, CONNECTIONS, act)


async def nonsense(path: str) -> Counter[str]:
    """Bytes of all kinds: chance, broken headers, requests with a byte changed, cut anywhere."""
    chance = random.Random(20260101)
    whole = request("Show", name="firefox")
    headed = b"Content-Length: %d\r\n\r\n%b" % (len(whole), whole)
    found: Counter[str] = Counter()

    async def act(number: int) -> None:
        peer = await Peer.open(path)
        kind = number % 5
        match kind:
            case 0:
                data = chance.randbytes(chance.randrange(1, 2000))
            case 1:
                data = (
                    b"Content-Length: "
                    + chance.choice([b"-1", b"1e9", b"9" * 40, b"1\r\nContent-Length: 2", b"x"])
                    + b"\r\n\r\n{}"
                )
            case 2:
                place = chance.randrange(len(whole))
                data = whole[:place] + bytes([chance.randrange(256)]) + whole[place + 1 :]
            case 3:
                data = (whole + headed)[: chance.randrange(len(whole) * 2)]
            case _:
                data = headed[: chance.randrange(len(headed))]
        await peer.send(data)
        if number % 2:
            with suppress(OSError):
                peer.writer.write_eof()
            with suppress(ConnectionError):
                await peer.reader.read()
        peer.end()
        found["closed"] += 1

    for start in range(0, sized(5000, 500), 16):
        await asyncio.gather(*(act(number) for number in range(start, start + 16)))
    return found


async def peers_that_vanish(path: str) -> Counter[str]:
    """Connections that are gone before an answer can come."""
    found: Counter[str] = Counter()
    for _ in range(sized(3000, 300)):
        peer = await Peer.open(path)
        with suppress(ConnectionError):
            peer.writer.write(request("Ping") * 10 + request("Wait", transaction="0" * 26) * 10)
        peer.end()
        found[CLOSED] += 20
    return found


ATTACKS: Final = (
    many_connections_with_many_requests,
    more_connections_than_anybody_may_have,
    large_documents,
    more_than_a_message_may_have,
    large_batches,
    slow_senders,
    senders_that_never_read,
    nonsense,
    peers_that_vanish,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__.replace("_", "-"))
def test_others_are_served_and_nothing_grows(world: World, attack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = world.flood(attack)
    with capsys.disabled():
        result.print()
    if attack is many_connections_with_many_requests:
        assert result.answers.total() == CONNECTIONS * sized(1000, 100)
        assert CLOSED not in result.answers
    if attack is more_connections_than_anybody_may_have:
        assert result.answers[RESULT] + result.answers["NotAuthorised"] <= MAX_CONNECTIONS_PER_UID
        assert result.answers["LimitExceeded"] >= sized(1000, 200) - MAX_CONNECTIONS_PER_UID
    if attack is large_batches:
        assert result.answers["TooLarge"] == 8 * sized(20, 3)
    assert FULL or result.seconds < 60
