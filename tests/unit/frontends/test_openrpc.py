# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenRPC document says exactly what the table says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from glixd import api
from glixd.frontends import openrpc
from glixd.protocol import ErrorCode, json_code


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
        assert list(parameters) == list(row.parameters.model_fields)
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
