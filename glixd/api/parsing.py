# SPDX-License-Identifier: GPL-3.0-or-later
"""From the arguments of a message to a frozen request, or to an error that says what is wrong where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from glixd.api.grammar import Parameters, shown
from glixd.api.mutations import ApplyParameters, MutationParameters
from glixd.api.table import BATCHED, Operation, operation
from glixd.errors import InvalidRequest, invalid, naming_part

_SAID: Final = {
    "missing": "it is missing",
    "string_type": "it is no text",
    "string_unicode": "it is no Unicode text",
    "string_too_short": "it is empty",
    "string_too_long": "it has more than {max_length} characters",
    "tuple_type": "it is no list",
    "dict_type": "it is no table of values by name",
    "too_short": "it is empty",
    "too_long": "it has more than {max_length} entries",
    "bool_type": "it is neither true nor false",
    "int_type": "it is no whole number",
    "float_type": "it is no number",
    "finite_number": "it is no finite number",
    "greater_than": "it has to be more than {gt}",
    "greater_than_equal": "it has to be at least {ge}",
    "less_than_equal": "it has to be at most {le}",
    "enum": "it can be {expected}",
}
"""What is wrong, by the kinds of error of the library that finds it, whose own words are for programmers."""


def parse(row: Operation, arguments: Mapping[str, object]) -> Parameters:
    """The frozen request that `arguments` spell; raises InvalidArgument that names the first bad one and why."""
    unknown = [name for name in arguments if name not in row.parameters.model_fields]
    if unknown:
        known = ", ".join(row.parameters.model_fields) or "none"
        raise invalid(shown(unknown[0]), f"{row.name} has no such parameter", hint=f"It knows: {known}.")
    try:
        found = row.parameters.model_validate({name: _frozen(value, name) for name, value in arguments.items()})
    except ValidationError as error:
        raise _explained(error) from None
    if isinstance(found, ApplyParameters):
        parse_parts(found)
    return found


def parse_parts(batch: ApplyParameters) -> list[tuple[Operation, Parameters]]:
    """The operations of a batch as requests of their own; the host of the batch is their default."""
    found = []
    for number, part in enumerate(batch.operations, 1):
        with naming_part(number):
            found.append(_part(part, batch))
    return found


def _part(part: Mapping[str, object], batch: ApplyParameters) -> tuple[Operation, Parameters]:
    arguments = dict(part)
    name = arguments.pop("operation", None)
    if name not in BATCHED:
        raise invalid("operation", f"it is one of {', '.join(BATCHED)}, not {shown(str(name))}")
    common = sorted(arguments.keys() & (MutationParameters.model_fields.keys() - {"host"}))
    if common:
        raise invalid(common[0], "it belongs to the batch as a whole")
    if batch.host is not None:
        arguments.setdefault("host", batch.host)
    row = operation(str(name))
    return row, parse(row, arguments)


def _frozen(value: object, place: str) -> object:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(place, "it holds a lone surrogate and is no Unicode text") from None
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(_frozen(item, f"{place}.{number}") for number, item in enumerate(value))
    return value


def _shown_key(key: str) -> str:
    """A step on the way to a wrong value; it may be a key that the caller made up."""
    return key if key.isprintable() and len(key) <= 60 else shown(key)


def _explained(error: ValidationError) -> InvalidRequest:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    argument = ".".join(_shown_key(str(part)) for part in first["loc"]) or "request"
    said = _SAID.get(first["type"])
    if said is None:
        return invalid(argument, str(first["msg"]).removeprefix("Value error, "))
    return invalid(argument, said.format(**first.get("ctx", {})))
