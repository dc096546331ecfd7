# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges OpenRPC documents: the rules of OpenRPC 1.3 for the parts that glixd uses, and JSON Schema draft 7 within them."""

from __future__ import annotations

from typing import Any, Final

from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

_TEXT: Final = {"type": "string", "minLength": 1}


def _object(required: str, /, **properties: Any) -> dict[str, Any]:
    """An object with these members and no others, but for extensions."""
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_reference(described: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"required": ["$ref"]}, "then": _object("$ref", **{"$ref": _TEXT}), "else": described}


_SCHEMA: Final = {"$ref": "http://json-schema.org/draft-07/schema#"}
_DESCRIBED: Final = _object(
    "name schema", name=_TEXT, description=_TEXT, summary=_TEXT, required={"type": "boolean"}, schema=_SCHEMA
)
_ERROR: Final = _object("code message", code={"type": "integer"}, message=_TEXT, data=True)
_METHOD: Final = _object(
    "name params result",
    name={**_TEXT, "not": {"pattern": "^rpc\\."}},
    summary=_TEXT,
    description=_TEXT,
    tags=_list(_or_reference(_object("name", name=_TEXT, description=_TEXT))),
    paramStructure={"enum": ["by-name", "by-position", "either"]},
    params=_list(_or_reference(_DESCRIBED)),
    result=_or_reference(_DESCRIBED),
    errors=_list(_or_reference(_ERROR)),
)
_COMPONENTS: Final = _object(
    "",
    schemas={"type": "object", "propertyNames": {"pattern": r"^[\w.-]+$"}, "additionalProperties": _SCHEMA},
    errors={"type": "object", "propertyNames": {"pattern": r"^[\w.-]+$"}, "additionalProperties": _ERROR},
)
DOCUMENT: Final = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **_object(
        "openrpc info methods",
        openrpc={"type": "string", "pattern": r"^1\.3\.\d+$"},
        info=_object(
            "title version",
            title=_TEXT,
            version=_TEXT,
            description=_TEXT,
            license=_object("name", name=_TEXT, url=_TEXT),
        ),
        methods=_list(_METHOD),
        components=_COMPONENTS,
    ),
}


def problems(document: dict[str, Any]) -> list[str]:
    """What the document does against the rules: those of its form, and those that no schema can say."""
    Draft7Validator.check_schema(DOCUMENT)
    found = [f"{error.json_path}: {error.message}" for error in Draft7Validator(DOCUMENT).iter_errors(document)]
    return found or [*_names(document), *_orders(document), *_siblings(document, "$")]


def _names(document: dict[str, Any]) -> list[str]:
    names = [method["name"] for method in document["methods"]]
    twice = {name for name in names if names.count(name) > 1}
    for method in document["methods"]:
        parameters = [parameter["name"] for parameter in method["params"]]
        twice |= {f"{method['name']}.{name}" for name in parameters if parameters.count(name) > 1}
    return [f"{name} stands twice" for name in sorted(twice)]


def _orders(document: dict[str, Any]) -> list[str]:
    found = []
    for method in document["methods"]:
        required = [parameter.get("required", False) for parameter in method["params"]]
        if required != sorted(required, reverse=True):
            found.append(f"{method['name']}: an optional parameter stands before a required one")
    return found


def _siblings(value: Any, place: str) -> list[str]:
    """In draft 7, whatever constrains a value beside a reference is passed over."""
    if isinstance(value, list):
        return [problem for item in value for problem in _siblings(item, place)]
    if not isinstance(value, dict):
        return []
    found = [problem for name, item in value.items() for problem in _siblings(item, f"{place}.{name}")]
    lost = value.keys() - {"$ref", "description", "title", "default"}
    return [*found, f"{place}: {sorted(lost)} beside a reference"] if "$ref" in value and lost else found


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft7Validator:
    """A validator of one schema of a document, which may refer to its components."""
    return Draft7Validator({"allOf": [schema], "components": document["components"]})


def mismatch(document: dict[str, Any], schema: dict[str, Any], value: Any) -> str | None:
    """Why a value is not what a schema of the document describes; None when it is."""
    error = best_match(validator(document, schema).iter_errors(value))
    return f"{error.json_path}: {error.message}" if error else None
