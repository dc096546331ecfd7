# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon alone: round trips on both transports, many clients at once, memory, and the time until it serves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

from glixd.protocol import BUS_NAME, MANAGER_INTERFACE, OBJECT_PATH
from tests.bench.measure import Case, Figure, Report
from tests.bench.programs import PYTHON
from tests.bench.world import QUIET, Client, World, bare_python, running, timed
from tests.support.daemon import RpcClient, RunningDaemon
from tests.support.private_bus import private_bus

OUTSTANDING: Final = 32
CLIENTS: Final = 32
FEWER: Final = (1, 8)
BARE_NAME: Final = "org.glixos.Bench"
BUSCTL: Final = "to a bare service"
BARE_SERVICE: Final = """
import asyncio, importlib, sys
library = importlib.import_module(sys.argv[3])
MessageBus = importlib.import_module(sys.argv[3] + ".aio").MessageBus

def answer(message):
    if message.message_type is library.MessageType.METHOD_CALL:
        return library.Message.new_method_return(message, "s", ["0.1.0"])

async def main():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    bus.add_message_handler(answer)
    await bus.request_name(sys.argv[2])
    print("ready", flush=True)
    await bus.wait_for_disconnect()

asyncio.run(main())
"""
"""The least that a service on the same library can do: an answer to everything, and nothing looked at."""
LISTENER: Final = """
import asyncio, sys
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

async def main():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    heard = 0
    def hear(message):
        nonlocal heard
        heard += message.message_type is MessageType.SIGNAL
    rule = f"type='signal',sender='{sys.argv[2]}'"
    await bus.call(Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch",
                           signature="s", body=[rule]))
    bus.add_message_handler(hear)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(heard, flush=True)

asyncio.run(main())
"""
"""Counts the signals that come until its input ends."""
LIBRARIES: Final = {"dbus_next": "bus", "dbus_fast": "bus, dbus-fast"}
"""The libraries that the daemon can serve the bus with, and what their figures begin with."""


def round_trips(report: Report, world: World, rounds: int) -> None:
    """One query at a time, and 32 under way, on the socket and on the bus; beside them a bare service on that bus."""
    for library, head in LIBRARIES.items():
        chosen = {"GLIXD_BUS_LIBRARY": library.replace("_", "-")}
        with (
            private_bus(world.folder) as address,
            world.daemon(f"trips-{library}", packages=100, bus=address, extra=chosen) as daemon,
            _program(BARE_SERVICE, address, BARE_NAME, library),
        ):
            if library == "dbus_next":
                _on_the_socket(report, daemon, rounds)
                _by_busctl(report, address, max(3, rounds // 100))
            asyncio.run(_on_the_bus(report, head, address, rounds))


def _on_the_socket(report: Report, daemon: RunningDaemon, rounds: int) -> None:
    with daemon.connect() as client:
        for name in ("Ping", "List", "Show"):
            parameters = {"name": "package-00000"} if name == "Show" else {}
            values = [_timed(client, name, parameters) for _ in range(rounds + 20)][20:]
            goal = 250.0 if name == "Ping" else None
            report.add(Figure(f"socket: {name}, one at a time", tuple(values), "µs", goal=goal))
        report.add(Figure(f"socket: Ping, {OUTSTANDING} under way", _pipelined(client, rounds), "1/s"))


def _by_busctl(report: Report, address: str, rounds: int) -> None:
    """What a script pays: a whole process for one call."""
    call = ["busctl", f"--address={address}", "call"]
    cases: dict[str, Case] = {
        BUSCTL: lambda: timed([*call, BARE_NAME, OBJECT_PATH, BARE_NAME, "Ping"], os.environ),
        "to glixd": lambda: timed([*call, BUS_NAME, OBJECT_PATH, MANAGER_INTERFACE, "Ping", "a{sv}", "0"], os.environ),
    }
    report.interleaved("busctl call", cases, rounds, baseline=BUSCTL)


def mutations(report: Report, world: World, each: int) -> None:
    """Mutations from 32 clients at once: all of them durable, one commit each; and what the daemon holds afterwards."""
    limits = {"GLIXD_PENDING": str(2 * CLIENTS), "GLIXD_PENDING_PER_UID": str(2 * CLIENTS)}
    quiet = {"GLIXD_EVALUATE": "false", "GLIXD_CONNECTIONS_PER_UID": str(2 * CLIENTS)}
    with (
        private_bus(world.folder) as address,
        world.daemon("many", packages=CLIENTS, bus=address, extra={**quiet, **limits}) as daemon,
    ):
        with daemon.connect() as client:
            took = []
            for number in range(each * 2):
                began = time.perf_counter()
                client.run("Disable" if number % 2 else "Enable", names=["package-00000"])
                took.append((time.perf_counter() - began) * 1000)
        report.add(Figure("mutation: one client, one at a time", tuple(took)))
        for clients in FEWER:
            report.add(_rate(daemon, clients, each))
        idle = _resident(daemon.pid)
        with _program(LISTENER, address, BUS_NAME) as listener:
            began = time.perf_counter()
            rate, told = _flood(daemon, CLIENTS, each)
            seconds = time.perf_counter() - began
            heard = int(listener.communicate()[0])
        report.add(Figure(f"mutations: {CLIENTS} clients at once", (rate,), "1/s", goal=100.0))
        report.add(Figure(f"signals: on the bus, while {CLIENTS} clients change", (heard / seconds,), "1/s"))
        report.add(Figure(f"signals: on the socket, to {CLIENTS} clients", (told / seconds,), "1/s"))
        report.add(Figure("memory: after the changes of many", (_resident(daemon.pid),), "MiB", "before them", idle))


def _rate(daemon: RunningDaemon, clients: int, each: int) -> Figure:
    return Figure(f"mutations: {clients} clients at once", (_flood(daemon, clients, each)[0],), "1/s")


def _flood(daemon: RunningDaemon, clients: int, each: int) -> tuple[float, int]:
    """How many changes a second so many clients make, each of them committed, and how much they were told meanwhile."""
    before = len(daemon.site.commits())
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        told = sum(threads.map(partial(_mutate, daemon, each=each), range(clients)))
    seconds = time.perf_counter() - began
    made = len(daemon.site.commits()) - before
    if made != clients * each:
        raise RuntimeError(f"{clients * each} mutations made {made} commits")
    return made / seconds, told


def memory(report: Report, world: World, sizes: tuple[int, ...]) -> None:
    """What the daemon holds when it is idle, just started; and when every package was read, and one added."""
    for size in sizes:
        with world.daemon(f"memory-{size}", packages=size) as daemon:
            daemon.stop()
            daemon.start()
            goal = 40.0 if size == min(sizes) else None
            report.add(Figure(f"memory: idle, {size} packages", (_resident(daemon.pid),), "MiB", goal=goal))
            report.add(Figure(f"memory: its own, idle, {size} packages", (_resident(daemon.pid, "RssAnon"),), "MiB"))
            daemon.call("List", include_disabled=True)
            daemon.done("Add", refs=["hello"], evaluate=False)
            report.add(Figure(f"memory: after a change, {size} packages", (_resident(daemon.pid),), "MiB"))


def readiness(report: Report, world: World, rounds: int) -> None:
    """From the start of the process until it serves; commands that start it; and a socket that systemd holds."""
    with world.site("ready", packages=100) as site:
        environment = site.environment()
        empty = world.folder / "no-compiled-files"
        client = Client(site)

        def started(extra: dict[str, str]) -> float:
            began = time.perf_counter()
            with running(RunningDaemon(site, extra={**QUIET, **extra})):
                return time.perf_counter() - began

        def cold(*words: str) -> float:
            took = client(*words)
            site.end_daemon()
            return took

        turns = count()
        cases: dict[str, Case] = {
            PYTHON: lambda: bare_python(environment),
            "compiled files": lambda: started({}),
            "no compiled files": lambda: started(
                {"PYTHONPYCACHEPREFIX": os.fspath(empty), "PYTHONDONTWRITEBYTECODE": "1"}
            ),
            "list, which starts the daemon": lambda: cold("list"),
            "set config, which starts it": lambda: cold("set", "package-00000", f"config.number={next(turns)}"),
        }
        report.interleaved("ready", cases, rounds, baseline=PYTHON)
        values = [_activated(site.environment(QUIET), site.runtime / "activated.sock") * 1000 for _ in range(rounds)]
        report.add(Figure("activation to the first answer", tuple(values), goal=200.0))


def _timed(client: RpcClient, method: str, parameters: dict[str, Any]) -> float:
    began = time.perf_counter()
    client.call(method, **parameters)
    return (time.perf_counter() - began) * 1e6


def _pipelined(client: RpcClient, rounds: int) -> tuple[float, ...]:
    """Round trips a second with so many requests under way, for a few stretches."""
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        numbers = [client.send("Ping") for _ in range(OUTSTANDING)]
        for _ in range(rounds):
            client.answer(numbers.pop(0))
            numbers.append(client.send("Ping"))
        for number in numbers:
            client.answer(number)
        rates.append((rounds + OUTSTANDING) / (time.perf_counter() - began))
    return tuple(rates)


async def _on_the_bus(report: Report, head: str, address: str, rounds: int) -> None:
    bus = await MessageBus(bus_address=address).connect()

    def glixd() -> Message:
        return Message(BUS_NAME, OBJECT_PATH, MANAGER_INTERFACE, "Ping", signature="a{sv}", body=[{}])

    def bare() -> Message:
        return Message(BARE_NAME, OBJECT_PATH, BARE_NAME, "Ping")

    try:
        times: dict[str, list[float]] = {"glixd": [], "bare": []}
        for number in range(rounds + 20):
            for name, message in (("bare", bare), ("glixd", glixd)):
                began = time.perf_counter()
                await _answered(bus, message)
                if number >= 20:
                    times[name].append((time.perf_counter() - began) * 1e6)
        base = Figure(f"{head}: a bare service, one at a time", tuple(times["bare"]), "µs")
        report.add(base)
        report.add(
            Figure(
                f"{head}: Ping, one at a time",
                tuple(times["glixd"]),
                "µs",
                baseline="a bare service on the same library",
                base=base.median,
                goal=1.3,
            )
        )
        for name, message in (("a bare service", bare), ("Ping", glixd)):
            report.add(
                Figure(f"{head}: {name}, {OUTSTANDING} under way", await _bus_rates(bus, message, rounds), "1/s")
            )
    finally:
        bus.disconnect()


async def _bus_rates(bus: MessageBus, message: Callable[[], Message], rounds: int) -> tuple[float, ...]:
    rates = []
    for _ in range(5):
        began = time.perf_counter()

        async def stream() -> None:
            for _ in range(rounds // OUTSTANDING + 1):
                await _answered(bus, message)

        await asyncio.gather(*(stream() for _ in range(OUTSTANDING)))
        rates.append((rounds // OUTSTANDING + 1) * OUTSTANDING / (time.perf_counter() - began))
    return tuple(rates)


async def _answered(bus: MessageBus, message: Callable[[], Message]) -> None:
    answer = await asyncio.wait_for(bus.call(message()), 60)
    if answer is None or answer.message_type is MessageType.ERROR:
        raise RuntimeError(f"no answer: {answer.body if answer else None}")


@contextmanager
def _program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program beside the daemon, once it says that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError("a program beside the daemon did not start")
            yield process
        finally:
            process.kill()


def _mutate(daemon: RunningDaemon, number: int, *, each: int) -> int:
    """Change so often, and say how much was told meanwhile."""
    name = f"package-{number:05}"
    with daemon.connect() as client:
        for turn in range(each):
            ended = client.run("Disable" if turn % 2 else "Enable", names=[name])
            if ended["state"] != "succeeded":
                raise RuntimeError(f"a mutation ended as {ended['state']}: {ended.get('error')}")
        return len(client.notifications)


def _resident(pid: int, kind: str = "VmRSS") -> float:
    """Memory of a process in MiB: all that is resident, libraries that others map too included, or another kind."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{kind}:"))) / 1024


def _activated(environment: dict[str, str], path: Path) -> float:
    """Seconds from connecting to a socket that is held for the daemon to its first answer."""
    words = ["systemd-socket-activate", f"--listen={path}"]
    kept = [f"--setenv={name}" for name in environment]
    command = [
        *words,
        *kept,
        sys.executable,
        "-m",
        "glixd",
        "--mode",
        "user",
        "--socket",
        os.fspath(path),
        "--bus",
        "none",
    ]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            client = _connected(path)
            began = time.perf_counter()
            with client:
                client.call("Ping")
                return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(60)
            path.unlink(missing_ok=True)


def _connected(path: Path) -> RpcClient:
    """A connection, as soon as there is somebody to hold the socket; the daemon starts with the connection."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return RpcClient(path)
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.001)
