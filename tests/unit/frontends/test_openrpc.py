# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenRPC document says exactly what the table says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from glixd import api
from glixd.frontends import openrpc
from glixd.protocol import ErrorCode, json_code
from tests.support import openrpc as judge


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for item in value.values():
                yield from references(item)
        case list():
            for item in value:
                yield from references(item)


def test_methods_and_their_parameters_are_those_of_the_table() -> None:
    methods = {method["name"]: method for method in openrpc.build()["methods"]}
    assert list(methods) == list(api.OPERATIONS)
    for row in api.OPERATIONS.values():
        parameters = {parameter["name"]: parameter["required"] for parameter in methods[row.name]["params"]}
        assert list(parameters) == [*api.required(row.parameters), *api.optional(row.parameters)]
        assert [name for name, required in parameters.items() if required] == api.required(row.parameters)


def test_every_reference_leads_somewhere() -> None:
    document = openrpc.build()
    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_errors_have_the_codes_of_the_table() -> None:
    errors = openrpc.build()["components"]["errors"]
    assert {name: error["code"] for name, error in errors.items()} == {code: json_code(code) for code in ErrorCode}


def test_the_document_is_one_line_of_json() -> None:
    assert json.loads(openrpc.document()) == openrpc.build()
    assert b"\n" not in openrpc.document()


def test_the_document_follows_the_rules_of_openrpc_and_of_json_schema() -> None:
    assert judge.problems(openrpc.build()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("info"),
        lambda document: document.update(openrpc="2.0"),
        lambda document: document["methods"].append(document["methods"][0]),
        lambda document: document["methods"][0].update(parameters=[]),
        lambda document: document["methods"][0].update(name="rpc.mine"),
        lambda document: _method(document, "Add")["params"].reverse(),
        lambda document: _method(document, "Add")["params"].append(_method(document, "Add")["params"][-1]),
        lambda document: _method(document, "Add")["params"][0].update(schema={"type": "text"}),
        lambda document: _method(document, "Add")["result"]["schema"].update(minProperties=1),
        lambda document: document["components"]["schemas"].update({"a b": {}}),
        lambda document: document["components"]["errors"]["Busy"].update(code="1"),
    ],
)
def test_a_document_that_breaks_a_rule_is_found_out(damage: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(openrpc.document())
    damage(document)
    assert judge.problems(document) != []


def _method(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(method for method in document["methods"] if method["name"] == name)
    return found


@pytest.mark.parametrize(
    ("method", "parameter", "good", "bad"),
    [
        ("Add", "refs", ["firefox"], []),
        ("Add", "scope", "home", "cellar"),
        ("Add", "dry_run", True, 1),
        ("Wait", "timeout", 1.5, 0),
        ("List", "limit", 1, 0),
        ("Show", "name", "firefox", 7),
    ],
)
def test_the_schema_of_a_parameter_takes_what_the_table_takes(
    method: str, parameter: str, good: object, bad: object
) -> None:
    document = openrpc.build()
    (schema,) = (one["schema"] for one in _method(document, method)["params"] if one["name"] == parameter)
    assert judge.mismatch(document, schema, good) is None
    assert judge.mismatch(document, schema, bad)
