# SPDX-License-Identifier: GPL-3.0-or-later
"""What the D-Bus library does by itself, and why its connection is not used: controls for the tests of ours.

Each defect is shown on the library as it is, so that a release which has mended it is noticed, and next to it what our
connection does in the same place.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from dbus_next import Message as PlainMessage
from dbus_next import MessageType as PlainType
from dbus_next import SignatureTree
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.aio import MessageBus

from glixd.backends import bus_library
from glixd.backends.bus import Bus, BusError, Call
from glixd.protocol import MAX_BUS_MESSAGE
from tests.integration.test_bus_transport import NAME, PATH, call, connection, echo
from tests.support.loop import PATIENCE, on_loop, until
from tests.support.private_bus import private_bus, running

pytestmark = pytest.mark.integration

SIGNALS: Final = 500


def tick(size: int = 100) -> Any:
    return PlainMessage(
        path=PATH,
        interface=NAME,
        member="Tick",
        signature="s",
        body=["x" * size],
        message_type=PlainType.SIGNAL,
    )


@asynccontextmanager
async def library(address: str, **options: Any) -> AsyncIterator[Any]:
    """A connection of the library's own, whose socket we close: it never does."""
    bus = await MessageBus(bus_address=address, **options).connect()
    try:
        yield bus
    finally:
        bus._sock.close()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_the_library_loses_its_connection_when_the_bus_is_slow(tmp_path: Path) -> None:
    """Control: a full socket buffer is the end of the library's own connection."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
        async with library(address) as bus:
            process.send_signal(signal.SIGSTOP)
            try:
                for _ in range(SIGNALS):
                    with suppress(Exception):  # as its caller, who has a signal to send and expects nothing
                        bus.send(tick(10_000))
                await until(lambda: not bus.connected)
            finally:
                process.send_signal(signal.SIGCONT)

    with running(tmp_path) as (process, address):
        asyncio.run(main())


@on_loop
async def test_ours_waits_for_a_slow_bus_and_loses_nothing(tmp_path: Path) -> None:
    heard: list[Call] = []
    with running(tmp_path) as (process, address):
        async with connection(address) as listener, connection(address) as bus:
            await listener.subscribe(NAME, "Tick", heard.append)
            process.send_signal(signal.SIGSTOP)
            for _ in range(SIGNALS):
                bus.signal(PATH, NAME, "Tick", "s", ["x" * 10_000])
            assert bus.congested
            process.send_signal(signal.SIGCONT)
            await until(lambda: len(heard) == SIGNALS)
            assert not bus.lost.done()


def test_the_library_keeps_every_signature_and_is_made_to_forget() -> None:
    for number in range(2 * bus_library.MAX_SIGNATURES):
        SignatureTree._get("".join("sbx"[(number >> shift) & 1] for shift in range(12)) + "d" * 20)
    assert len(SignatureTree._cache) >= 2 * bus_library.MAX_SIGNATURES
    if bus_library.NAME == "dbus-next":
        bus_library.bound()
        assert len(SignatureTree._cache) == 0


@on_loop
async def test_the_library_is_given_nothing_of_a_message_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    class Counting(Unmarshaller):  # type: ignore[misc]
        """The library's own, with a note of how much it is given."""

        def __init__(self, stream: Any, *arguments: Any) -> None:
            given.append(len(stream.getbuffer()))
            super().__init__(stream, *arguments)

    with private_bus(tmp_path) as address:
        async with echo(address) as service, connection(address) as client:
            monkeypatch.setattr(bus_library._unmarshaller, "Unmarshaller", Counting)
            client._stream.send("", _huge(client))
            assert await client.uid(service.unique_name) == os.getuid()
            assert (await client.call(call("s", "next"))).body == ["next"]
    assert given
    assert max(given) < MAX_BUS_MESSAGE


def _huge(client: Bus) -> bytes:
    """A call of 28 MB, more than our own connection sends."""
    message = call("s", "x" * 28_000_000)
    message.serial = client._next_serial()
    return bus_library.marshalled(message)


@on_loop
async def test_descriptors_that_are_passed_never_arrive(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address), library(address, negotiate_unix_fd=True) as passing:
            before = len(descriptors())
            for _ in range(20):
                with socket.socket() as passed:
                    answer = await asyncio.wait_for(passing.call(_with_descriptor(passed.fileno())), PATIENCE)
                    assert answer.message_type is PlainType.ERROR
            assert len(descriptors()) <= before


def _with_descriptor(number: int) -> Any:
    return PlainMessage(
        destination=NAME, path=PATH, interface=NAME, member="Echo", signature="h", body=[0], unix_fds=[number]
    )


@on_loop
async def test_a_connection_that_is_closed_leaves_no_descriptor(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        before = len(descriptors())
        for _ in range(20):
            async with connection(address):
                pass
        assert len(descriptors()) <= before


@on_loop
async def test_a_call_on_a_bus_that_is_gone_is_refused_where_that_of_the_library_hangs(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        async with connection(address) as client, library(address) as other:
            process.kill()
            await asyncio.wait_for(client.lost, PATIENCE)
            await until(lambda: not other.connected)
            hanging = asyncio.ensure_future(other.call(_plain_call()))
            with pytest.raises(BusError):
                await asyncio.wait_for(client.call(call()), PATIENCE)
            done, _ = await asyncio.wait({hanging}, timeout=0.3)
            assert not done
            hanging.cancel()
            await asyncio.wait({hanging})


def _plain_call() -> Any:
    return PlainMessage(destination=NAME, path=PATH, interface=NAME, member="Echo")
