# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenRPC document that `rpc.discover` answers: the table of operations in the words of JSON Schema."""

from __future__ import annotations

import functools
import json
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from glixd import api
from glixd.protocol import ERRORS, VERSION, ErrorCode, json_code

_SCHEMAS: Final = "#/components/schemas/"


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    return json.dumps(build(), ensure_ascii=False, separators=(",", ":")).encode()


def build() -> dict[str, Any]:
    """The document as a value."""
    schemas = _schemas()
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "glixd",
            "version": VERSION,
            "description": "A NixOS package daemon. A mutation answers with the id of its transaction at once.",
            "license": {"name": "GPL-3.0-or-later"},
        },
        "methods": [_method(row, schemas) for row in api.OPERATIONS.values()],
        "components": {"schemas": schemas, "errors": {code.value: _error(code) for code in ErrorCode}},
        "x-notifications": [
            _notification("Progress", "What became of a watched transaction.", _reference(api.ProgressEvent)),
            _notification("Changed", "The manifest of a host changed.", _HOST),
            _notification("Staged", "An update of a host is built and can be switched to.", _HOST),
        ],
    }


_HOST: Final = {"type": "object", "properties": {"host": {"type": "string"}}, "required": ["host"]}


def _schemas() -> dict[str, Any]:
    models: list[tuple[type[api.Value], Any]] = [(api.ProgressEvent, "serialization")]
    for row in api.OPERATIONS.values():
        models += [(row.parameters, "validation"), (row.result, "serialization")]
    _, schema = models_json_schema(list(dict.fromkeys(models)), ref_template=_SCHEMAS + "{model}")
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def _method(row: api.Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row.name,
        "summary": row.summary,
        "tags": [{"name": row.kind.value}],
        "paramStructure": "by-name",
        "params": [_parameter(row, name, schemas) for name in _ordered(row)],
        "result": {"name": row.result.__name__, "schema": _reference(row.result)},
        "errors": [{"$ref": f"#/components/errors/{code.value}"} for code in ErrorCode],
    }


def _ordered(row: api.Operation) -> list[str]:
    """The required parameters first, as the specification of OpenRPC wants them."""
    return [*api.required(row.parameters), *api.optional(row.parameters)]


def _parameter(row: api.Operation, name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    field = row.parameters.model_fields[name]
    described = {
        "name": name,
        "required": field.is_required(),
        "schema": schemas[row.parameters.__name__]["properties"][name],
    }
    if field.description:
        described["description"] = field.description
    return described


def _reference(model: type[api.Value]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + model.__name__}


def _notification(name: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "summary": summary, "params": [{"name": "params", "schema": schema}]}


def _error(code: ErrorCode) -> dict[str, Any]:
    return {"code": json_code(code), "message": ERRORS[code].meaning, "data": {"name": code.value}}
