# SPDX-License-Identifier: GPL-3.0-or-later
"""One caller of the daemon, to be run as a user of a machine: asks what a file lists and prints what it is answered.

    python -m tests.support.principal socket|bus ADDRESS REQUESTS

A request is the name of an operation with its parameters, or on the bus `INTERFACE.MEMBER` of a standard interface with
`path`, `signature` and `body`. Of a mutation the end is told. On the bus a request that may ask a person does so by the flag.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glixd import api
from glixd.backends.bus import Bus, BusError, Message, MessageFlag, Variant
from glixd.frontends import bus_values
from glixd.protocol import BUS_NAME, MANAGER_INTERFACE, OBJECT_PATH
from tests.support.daemon import RpcClient, RpcError

STANDARD = "org.freedesktop.DBus."
TRANSACTION = "org.glixos.Glix1.Transaction"


def by_socket(address: str, requests: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Ask on the socket."""
    client = RpcClient(Path(address))
    answers = []
    for method, parameters in requests:
        try:
            answer = client.call(method, **parameters)
            if "transaction" in answer and set(answer) == {"transaction"}:
                answer = client.wait(answer["transaction"])
            answers.append(_told(answer))
        except RpcError as error:
            answers.append({"error": error.name, "action": error.details.get("action", "")})
    client.close()
    return answers


async def by_bus(address: str, requests: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Ask on the bus."""
    bus = await Bus.connect(address)
    answers = []
    for method, parameters in requests:
        try:
            body = (await bus.call(_message(method, dict(parameters)), timeout=120)).body
            answer = bus_values.plain(body[0]) if body else {}
            if isinstance(answer, str) and "/Transaction/" in answer and method in api.OPERATIONS:
                waiting = _message("Wait", {"transaction": answer.rpartition("/")[2], "timeout": 110.0})
                answer = bus_values.plain((await bus.call(waiting, timeout=120)).body[0])
            answers.append(_told(answer))
        except BusError as error:
            answers.append({"error": error.name.rpartition(".")[2], "action": ""})
    await bus.close()
    return answers


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


def main() -> None:
    """Ask, and print."""
    transport, address, path = sys.argv[1:]
    requests = json.loads(Path(path).read_text())
    answers = by_socket(address, requests) if transport == "socket" else asyncio.run(by_bus(address, requests))
    print(json.dumps(answers, default=str))


if __name__ == "__main__":
    main()
