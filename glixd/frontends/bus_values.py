# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the table as D-Bus types and back.

str `s`, bool `b`, int `x`, float `d`, a sequence of T `aT`, a model `a{sv}`, a dictionary of text `a{ss}`, of anything else
`a{sv}`; what is None is absent from its model.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from glixd.api import Value
from glixd.backends.bus import Variant, clean
from glixd.errors import GlixError
from glixd.protocol import ERROR_PREFIX

Encode = Callable[[Any], object]


def signature(annotation: Any) -> str:
    """The D-Bus signature of an annotation of the table."""
    return _codec(annotation)[0]


def encoded(value: Value) -> dict[str, Variant]:
    """A model as the body of an `a{sv}`."""
    body = {}
    for name, (type_signature, encode) in _fields(type(value)).items():
        member = getattr(value, name)
        if member is not None:
            body[name] = Variant(type_signature, encode(member))
    return body


def variant(value: object) -> Variant:
    """A plain value with the type that it shows."""
    for kind, type_signature in ((bool, "b"), (int, "x"), (float, "d"), (str, "s")):
        if isinstance(value, kind):
            return Variant(type_signature, clean(value) if isinstance(value, str) else value)
    if isinstance(value, Mapping):
        return Variant("a{sv}", {clean(str(key)): variant(item) for key, item in value.items()})
    return Variant("as", [clean(str(item)) for item in typing.cast("list[object]", value)])


def told(error: GlixError) -> tuple[str, str, tuple[str, object]]:
    """An error as it stands on the bus: its name, its sentence, and the hint and details as a typed argument."""
    facts = {"hint": variant(error.hint), "details": variant(error.details)}
    return ERROR_PREFIX + error.code, error.message, ("a{sv}", facts)


def empty(type_signature: str) -> object:
    """The value of a type that says nothing."""
    match type_signature[:2]:
        case "s":
            return ""
        case "b":
            return False
        case "x" | "d":
            return 0
        case "a{":
            return {}
        case _:
            return []


def plain(value: object) -> object:
    """What came from the bus, without the wrappers that carry types."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


@functools.cache
def _fields(model: type[Value]) -> dict[str, tuple[str, Encode]]:
    return {name: _codec(field.annotation) for name, field in model.model_fields.items()}


def _codec(annotation: Any) -> tuple[str, Encode]:
    """The signature of an annotation, and how its values are spelt."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _codec(arguments[0])
    if origin in (typing.Union, types.UnionType):
        [present] = [argument for argument in arguments if argument is not types.NoneType]
        return _codec(present)
    if origin in (tuple, list):
        inner, encode = _codec(arguments[0])
        return "a" + inner, lambda items: [encode(item) for item in items]
    if origin is dict:
        return _dictionary(arguments[1])
    return _single(annotation)


def _single(annotation: type) -> tuple[str, Encode]:
    for kind, type_signature in ((bool, "b"), (int, "x"), (float, "d")):
        if issubclass(annotation, kind):
            return type_signature, kind
    if issubclass(annotation, str):
        return "s", lambda text: clean(str(text))
    if issubclass(annotation, Value):
        return "a{sv}", encoded
    raise TypeError(f"{annotation!r} has no type on the bus")


def _dictionary(values: Any) -> tuple[str, Encode]:
    if values is str:
        return "a{ss}", lambda items: {clean(key): clean(item) for key, item in items.items()}
    return "a{sv}", lambda items: {clean(key): variant(item) for key, item in items.items()}
