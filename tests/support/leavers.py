# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers that leave while they are being authorised, to be run as a user of a machine.

    python -m tests.support.leavers socket|bus ADDRESS COUNT

Each connects, asks for a change that needs a password, and goes: every second one as soon as the daemon waits for an answer,
the others at once. Prints how many were seen waiting.
"""

from __future__ import annotations

import asyncio
import json
import sys

from glixd.backends.bus import Bus, Message
from glixd.protocol import State
from tests.support.principal import _message

AT_ONCE = 6
"""Fewer than the transactions that one user may have under way."""
CHANGE = {"keep": 1, "interactive": True}


async def by_socket(address: str, *, patient: bool) -> bool:
    """Leave by closing the socket."""
    reader, writer = await asyncio.open_unix_connection(address)
    request = {"jsonrpc": "2.0", "id": 1, "method": "CollectGarbage", "params": CHANGE}
    writer.write(json.dumps(request).encode() + b"\n")
    await writer.drain()
    waiting = False
    while patient and not waiting and (line := await reader.readline()):
        told = json.loads(line)
        assert "error" not in told, told
        waiting = told.get("params", {}).get("state") == State.WAITING_FOR_AUTHORISATION
    writer.close()
    return waiting


async def by_bus(address: str, *, patient: bool) -> bool:
    """Leave the bus."""
    bus = await Bus.connect(address)
    told = asyncio.Event()

    def heard(message: Message) -> None:
        if message.body[0].get("state") and message.body[0]["state"].value == State.WAITING_FOR_AUTHORISATION:
            told.set()

    await bus.subscribe("org.glixos.Glix1.Transaction", "Progress", heard)
    call = _message("CollectGarbage", dict(CHANGE))
    if patient:
        await bus.call(call, timeout=120)
        await asyncio.wait_for(told.wait(), 120)
    else:
        bus.send(call)
    await bus.close()
    return told.is_set()


async def main() -> None:
    """Come and go, a few at a time."""
    transport, address, count = sys.argv[1:]
    numbers = iter(range(int(count)))
    waited = 0

    async def work() -> None:
        nonlocal waited
        for number in numbers:
            visit = by_socket if transport == "socket" else by_bus
            seen = await visit(address, patient=number % 2 == 0)
            waited += seen

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    print(waited)


if __name__ == "__main__":
    asyncio.run(main())
