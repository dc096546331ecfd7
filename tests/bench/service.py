# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon alone: round trips on both transports, many clients at once, memory, and the time until it serves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

from glixd.protocol import BUS_NAME, MANAGER_INTERFACE, OBJECT_PATH
from tests.bench.measure import Case, Figure, Report
from tests.bench.world import QUIET, World, bare_python
from tests.support.daemon import RpcClient, RunningDaemon
from tests.support.private_bus import private_bus

OUTSTANDING: Final = 32
CLIENTS: Final = 32
BARE_NAME: Final = "org.glixos.Bench"
BARE_SERVICE: Final = """
import asyncio, sys
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

def answer(message):
    if message.message_type is MessageType.METHOD_CALL:
        return Message.new_method_return(message, "s", ["0.1.0"])

async def main():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    bus.add_message_handler(answer)
    await bus.request_name(sys.argv[2])
    print("ready", flush=True)
    await bus.wait_for_disconnect()

asyncio.run(main())
"""
"""The least that a service on the same library can do: an answer to everything, and nothing looked at."""


def round_trips(report: Report, world: World, rounds: int) -> None:
    """One query at a time, and 32 under way, on the socket and on the bus; beside them a bare service on that bus."""
    with (
        private_bus(world.folder) as address,
        world.daemon("trips", packages=100, bus=address) as daemon,
        _bare_service(address),
    ):
        with daemon.connect() as client:
            for name in ("Ping", "List", "Show"):
                parameters = {"name": "package-00000"} if name == "Show" else {}
                values = [_timed(client, name, parameters) for _ in range(rounds + 20)][20:]
                goal = 250.0 if name == "Ping" else None
                report.add(Figure(f"socket: {name}, one at a time", tuple(values), "µs", goal=goal))
            report.add(Figure(f"socket: Ping, {OUTSTANDING} under way", _pipelined(client, rounds), "1/s"))
        asyncio.run(_on_the_bus(report, address, rounds))


def mutations(report: Report, world: World, each: int) -> None:
    """Mutations from 32 clients at once: all of them durable, one commit each."""
    limits = {"GLIXD_PENDING": str(2 * CLIENTS), "GLIXD_PENDING_PER_UID": str(2 * CLIENTS)}
    with world.daemon("many", packages=CLIENTS, extra={"GLIXD_EVALUATE": "false", **limits}) as daemon:
        with daemon.connect() as client:
            took = []
            for number in range(each * 2):
                began = time.perf_counter()
                client.run("Disable" if number % 2 else "Enable", names=["package-00000"])
                took.append((time.perf_counter() - began) * 1000)
        report.add(Figure("mutation: one client, one at a time", tuple(took)))
        before = len(daemon.site.commits())
        began = time.perf_counter()
        threads = [threading.Thread(target=_mutate, args=(daemon, number, each)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        made = len(daemon.site.commits()) - before
        if made != CLIENTS * each:
            raise RuntimeError(f"{CLIENTS * each} mutations made {made} commits")
        report.add(Figure(f"mutations: {CLIENTS} clients at once", (made / seconds,), "1/s", goal=100.0))


def memory(report: Report, world: World, sizes: tuple[int, ...]) -> None:
    """What the daemon holds when it is idle, after every package was read once."""
    for size in sizes:
        with world.daemon(f"memory-{size}", packages=size) as daemon:
            daemon.call("List", include_disabled=True)
            goal = 40.0 if size == min(sizes) else None
            report.add(Figure(f"memory: idle, {size} packages", (_resident(daemon.pid),), "MB", goal=goal))


def readiness(report: Report, world: World, rounds: int) -> None:
    """From the start of the process until it serves; and from the first connection to a socket that systemd holds."""
    with world.site("ready", packages=100) as site:
        environment = site.environment()
        empty = world.folder / "no-compiled-files"

        def started(extra: dict[str, str]) -> float:
            daemon = RunningDaemon(site, extra={**QUIET, **extra})
            began = time.perf_counter()
            with daemon:
                return time.perf_counter() - began

        cases: dict[str, Case] = {
            "python3 -I -c pass": lambda: bare_python(environment),
            "compiled files": lambda: started({}),
            "no compiled files": lambda: started(
                {"PYTHONPYCACHEPREFIX": os.fspath(empty), "PYTHONDONTWRITEBYTECODE": "1"}
            ),
        }
        report.interleaved("ready", cases, rounds, baseline="python3 -I -c pass")
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


async def _on_the_bus(report: Report, address: str, rounds: int) -> None:
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
        base = Figure("bus: a bare service, one at a time", tuple(times["bare"]), "µs")
        report.add(base)
        report.add(
            Figure(
                "bus: Ping, one at a time",
                tuple(times["glixd"]),
                "µs",
                baseline="a bare service on the same library",
                base=base.median,
                goal=1.3,
            )
        )
        for name, message in (("a bare service", bare), ("Ping", glixd)):
            report.add(Figure(f"bus: {name}, {OUTSTANDING} under way", await _bus_rates(bus, message, rounds), "1/s"))
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
def _bare_service(address: str) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", BARE_SERVICE, address, BARE_NAME],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError("the bare service did not start")
            yield
        finally:
            process.kill()


def _mutate(daemon: RunningDaemon, number: int, each: int) -> None:
    name = f"package-{number:05}"
    with daemon.connect() as client:
        for turn in range(each):
            ended = client.run("Disable" if turn % 2 else "Enable", names=[name])
            if ended["state"] != "succeeded":
                raise RuntimeError(f"a mutation ended as {ended['state']}: {ended.get('error')}")


def _resident(pid: int) -> float:
    """Resident memory of a process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


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
