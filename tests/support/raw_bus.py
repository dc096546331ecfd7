# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the bus that sends bytes as they are, as many as it can, and counts what comes back."""

from __future__ import annotations

import asyncio
import os
import re
import struct
from collections import Counter
from contextlib import suppress
from typing import Any, Final, Self

from glixd.backends import bus_library
from glixd.backends.bus_library import Message
from glixd.protocol import BUS_NAME, ERROR_PREFIX, MANAGER_INTERFACE, OBJECT_PATH

RESULT: Final = "result"
CLOSED: Final = "closed"
_RETURN, _ERROR = 2, 3
_NAMED: Final = re.compile(rb"org\.[A-Za-z0-9_.]*?Error\.\w+")


def call(member: str, signature: str = "a{sv}", *body: Any, **fields: Any) -> bytes:
    """A call of the manager as bytes, with the serial 1."""
    message = Message(
        **{
            "destination": BUS_NAME,
            "path": OBJECT_PATH,
            "interface": MANAGER_INTERFACE,
            "member": member,
            "signature": signature,
            "body": list(body) if body or not signature else [{}],
            "serial": 1,
            **fields,
        }
    )
    return bus_library.marshalled(message)


def numbered(message: bytes, serial: int) -> bytes:
    """The message with another serial."""
    return message[:8] + struct.pack("<I", serial) + message[12:]


class RawBus:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._serial = 1

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect, authenticate and say hello."""
        path = address.partition("=")[2].partition(",")[0]
        reader, writer = await asyncio.open_unix_connection(
            ("\0" + path) if address.startswith("unix:abstract") else path, limit=1 << 26
        )
        writer.write(b"\0AUTH EXTERNAL %b\r\n" % str(os.geteuid()).encode().hex().encode())
        assert (await reader.readline()).startswith(b"OK ")
        writer.write(b"BEGIN\r\n")
        bus = cls(reader, writer)
        bus.send(_hello())
        await bus.answers(1)
        return bus

    def send(self, *messages: bytes) -> None:
        """Send messages, each with a serial of its own."""
        for message in messages:
            self._serial += 1
            self._writer.write(numbered(message, self._serial))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the bus has taken what was sent, or has hung up."""
        with suppress(ConnectionError):
            await self._writer.drain()

    async def answers(self, number: int) -> Counter[str]:
        """What so many calls were answered: `result`, the name of an error, or `closed` for those that never will be."""
        found: Counter[str] = Counter()
        while found.total() < number:
            try:
                kind, header = await self._message()
            except (asyncio.IncompleteReadError, ConnectionError):
                found[CLOSED] += number - found.total()
                break
            if kind == _RETURN:
                found[RESULT] += 1
            elif kind == _ERROR:
                (name,) = _NAMED.findall(header)[:1] or [b"?"]
                found[name.decode().removeprefix(ERROR_PREFIX)] += 1
        return found

    async def _message(self) -> tuple[int, bytes]:
        fixed = await self._reader.readexactly(16)
        order = "<" if fixed[:1] == b"l" else ">"
        body, _, fields = struct.unpack_from(f"{order}III", fixed, 4)
        header = await self._reader.readexactly((fields + 7) // 8 * 8)
        await self._reader.readexactly(body)
        return fixed[1], header

    def vanish(self) -> None:
        """Be gone at once, with whatever was sent and not read."""
        self._writer.transport.abort()


def _hello() -> bytes:
    bus = "org.freedesktop.DBus"
    return call("Hello", "", destination=bus, path="/org/freedesktop/DBus", interface=bus)
