# SPDX-License-Identifier: GPL-3.0-or-later
"""The bus under attack: whatever strangers send, others are served, nothing grows, and every call has an answer.

The attackers are another user where the tests run as root. ./check runs small floods; GLIX_FLOODS=full the whole ones.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from glixd.backends.bus_library import Message, MessageType, Variant, marshalled
from glixd.protocol import BUS_NAME, MAX_CONNECTIONS_PER_UID, OBJECT_PATH
from tests.support import raw_bus
from tests.support.daemon import RunningDaemon, Site, Template, new_site
from tests.support.flood import FULL, GROWTH, OWN, PEAK, SLOWEST, Bystander, Result, flood, sized, warm, yardstick
from tests.support.private_bus import open_bus
from tests.support.raw_bus import RawBus

pytestmark = [pytest.mark.integration, pytest.mark.nix, pytest.mark.timeout(600)]

FILES: Final = 12
"""Descriptors that it may have more: its own work, since a connection of the bus needs none."""


@dataclass
class World:
    """A daemon on a bus that every uid may use."""

    site: Site
    daemon: RunningDaemon
    address: str
    other: str
    """Another bus, without a daemon."""

    def flood(self, attack: Any) -> Result:
        """Let an attack loose on the bus, and judge what may be judged of all of them."""
        pid = self.daemon.pid
        result = flood(self.daemon, self.address, attack, self.address)
        assert self.daemon.running
        assert self.daemon.pid == pid, "no restart"
        assert result.unmapped.total() == 0, result.unmapped
        for transport in ("socket", "bus"):
            assert result.bystander.times[transport]
            assert result.bystander.quantile(transport, 0.99) < SLOWEST
        assert result.peak - result.before.rss < PEAK
        assert result.after.rss - result.before.rss < GROWTH
        assert result.after.descriptors <= result.before.descriptors + OWN
        return result

    def yardstick(self, attack: Any) -> Bystander:
        """What a bystander meets under the same attack where nothing is done for an answer."""
        return yardstick(self.other, attack)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("bus-floods")
    (folder / "other").mkdir()
    with (
        new_site(folder / "site", template.nix, template) as site,
        open_bus(folder) as (_, address),
        open_bus(folder / "other") as (_, other),
    ):
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = address
        site.extra |= {"GLIXD_CALLS_PER_SECOND": "20", "GLIXD_CALLS_AT_ONCE": "40"}
        with RunningDaemon(site, bus=address) as daemon:
            warm(daemon)
            flood(daemon, address, nothing, address).print()
            yield World(site, daemon, address, other)


# -- the attacks; each runs in a process of its own -------------------------------------------------------------------


async def nothing(_: str) -> Counter[str]:
    """No attack at all: what the bystander meets on this machine now."""
    await asyncio.sleep(0.5)
    return Counter()


async def many_connections_with_many_calls(address: str) -> Counter[str]:
    """250 connections with 100 calls each, all sent before an answer is read."""
    buses = [await RawBus.open(address) for _ in range(sized(250, 60))]
    calls = [raw_bus.call(("Ping", "ListHosts", "GetCapabilities", "Nonsense")[number % 4]) for number in range(100)]
    for bus in buses:
        bus.send(*calls)
    counted = await asyncio.gather(*(bus.answers(100) for bus in buses))
    return sum(counted, Counter())


async def many_signals_at_us(address: str) -> Counter[str]:
    """Signals and answers that nobody asked for, among them forged news of the bus itself."""
    bus = await RawBus.open(address)
    forged = [
        _message(MessageType.SIGNAL, member="NameOwnerChanged", signature="sss", body=[":1.1", ":1.1", ""]),
        _message(MessageType.SIGNAL, member="NameAcquired", signature="s", body=["org.example.Mine"]),
        _message(MessageType.SIGNAL, member="NameOwnerChanged", signature="v", body=[Variant("s", "")]),
    ]
    for _ in range(sized(10_000, 1_000)):
        bus.send(*forged)
    await bus.drain()
    bus.send(raw_bus.call("Ping"))
    return await bus.answers(1)


def _message(kind: MessageType, **fields: Any) -> bytes:
    interface = "org.freedesktop.DBus"
    return marshalled(
        Message(destination=BUS_NAME, path=OBJECT_PATH, interface=interface, message_type=kind, serial=1, **fields)
    )


async def huge_messages(address: str) -> Counter[str]:
    """Calls of 28 MB, as large as the bus carries."""
    bus = await RawBus.open(address)
    size = 28 * 1000 * 1000
    number = sized(5, 2)
    head = raw_bus.call("Add", "asa{sv}", ["firefox"], {})
    huge = raw_bus.call("Ping", "s", "x" * size)
    for _ in range(number):
        bus.send(head[:0] + huge)
        await bus.drain()
    return await bus.answers(number)


async def many_signatures(address: str) -> Counter[str]:
    """20,000 signatures, no two alike, each a call of its own."""
    bus = await RawBus.open(address)
    found: Counter[str] = Counter()
    number = sized(20_000, 1_000)
    for start in range(0, number, 200):
        for distinct in range(start, start + 200):
            signature = "".join("sbxd"[(distinct >> shift) & 3] for shift in range(0, 20, 2)) + "s" * 200
            body = [{"s": "", "b": False, "x": 0, "d": 0.0}[token] for token in signature]
            bus.send(raw_bus.call("Ping", signature, *body))
        found += await bus.answers(200)
    return found


async def strange_messages(address: str) -> Counter[str]:
    """Messages that the bus lets through and nobody expects: other byte orders, deep variants, odd types and paths."""
    bus = await RawBus.open(address)
    deep: Any = Variant("s", "bottom")
    for _ in range(60):
        deep = Variant("v", deep)
    strange = [
        raw_bus.call("Ping", "a{sv}", {"x": deep}),
        raw_bus.call("Ping", "", interface=None),
        raw_bus.call("Ping", "", path="/"),
        raw_bus.call("Ping", "", path="/org/glixos/Glix1/Transaction/" + "0" * 26),
        raw_bus.call("Get", "ss", "", "", interface="org.freedesktop.DBus.Properties"),
        raw_bus.call("Set", "ssv", "a", "b", Variant("s", "c"), interface="org.freedesktop.DBus.Properties"),
        raw_bus.call("Add", "asa{sv}", [], {}),
        raw_bus.call("Add", "ava{sv}", [Variant("s", "x")], {}),
        raw_bus.call("Add", "aya{sv}", b"firefox", {}),
        raw_bus.call("Add", "asa{sv}", ["x" * 100_000], {}),
        raw_bus.call("Add", "asa{sv}", ["x"] * 20_000, {}),
        raw_bus.call("Show", "sa{sv}", "", {"host": Variant("(ss)", ["a", "b"])}),
        raw_bus.call("Show", "sa{sv}", "firefox", {"x" * 20_000: Variant("s", "")}),
        raw_bus.call("List", "a{sv}", {str(number): Variant("y", 1) for number in range(5000)}),
        raw_bus.call("Wait", "sa{sv}", "0" * 26, {"timeout": Variant("d", float("nan"))}),
        raw_bus.call("Wait", "sa{sv}", "0" * 26, {"timeout": Variant("d", float("inf"))}),
        raw_bus.call("W" * 255, "", interface="a." + "b" * 250),
        _other_order(),
    ]
    rounds = sized(50, 5)
    for _ in range(rounds):
        bus.send(*strange[:-1])
        bus.send_raw(strange[-1])
    return await bus.answers(rounds * len(strange))


def _other_order() -> bytes:
    """A ping as a big-endian machine would send it."""

    def text(code: int, kind: str, value: str) -> bytes:
        return bytes([code, 1]) + kind.encode() + b"\0" + struct.pack(">I", len(value)) + value.encode() + b"\0"

    fields = b""
    for code, kind, value in (
        (1, "o", OBJECT_PATH),
        (2, "s", "org.freedesktop.DBus.Peer"),
        (3, "s", "Ping"),
        (6, "s", BUS_NAME),
    ):
        fields += b"\0" * (-len(fields) % 8) + text(code, kind, value)
    header = b"B\1\0\1" + struct.pack(">III", 0, 77, len(fields)) + fields
    return header + b"\0" * (-len(header) % 8)


async def broken_messages(address: str) -> Counter[str]:
    """Bytes that are no messages: the bus cuts their sender off, and nobody else hears of it."""
    ping = raw_bus.call("Ping")
    found: Counter[str] = Counter()
    for number in range(sized(300, 60)):
        bus = await RawBus.open(address)
        place = number % len(ping)
        bus.send_raw(ping[:place] + bytes([ping[place] ^ 0x55]) + ping[place + 1 :])
        bus.send_raw(b"\xff" * 64)
        await bus.drain()
        bus.vanish()
        found[raw_bus.CLOSED] += 1
    return found


async def callers_that_vanish(address: str) -> Counter[str]:
    """Connections that are gone before an answer can come."""
    calls = [raw_bus.call("Ping"), raw_bus.call("Wait", "sa{sv}", "0" * 26, {}), raw_bus.call("GetCapabilities")]
    found: Counter[str] = Counter()
    for _ in range(sized(1_000, 150)):
        bus = await RawBus.open(address)
        bus.send(*calls * 10)
        await bus.drain()
        bus.vanish()
        found[raw_bus.CLOSED] += 30
    return found


async def calls_without_answers(address: str) -> Counter[str]:
    """Calls of one who never reads: the bus holds the answers, and the daemon does not wait for it."""
    bus = await RawBus.open(address)
    for _ in range(sized(200, 40)):
        bus.send(*[raw_bus.call("Introspect", "", interface="org.freedesktop.DBus.Introspectable")] * 5)
        await bus.drain()
        await asyncio.sleep(0.01)
    bus.vanish()
    return Counter({raw_bus.CLOSED: 1})


async def objects_again_and_again(address: str) -> Counter[str]:
    """The one standard call that looks into the database."""
    bus = await RawBus.open(address)
    number = sized(5_000, 600)
    bus.send(*[raw_bus.call("GetManagedObjects", "", interface="org.freedesktop.DBus.ObjectManager")] * number)
    return await bus.answers(number)


ATTACKS: Final = (
    many_connections_with_many_calls,
    many_signals_at_us,
    huge_messages,
    many_signatures,
    strange_messages,
    broken_messages,
    callers_that_vanish,
    calls_without_answers,
    objects_again_and_again,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__.replace("_", "-"))
def test_others_are_served_and_nothing_grows(world: World, attack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = world.flood(attack)
    with capsys.disabled():
        result.print()
        if FULL and attack is not broken_messages:
            print(f"  where a service does nothing but answer: {world.yardstick(attack)}")
    if attack is many_connections_with_many_calls:
        assert result.answers.total() == sized(250, 60) * 100
        assert raw_bus.CLOSED not in result.answers
        assert result.answers["LimitExceeded"] >= (sized(250, 60) - MAX_CONNECTIONS_PER_UID - 1) * 100
    if attack is huge_messages:
        assert result.answers == {"TooLarge": sized(5, 2)}
    assert FULL or result.seconds < 60
    assert result.open_files <= result.before.descriptors + FILES
