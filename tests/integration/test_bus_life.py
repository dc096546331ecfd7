# SPDX-License-Identifier: GPL-3.0-or-later
"""The bus stands still, goes on, dies and comes back: the socket is served throughout, and changes are not lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from glixd.backends.bus import Bus, Call, Message
from glixd.protocol import BUS_NAME, MANAGER_INTERFACE, OBJECT_PATH, TRANSACTION_INTERFACE
from tests.support import raw_bus
from tests.support.daemon import RunningDaemon, Site
from tests.support.loop import on_loop, until
from tests.support.private_bus import running
from tests.support.raw_bus import RESULT, RawBus

pytestmark = [pytest.mark.integration, pytest.mark.nix]


@contextmanager
def served(site: Site) -> Iterator[tuple[subprocess.Popen[str], str, RunningDaemon]]:
    with running(site.runtime) as (bus, address), RunningDaemon(site, bus=address) as daemon:
        yield bus, address, daemon


def pings(address: str) -> int:
    """How many of ten pings the daemon answers on the bus."""

    async def main() -> int:
        bus = await RawBus.open(address)
        bus.send(*[raw_bus.call("Ping")] * 10)
        answers = await bus.answers(10)
        bus.vanish()
        return answers[RESULT]

    return asyncio.run(main())


def test_a_bus_that_stands_still_holds_up_neither_the_socket_nor_a_change_and_goes_on(site: Site) -> None:
    with served(site) as (bus, address, daemon):
        assert pings(address) == 10
        bus.send_signal(signal.SIGSTOP)
        try:
            done = daemon.done("Add", refs=["firefox"])
            assert daemon.call("Ping")
        finally:
            bus.send_signal(signal.SIGCONT)
        assert done["commit"]
        assert pings(address) == 10


def test_a_bus_that_dies_leaves_a_users_daemon_on_its_socket_and_the_doctor_says_so(site: Site) -> None:
    with served(site) as (bus, address, daemon):
        assert pings(address) == 10
        bus.kill()
        bus.wait()
        assert daemon.done("Add", refs=["firefox"])["commit"]
        told = [check for check in daemon.call("Doctor")["checks"] if check["name"] == "bus"]
        assert [check["status"] for check in told] == ["WARN"]
        with running(site.runtime) as (_, again):
            assert daemon.running
            assert daemon.call("Ping")
            with pytest.raises(subprocess.CalledProcessError):
                _owner(again)
    assert site.commits()[-1] != site.commits()[0]


def test_a_new_daemon_takes_the_name_on_the_bus_that_came_back(site: Site) -> None:
    with served(site) as (bus, _, daemon):
        bus.kill()
        bus.wait()
        assert daemon.stop() == 0
    with served(site) as (_, address, daemon):
        assert pings(address) == 10
        assert _owner(address).strip().isdigit()


def _owner(address: str) -> str:
    """The pid of whoever has the name, as busctl says it."""
    bus = "org.freedesktop.DBus"
    words = ("call", bus, "/org/freedesktop/DBus", bus, "GetConnectionUnixProcessID", "s", BUS_NAME)
    return subprocess.run(
        ["busctl", f"--address={address}", *words], capture_output=True, text=True, check=True
    ).stdout.removeprefix("u ")


def test_who_never_reads_progress_holds_up_nobody(site: Site) -> None:
    """The bus keeps what one connection does not read; others are told at once."""

    @on_loop
    async def scenario() -> None:
        heard: list[Call] = []
        slow = await RawBus.open(address)
        prompt = await Bus.connect(address)
        await prompt.subscribe(TRANSACTION_INTERFACE, "Progress", heard.append)
        slow.send(*[raw_bus.call("Add", "asa{sv}", [name], {}) for name in ("firefox", "fd", "hello")])
        message = Message(
            destination=BUS_NAME,
            path=OBJECT_PATH,
            interface=MANAGER_INTERFACE,
            member="Add",
            signature="asa{sv}",
            body=[["ripgrep"], {}],
        )
        await prompt.call(message)
        await until(lambda: bool(heard) and heard[-1].body[0]["state"].value == "succeeded")
        assert (await slow.answers(3))[RESULT] == 3
        slow.vanish()
        await prompt.close()

    with served(site) as (_, address, _daemon):
        scenario()
