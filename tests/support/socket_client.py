# SPDX-License-Identifier: GPL-3.0-or-later
"""A JSON-RPC client of a dozen lines, for tests."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.loop import PATIENCE


class SocketClient:
    """One connection to a JSON-RPC socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._numbers = itertools.count(1)

    def write(self, data: bytes | str) -> None:
        """Send bytes as they are."""
        self.writer.write(data.encode() if isinstance(data, str) else data)

    def send(self, method: str, **params: Any) -> int:
        """Send one request and return its id."""
        number = next(self._numbers)
        self.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
        return number

    async def receive(self) -> Any:
        """The next message; raises EOFError at the end."""
        line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
        if not line:
            raise EOFError
        return json.loads(line)

    async def receive_with_header(self) -> Any:
        """The next message behind a Content-Length header."""
        header = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        return json.loads(await self.reader.readexactly(int(header.split(b":")[1])))

    async def call(self, method: str, **params: Any) -> Any:
        """Send one request and return its answer; there must be nothing else under way."""
        number = self.send(method, **params)
        answer = await self.receive()
        assert answer["id"] == number
        return answer


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[SocketClient]:
    """A connection that is closed afterwards."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 26)
    try:
        yield SocketClient(reader, writer)
    finally:
        writer.close()
