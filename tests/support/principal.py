# SPDX-License-Identifier: GPL-3.0-or-later
"""One caller of the daemon, to be run as a user of a machine: asks what a file lists and prints what it is answered.

    python -m tests.support.principal socket|bus ADDRESS REQUESTS

A request is the name of an operation with its parameters, or on the bus `INTERFACE.MEMBER` of a standard interface with
`path`, `signature` and `body`. Of a mutation the end is told. With - for REQUESTS they come one a line. On the bus a request that may ask a person does so by the flag.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from glixd import api
from glixd.backends.bus import Bus, BusError, Message, MessageFlag, Variant
from glixd.frontends import bus_values
from glixd.protocol import BUS_NAME, MANAGER_INTERFACE, OBJECT_PATH
from tests.support.daemon import RpcClient, RpcError

Answer = dict[str, Any]
STANDARD = "org.freedesktop.DBus."
TRANSACTION = "org.glixos.Glix1.Transaction"
UPLOADED = "<what was uploaded>"
"""Stands for the name of what the same caller uploaded last."""


class Asker(Protocol):
    """One connection to the daemon."""

    name: str

    async def ask(self, method: str, parameters: Answer) -> Answer:
        """What is answered, in the words of `_told`."""

    async def close(self) -> None:
        """Leave."""


class BySocket:
    """Asks on the socket."""

    def __init__(self, address: str) -> None:
        self.name = ""
        self._client = RpcClient(Path(address))

    async def ask(self, method: str, parameters: Answer) -> Answer:
        """One request; of a mutation the end."""
        try:
            answer = self._client.call(method, **parameters)
            if "transaction" in answer and set(answer) == {"transaction"}:
                answer = self._client.wait(answer["transaction"])
        except RpcError as error:
            return {"error": error.name, "action": error.details.get("action", "")}
        return _told(answer)

    async def close(self) -> None:
        """Leave."""
        self._client.close()


class ByBus:
    """Asks on the bus."""

    def __init__(self, bus: Bus) -> None:
        self.name = bus.unique_name
        self._bus = bus

    async def ask(self, method: str, parameters: Answer) -> Answer:
        """One request; of a mutation the end."""
        try:
            body = (await self._bus.call(_message(method, dict(parameters)), timeout=120)).body
            answer = bus_values.plain(body[0]) if body else {}
            if isinstance(answer, str) and "/Transaction/" in answer and method in api.OPERATIONS:
                waiting = _message("Wait", {"transaction": answer.rpartition("/")[2], "timeout": 110.0})
                answer = bus_values.plain((await self._bus.call(waiting, timeout=120)).body[0])
        except BusError as error:
            return {"error": error.name.rpartition(".")[2], "action": ""}
        return _told(answer)

    async def close(self) -> None:
        """Leave."""
        await self._bus.close()


async def connected(transport: str, address: str) -> Asker:
    """A connection by one of the transports."""
    return BySocket(address) if transport == "socket" else ByBus(await Bus.connect(address))


def _message(method: str, parameters: dict[str, Any]) -> Message:
    if method.startswith((STANDARD, TRANSACTION)):
        interface, _, member = method.rpartition(".")
        body = [_standard(one) for one in parameters["body"]]
        return Message(
            destination=BUS_NAME,
            path=parameters["path"],
            interface=interface,
            member=member,
            signature=parameters["signature"],
            body=body,
        )
    row = api.operation(method)
    flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if parameters.pop("interactive", False) else MessageFlag.NONE
    names = api.required(row.parameters)
    signatures = [bus_values.signature(row.parameters.model_fields[name].annotation) for name in names]
    options = {name: bus_values.variant(value) for name, value in parameters.items() if name not in names}
    return Message(
        destination=BUS_NAME,
        path=OBJECT_PATH,
        interface=MANAGER_INTERFACE,
        member=method,
        signature="".join(signatures) + "a{sv}",
        body=[*(_typed(one, parameters[name]) for one, name in zip(signatures, names, strict=True)), options],
        flags=flags,
    )


def _typed(signature: str, value: Any) -> Any:
    if signature.startswith("aa{"):
        return [_typed(signature[1:], entry) for entry in value]
    return {name: bus_values.variant(one) for name, one in value.items()} if signature == "a{sv}" else value


def _standard(value: Any) -> Any:
    return Variant("s", value["variant"]) if isinstance(value, dict) and "variant" in value else value


def _told(answer: Any) -> dict[str, Any]:
    """What a test compares: how a transaction ended, or the answer itself."""
    if isinstance(answer, Mapping) and "state" in answer and "operation" in answer:
        error = answer.get("error") or {}
        details = error.get("details") or {}
        return {
            "state": answer["state"],
            "error": error.get("name", ""),
            "action": details.get("action", ""),
            "transaction": answer["id"],
            "message": error.get("message", ""),
        }
    return {"answer": answer}


async def answer_all(asker: Asker, path: str) -> None:
    """Ask what a file lists, and print the answers as one document; what was uploaded is pushed by its name."""
    answers: list[Answer] = []
    uploaded = ""
    for method, parameters in json.loads(Path(path).read_text()):  # noqa: ASYNC240 - nothing else runs here
        if parameters.get("upload") == UPLOADED:
            parameters["upload"] = uploaded
        answers.append(await asker.ask(method, parameters))
        uploaded = (answers[-1].get("answer") or {}).get("upload", uploaded) if method == "Upload" else uploaded
    print(json.dumps(answers, default=str))


async def answer_lines(asker: Asker) -> None:
    """Ask what is said line by line, and print an answer a line; the first line says who asks."""
    print(json.dumps({"name": asker.name}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await asker.ask(*json.loads(line)), default=str), flush=True)


async def main() -> None:
    """Ask, and print."""
    transport, address, path = sys.argv[1:]
    asker = await connected(transport, address)
    await (answer_lines(asker) if path == "-" else answer_all(asker, path))
    await asker.close()


if __name__ == "__main__":
    asyncio.run(main())
