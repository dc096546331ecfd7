# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as it goes over the socket: the scanner and the quoting of the `json` package, without the rest of it.

The package compiles five regular expressions when it is loaded, for whoever has no compiled scanner, and loads `re` for
them: 2.3 of the 21 ms of a short command. Both are the package's own, from the compiled module behind it, which every CPython
that can be had has; the other end, and whatever is no plain value, is read and written by the package.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from typing import Any


def dumps(value: object) -> str:
    """The JSON of a value."""
    match value:
        case str():
            return _json.encode_basestring_ascii(value)
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case int():
            return int.__repr__(value)
        case float() if value - value == 0:  # not of NaN and the infinities
            return float.__repr__(value)
        case list() | tuple():
            return f"[{', '.join(map(dumps, value))}]"
        case dict():
            return (
                "{" + ", ".join(f"{_json.encode_basestring_ascii(name)}: {dumps(value[name])}" for name in value) + "}"
            )
        case _:
            return _slowly(value)


def loads(data: bytes | bytearray) -> Any:
    """What JSON says; raises ValueError."""
    text = data.decode().strip(" \t\r\n")
    try:
        value, end = _json.make_scanner(_SETTINGS)(text, 0)
    except StopIteration as nothing:
        raise ValueError(f"no JSON at character {nothing.value}") from None
    if end != len(text):
        raise ValueError(f"something behind the JSON, at character {end}")
    return value


def _slowly(value: object) -> str:
    import json

    return json.dumps(value)


class _Settings:
    """What the scanner asks about the numbers and the tables that it finds: those of `json.loads`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    """Of NaN and the infinities."""


_SETTINGS: Any = _Settings()
