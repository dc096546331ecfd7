# SPDX-License-Identifier: GPL-3.0-or-later
"""Floods: attackers in a process of their own, as another user where that is possible, and a bystander who is served meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from glixd.backends.bus import Bus, Message, Variant
from glixd.protocol import BUS_NAME, MANAGER_INTERFACE, OBJECT_PATH, ErrorCode
from tests.support.bare_service import bare_service
from tests.support.daemon import PATIENCE, RunningDaemon
from tests.support.raw_bus import CLOSED, RESULT
from tests.support.socket_client import connected

FULL: Final = os.environ.get("GLIX_FLOODS") == "full"
"""Whether the floods have their whole size; ./check runs smaller ones."""
ATTACKER: Final = 65534
"""The uid of the attackers, where we may change ours; the bus lets in only whom the machine has a name for."""
GROWTH: Final = 16.0
"""MiB that a daemon may hold more after a flood than before."""
PEAK: Final = 96.0
"""MiB that it may hold more in the middle of one: messages and answers under way."""
SLOWEST: Final = 20_000.0
"""Milliseconds in which 99 of 100 answers to a bystander come, however busy the machine is; on a quiet one it is 100."""
OWN: Final = 4
"""Descriptors that a daemon may have more afterwards: what it opened for a question of a kind that nobody had asked it before."""
STANDARD: Final = "org.freedesktop.DBus.Error."

Attack = Callable[[str], Coroutine[Any, Any, Counter[str]]]
Ask = Callable[[], Awaitable[object]]
Asked = dict[str, Ask]


def sized(full: int, small: int) -> int:
    """A number of connections, calls or bytes."""
    return full if FULL else small


@dataclass(frozen=True)
class Vitals:
    """What a process holds."""

    rss: float
    """MiB."""
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(int(status["VmRSS"].split()[0]) / 1024, descriptors, int(status["Threads"]))

    def __str__(self) -> str:
        return f"{self.rss:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


@dataclass
class Bystander:
    """Somebody who asks one thing after the other, over both transports, and notes how long each answer takes."""

    times: dict[str, list[float]] = field(default_factory=dict)

    def note(self, transport: str, began: float) -> None:
        self.times.setdefault(transport, []).append((time.monotonic() - began) * 1000)

    def quantile(self, transport: str, part: float) -> float:
        """Milliseconds in which that part of the answers had come."""
        times = sorted(self.times[transport])
        return times[min(len(times) - 1, int(len(times) * part))]

    def __str__(self) -> str:
        return "; ".join(
            f"{transport}: {len(times)} answers, p50 {self.quantile(transport, 0.5):.1f} ms, "
            f"p99 {self.quantile(transport, 0.99):.1f} ms, worst {max(times):.0f} ms"
            for transport, times in self.times.items()
        )


@dataclass
class Result:
    """What became of a flood."""

    name: str
    answers: Counter[str]
    seconds: float
    bystander: Bystander
    before: Vitals
    after: Vitals
    peak: float
    """The most memory at any moment, in MiB."""
    open_files: int
    """The most descriptors at any moment."""

    @property
    def unmapped(self) -> Counter[str]:
        """Answers that are neither a result nor an error of the table or of the D-Bus specification."""
        known = {RESULT, CLOSED, *(code.value for code in ErrorCode if code is not ErrorCode.INTERNAL)}
        return Counter(
            {name: times for name, times in self.answers.items() if name not in known and not name.startswith(STANDARD)}
        )

    def print(self) -> None:
        """Say it all in a few lines."""
        answers = ", ".join(f"{times} {name}" for name, times in self.answers.most_common()) or "none asked for"
        print(f"flood: {self.name}: {self.seconds:.1f} s; {answers}; {self.unmapped.total()} unmapped")
        print(f"  the bystander meanwhile: {self.bystander}")
        print(
            f"  the daemon: {self.before} before, at most {self.peak:.1f} MiB and {self.open_files} descriptors, "
            f"{self.after} after"
        )


def flood(daemon: RunningDaemon, address: str, attack: Attack, target: str) -> Result:
    """Let `attack` loose on `target` from a process of its own, and be served meanwhile."""
    before = Vitals.of(daemon.pid)
    watch = Watch(daemon.pid)
    began = time.monotonic()
    bystander, answers = _attacked(attack, target, lambda: _places(address, daemon.socket), watch)
    seconds = time.monotonic() - began
    settled = _settled(daemon.pid, before)
    return Result(attack.__name__, answers, seconds, bystander, before, settled, watch.memory, watch.files)


def yardstick(address: str, attack: Attack) -> Bystander:
    """What a bystander meets on a bus where a service is attacked that does nothing but answer: the bus's own part."""
    with bare_service(address):
        bystander, _ = _attacked(attack, address, lambda: _places(address), Watch(os.getpid()))
    return bystander


@dataclass
class Watch:
    """The most that a process held while somebody looked."""

    pid: int
    memory: float = 0.0
    files: int = 0

    def look(self) -> None:
        """Look once."""
        vitals = Vitals.of(self.pid)
        self.memory, self.files = max(self.memory, vitals.rss), max(self.files, vitals.descriptors)


def _attacked(
    attack: Attack, target: str, places: Callable[[], AbstractAsyncContextManager[Asked]], watch: Watch
) -> tuple[Bystander, Counter[str]]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    attacker = context.Process(target=_attack, args=(attack, target, theirs), daemon=True)
    attacker.start()
    theirs.close()
    try:
        return asyncio.run(_meanwhile(ours, places, watch))
    finally:
        attacker.kill()
        attacker.join()
        ours.close()


def _settled(pid: int, before: Vitals) -> Vitals:
    """What the process holds once it has noticed that the attackers are gone, and let go of what it kept for them."""
    deadline = time.monotonic() + PATIENCE / 4
    while True:
        vitals = Vitals.of(pid)
        let_go = vitals.descriptors <= before.descriptors + OWN and vitals.rss < before.rss + GROWTH
        if let_go or time.monotonic() > deadline:
            break
        time.sleep(0.02)  # nothing announces that a daemon has let go
    return vitals


def _attack(attack: Attack, target: str, told: Connection) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(ATTACKER, ATTACKER, ATTACKER)
        os.setresuid(ATTACKER, ATTACKER, ATTACKER)
    told.send("ready")
    told.recv()
    told.send(asyncio.run(attack(target)))


async def _meanwhile(
    attackers: Connection, places: Callable[[], AbstractAsyncContextManager[Asked]], watch: Watch
) -> tuple[Bystander, Counter[str]]:
    bystander = Bystander()
    assert attackers.poll(PATIENCE)
    attackers.recv()
    async with places() as asked:
        for ask in asked.values():
            await ask()
        attackers.send("go")
        over = asyncio.Event()
        asking = [asyncio.create_task(_asking(bystander, name, ask, over)) for name, ask in asked.items()]
        while not attackers.poll():
            watch.look()
            await asyncio.sleep(0.005)  # the curve of memory has to be looked at now and then
        over.set()
        await asyncio.gather(*asking)
    return bystander, attackers.recv()


@asynccontextmanager
async def _places(address: str, socket: Path | None = None) -> AsyncIterator[Asked]:
    """Where the bystander asks, each on a connection of its own."""
    async with AsyncExitStack() as kept:
        asked: Asked = {}
        if socket:
            client = await kept.enter_async_context(connected(socket))
            asked["socket"] = partial(client.call, "List")
        if address != "none":
            for name, message in (("bus", _list), ("the bus alone", _asked_of_the_bus)):
                bus = await Bus.connect(address)
                kept.push_async_callback(bus.close)
                asked[name] = partial(_call, bus, message)
        yield asked


async def _asking(bystander: Bystander, name: str, ask: Ask, over: asyncio.Event) -> None:
    """Ask one thing after the other until it is over; transports do not wait for each other."""
    while not over.is_set():
        began = time.monotonic()
        await asyncio.wait_for(ask(), PATIENCE)
        bystander.note(name, began)
        await asyncio.sleep(0.002)  # a person is no flood


async def _call(bus: Bus, message: Callable[[], Message]) -> Message:
    return await bus.call(message(), PATIENCE)


def _list() -> Message:
    return Message(
        destination=BUS_NAME,
        path=OBJECT_PATH,
        interface=MANAGER_INTERFACE,
        member="List",
        signature="a{sv}",
        body=[{"limit": Variant("x", 10)}],
    )


def _asked_of_the_bus() -> Message:
    """What the bus answers itself: how long it takes for its own part."""
    name = "org.freedesktop.DBus"
    return Message(destination=name, path="/org/freedesktop/DBus", interface=name, member="GetId")


def warm(daemon: RunningDaemon) -> None:
    """Let the daemon load what it loads late, and start all its threads."""
    with daemon.connect() as client:
        for methods in (("List", "Info", "History"), ("List", "Show", "ListTransactions", "ListHosts") * 10):
            missing = {client.send(name, **({"name": "none"} if name == "Show" else {})) for name in methods}
            while missing:
                missing.discard(client.receive().get("id"))
