# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the JSON-RPC 2.0 specification, section 7, byte for byte, against the front-end itself.

The methods of the examples are rows of the table here, so that everything between the socket and the engine is what it is
for glixd's own operations. An error of ours says more than the examples do: its code and its id are theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

import pytest
from pydantic import RootModel

from glixd import api
from glixd.api import Caller, Kind, Operation, Parameters, Policy, Value
from tests.integration.test_jsonrpc_frontend import served
from tests.support.fake_engine import FakeEngine
from tests.support.loop import on_loop
from tests.support.socket_client import SocketClient, connected

SILENCE: Final = None
"""There is no answer: the examples are notifications."""


class Number(RootModel[int]):
    """An answer that is a number."""


class Data(RootModel[list[str | int]]):
    """An answer that is an array."""


class Two(Parameters):
    """Two numbers."""

    minuend: int
    subtrahend: int


class Three(Parameters):
    """Three numbers."""

    a: int
    b: int
    c: int


class Five(Three):
    """Five numbers."""

    d: int
    e: int


class One(Parameters):
    """One number."""

    a: int


METHODS: Final[dict[str, type[Parameters]]] = {
    "subtract": Two,
    "update": Five,
    "sum": Three,
    "notify_sum": Three,
    "notify_hello": One,
    "get_data": api.Nothing,
}


class Calculator(FakeEngine):
    """What the server of the examples can do."""

    async def call(self, row: Operation, parameters: Parameters, caller: Caller, client: Any) -> Value:
        self.calls.append((row.name, parameters, caller))
        given = list(parameters.model_dump().values())
        match row.name:
            case "subtract":
                answer: RootModel[Any] = Number(given[0] - given[1])
            case "sum":
                answer = Number(sum(given))
            case "get_data":
                answer = Data(["hello", 5])
            case _:
                answer = Number(0)
        return cast(Value, answer)


@pytest.fixture(autouse=True)
def _methods_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, parameters in METHODS.items():
        row = Operation(name, Kind.QUERY, parameters, api.Empty, Policy.READ, "An example.")
        monkeypatch.setitem(cast("dict[str, Operation]", api.OPERATIONS), name, row)


EXAMPLES: Final[dict[str, list[tuple[str, str | None]]]] = {
    "positional parameters": [
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
            '{"jsonrpc": "2.0", "result": 19, "id": 1}',
        ),
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
            '{"jsonrpc": "2.0", "result": -19, "id": 2}',
        ),
    ],
    "named parameters": [
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
            '{"jsonrpc": "2.0", "result": 19, "id": 3}',
        ),
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
            '{"jsonrpc": "2.0", "result": 19, "id": 4}',
        ),
    ],
    "a notification": [
        ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', SILENCE),
        ('{"jsonrpc": "2.0", "method": "foobar"}', SILENCE),
    ],
    "non-existent method": [
        (
            '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
            '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}',
        ),
    ],
    "invalid JSON": [
        (
            '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
            '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
        ),
    ],
    "invalid Request object": [
        (
            '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
            '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}',
        ),
    ],
    "Batch, invalid JSON": [
        (
            """[
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]""",
            '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
        ),
    ],
    "an empty Array": [
        ("[]", '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'),
    ],
    "an invalid Batch (but not empty)": [
        (
            "[1]",
            """[
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]""",
        ),
    ],
    "invalid Batch": [
        (
            "[1,2,3]",
            """[
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]""",
        ),
    ],
    "Batch": [
        (
            """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]""",
            """[
        {"jsonrpc": "2.0", "result": 7, "id": "1"},
        {"jsonrpc": "2.0", "result": 19, "id": "2"},
        {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
        {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
    ]""",
        ),
    ],
    "Batch (all notifications)": [
        (
            """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]""",
            SILENCE,
        ),
    ],
}


def essence(answer: Any) -> list[str]:
    """An answer as it is compared: the words of an error are ours, and the answers of a batch have no order."""
    if not isinstance(answer, list):
        answer = [answer]
    return sorted(json.dumps(_without_words(one), sort_keys=True) for one in answer)


def _without_words(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        assert isinstance(answer["error"]["message"], str)
        return {**answer, "error": {"code": answer["error"]["code"]}}
    return answer


def headed(text: str) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(text.encode()), text.encode())


def on_one_line(text: str) -> bytes:
    return " ".join(text.split("\n")).encode() + b"\n"


FRAMINGS: Final = [
    pytest.param(headed, SocketClient.receive_with_header, id="with-header"),
    pytest.param(on_one_line, SocketClient.receive, id="line"),
]


@pytest.mark.parametrize(("frame", "receive"), FRAMINGS)
@pytest.mark.parametrize("example", EXAMPLES)
@on_loop
async def test_the_example_of_the_specification(tmp_path: Path, example: str, frame: Any, receive: Any) -> None:
    async with served(tmp_path, Calculator()) as (engine, _, path), connected(path) as client:
        for request, answer in EXAMPLES[example]:
            client.write(frame(request))
            if answer is not SILENCE:
                received = await receive(client)
                assert isinstance(received, list) == isinstance(json.loads(answer), list)
                assert essence(received) == essence(json.loads(answer))
        client.write(frame('{"jsonrpc": "2.0", "method": "sum", "params": [1, 2, 3], "id": "last"}'))
        assert (await receive(client))["id"] == "last", "nothing came that was not asked for"
        called = {name for name, _, _ in engine.calls}
        notified = {"a notification": {"update"}, "Batch (all notifications)": {"notify_sum", "notify_hello"}}
        assert notified.get(example, set()) <= called
