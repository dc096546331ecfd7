# SPDX-License-Identifier: GPL-3.0-or-later
"""The hardened connection to a real bus: what a stranger, a slow bus or a dead bus can't do to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from glixd.backends import bus as transport
from glixd.backends import bus_header, bus_library
from glixd.backends.bus import Bus, BusError, Call, Message, MessageFlag, Stencil, Variant
from glixd.errors import Failed
from glixd.protocol import ERROR_PREFIX, MAX_BUS_MESSAGE, ErrorCode
from tests.support.loop import PATIENCE, on_loop, until
from tests.support.private_bus import private_bus, running

NAME = "org.example.Echo"
PATH = "/org/example/Echo"


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[Bus]:
    bus = await Bus.connect(address)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def echo(address: str) -> AsyncIterator[Bus]:
    """A service that answers with what it was sent."""
    async with connection(address) as bus:
        bus.handler = lambda message: bus.answer(message, message.signature, message.body)
        await bus.request_name(NAME)
        yield bus


def call(signature: str = "", *body: object, member: str = "Echo", destination: str = NAME) -> Message:
    return Message(
        destination=destination, path=PATH, interface=NAME, member=member, signature=signature, body=list(body)
    )


@on_loop
async def test_much_that_is_sent_and_taken_at_once_does_not_end_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glixd.backends.bus._HIGH_WATER", 200)
    with private_bus(tmp_path) as address:
        async with echo(address), connection(address) as client:
            for _ in range(3):  # each answer is over the mark
                assert (await client.call(call("s", "x" * 1000), 10)).body == ["x" * 1000]


@on_loop
async def test_a_call_is_answered_with_every_type_we_use(tmp_path: Path) -> None:
    body = ["text ü", True, -(1 << 63), 1.5, ["a", "b"], {"k": Variant("as", ["v"])}, PATH]
    with private_bus(tmp_path) as address:
        async with echo(address), connection(address) as client:
            reply = await client.call(call("sbxdasa{sv}o", *body))
    assert reply.body == body


@on_loop
async def test_a_name_that_somebody_owns_is_refused_and_not_queued_for(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with connection(address) as second:
            left: list[str] = []
            second.on_vanished(left.append)
            async with echo(address):
                with pytest.raises(Failed) as refused:
                    await second.request_name(NAME)
            assert refused.value.code is ErrorCode.BUSY
            await until(lambda: bool(left))
            await second.request_name(NAME)
            await second.request_name(NAME)
            await second.release_name(NAME)


@on_loop
async def test_the_uid_of_a_caller_comes_from_the_bus_and_is_gone_with_it(tmp_path: Path) -> None:
    vanished: list[str] = []
    with private_bus(tmp_path) as address:
        async with connection(address) as bus:
            bus.on_vanished(vanished.append)
            async with connection(address) as client:
                name = client.unique_name
                uids = await asyncio.gather(*(bus.uid(name) for _ in range(5)))
                assert uids == [os.getuid()] * 5
            await until(lambda: vanished == [name])
            with pytest.raises(BusError) as gone:
                await bus.uid(name)
    assert gone.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"


@on_loop
async def test_a_forged_departure_is_not_believed(tmp_path: Path) -> None:
    vanished: list[str] = []
    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as liar:
            bus.on_vanished(vanished.append)
            liar.signal(
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "NameOwnerChanged",
                "sss",
                [liar.unique_name, liar.unique_name, ""],
                destination=bus.unique_name,
            )
            await liar.call(call())
    assert vanished == []


@on_loop
async def test_an_oversized_call_is_refused_by_its_header_and_the_next_is_served(tmp_path: Path) -> None:
    served: list[str] = []
    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as client:

            def noted(message: Message) -> None:
                served.append(message.member)
                bus.answer(message, message.signature, message.body)

            bus.handler = noted
            for size in (MAX_BUS_MESSAGE, 4 << 20):
                with pytest.raises(BusError) as refused:
                    await client.call(call("s", "x" * size, member="Large"))
                assert refused.value.name == ERROR_PREFIX + ErrorCode.TOO_LARGE
            assert (await client.call(call("s", "x" * (MAX_BUS_MESSAGE - 64)))).body
    assert served == ["Echo"]


@on_loop
async def test_a_large_answer_to_our_own_call_is_read(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as client:
            bus.handler = lambda message: bus.answer(message, "s", ["x" * (2 << 20)])
            assert len((await client.call(call())).body[0]) == 2 << 20


@on_loop
async def test_what_would_make_the_bus_cut_us_off_is_not_sent(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address), connection(address) as client:
            with pytest.raises(Failed) as refused:
                client.send(call("s", "x" * (9 << 20)))
            assert refused.value.code is ErrorCode.TOO_LARGE
            assert (await client.call(call())).body == []


@on_loop
async def test_a_header_without_measure_is_passed_over(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address), connection(address) as client:
            unread = call()
            unread.path = "/" + "x" * 200_000
            client.send(unread)
            assert (await client.call(call("s", "next"))).body == ["next"]


@on_loop
async def test_a_burst_of_signals_does_not_lose_the_connection(tmp_path: Path) -> None:
    count = 20_000
    seen = 0

    def counted(_: Message) -> None:
        nonlocal seen
        seen += 1

    with private_bus(tmp_path) as address:
        async with connection(address) as sender, connection(address) as listener:
            await listener.subscribe(NAME, "Tick", counted)
            for _ in range(count):
                sender.signal(PATH, NAME, "Tick", "s", ["x" * 100])
            await until(lambda: seen == count)
            assert not sender.lost.done()


@on_loop
async def test_many_connections_with_many_pipelined_calls_are_all_answered(tmp_path: Path) -> None:
    async def pipeline(address: str) -> int:
        async with connection(address) as client:
            return len(await asyncio.gather(*(client.call(call("s", "x" * 100)) for _ in range(100))))

    with private_bus(tmp_path) as address:
        async with echo(address) as service:
            answered = await asyncio.gather(*(pipeline(address) for _ in range(20)))
            assert answered == [100] * 20
            assert not service.lost.done()


@on_loop
async def test_signatures_of_strangers_are_not_kept_for_ever(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address), connection(address) as client:
            for number in range(1500):
                signature = "".join("sbx"[int(digit)] for digit in _base_three(number))
                body = [{"s": "", "b": False, "x": 0}[token] for token in signature]
                await client.call(call(signature, *body))
    assert bus_library.kept() <= bus_library.MAX_SIGNATURES


@on_loop
async def test_a_call_that_nobody_answers_ends_in_time(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as client:
            bus.handler = lambda message: None
            with pytest.raises(BusError) as late:
                await client.call(call(), 0.05)
            assert late.value.code is ErrorCode.TIMED_OUT
            bus.handler = bus.answer
            assert (await client.call(call())).body == []


@on_loop
async def test_an_answer_that_came_while_nobody_ran_is_in_time(tmp_path: Path) -> None:
    words = {"destination": "org.freedesktop.DBus", "path": "/org/freedesktop/DBus"}
    with private_bus(tmp_path) as address:
        async with connection(address) as client:
            asked = Message(**words, interface="org.freedesktop.DBus", member="GetId")
            answer = asyncio.create_task(client.call(asked, timeout=0.2))
            await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - a busy machine lets this process stand still, and the bus answers meanwhile
            assert (await answer).signature == "s"


@on_loop
async def test_a_caller_that_wants_no_answer_gets_none(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as client:
            answers: list[Message] = []
            client._answered = answers.append  # type: ignore[method-assign, assignment]
            for handler in (bus.answer, lambda call: bus.refuse(call, "a.b", "no")):
                bus.handler = handler
                quiet = call()
                quiet.flags = MessageFlag.NO_REPLY_EXPECTED
                client.send(quiet)
                await bus.uid(client.unique_name)
            del client._answered
            bus.handler = bus.answer
            await client.call(call())
            assert answers == []


@on_loop
async def test_a_stencil_is_the_refusal_that_the_library_would_have_written(tmp_path: Path) -> None:
    facts = ("a{sv}", {"hint": Variant("s", "Wait."), "details": Variant("a{sv}", {"limit": Variant("x", 32)})})
    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as client:
            heard: list[list[object]] = []
            answered = client._answered

            def noted(message: Message) -> None:
                heard.append([message.error_name, message.signature, message.body])
                answered(message)

            client._answered = noted  # type: ignore[method-assign]
            stencils: list[Stencil] = []

            def stamped(message: Call) -> None:
                stencils[:] = stencils or [bus.stencil(message, "a.b.Refused", "No.", facts)]
                bus.stamp(stencils[0], message)

            for handler in (lambda message: bus.refuse(message, "a.b.Refused", "No.", facts), stamped):
                bus.handler = handler
                answers = await asyncio.gather(*(client.call(call()) for _ in range(3)), return_exceptions=True)
                assert [getattr(answer, "name", "") for answer in answers] == ["a.b.Refused"] * 3
            assert heard == [heard[0]] * 6


@on_loop
async def test_a_handler_with_a_defect_does_not_end_the_connection(tmp_path: Path) -> None:
    def broken(_: Message) -> None:
        raise RuntimeError("defect")

    with private_bus(tmp_path) as address:
        async with echo(address) as bus, connection(address) as client:
            answer, bus.handler = bus.handler, broken
            client.send(call())
            bus.handler = answer
            assert (await client.call(call())).body == []


@on_loop
async def test_a_bus_that_dies_is_noticed_by_everybody_who_waits(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        async with echo(address) as service, connection(address) as client:
            service.handler = lambda message: None
            waiting = asyncio.create_task(client.call(call()))
            await client.uid(service.unique_name)
            process.kill()
            with pytest.raises(BusError) as lost:
                await waiting
            assert lost.value.name == "org.freedesktop.DBus.Error.Disconnected"
            assert (await asyncio.wait_for(client.lost, PATIENCE)).name == lost.value.name
            with pytest.raises(BusError):
                client.send(call())


@on_loop
async def test_a_bus_that_stands_still_is_congested_and_in_the_end_given_up(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        async with connection(address) as client:
            process.send_signal(signal.SIGSTOP)
            for _ in range(100):
                if not client.lost.done():
                    client.signal(PATH, NAME, "Tick", "s", ["x" * (1 << 20)])
            assert client.congested
            assert "does not take" in client.lost.result().message
            process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("greeting", [b"", b"REJECTED EXTERNAL\r\n", b"x" * 20_000, b"OK 1\r\n" + b"\x00" * 64])
@on_loop
async def test_a_peer_that_is_no_bus_ends_the_attempt(tmp_path: Path, greeting: bytes) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(greeting)
        writer.close()

    path = tmp_path / "no-bus"
    server = await asyncio.start_unix_server(greet, path)
    async with server:
        with pytest.raises(BusError):
            await Bus.connect(f"unix:path={path}", timeout=PATIENCE)


@on_loop
async def test_a_bus_that_never_answers_ends_the_attempt_in_time(tmp_path: Path) -> None:
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.fspath(path))
        silent.listen()
        with pytest.raises(BusError, match="no answer"):
            await Bus.connect(f"unix:path={path}", timeout=0.05)


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "tcp:host=localhost,port=1", "session"])
@on_loop
async def test_a_bus_that_is_not_there_is_a_typed_error(address: str) -> None:
    with pytest.raises(BusError) as absent:
        await Bus.connect(address)
    assert absent.value.name == "org.freedesktop.DBus.Error.NoServer"


@on_loop
async def test_of_several_addresses_the_one_that_works_is_taken(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        async with connection(f"unix:path=/nowhere/bus;{address}") as bus:
            assert bus.unique_name.startswith(":")


def test_sizes_are_read_in_either_byte_order() -> None:
    for order, mark in (("<", b"l"), (">", b"B")):
        fixed = mark + b"\x01\x00\x01" + struct.pack(f"{order}III", 1000, 7, 13)
        assert bus_header.sizes(bytearray(fixed)) == (16 + 16, 1000)


def test_text_that_the_bus_refuses_is_mended() -> None:
    assert transport.clean("a\0b\udc80ü") == "a\N{REPLACEMENT CHARACTER}b?ü"


def _base_three(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 3)
        digits += str(digit)
    return digits
