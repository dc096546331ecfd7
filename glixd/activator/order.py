# SPDX-License-Identifier: GPL-3.0-or-later
"""What the activator is asked: one line of at most 4 KiB, every word of its form, and nothing besides."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

LIMIT: Final = 4096
_FORMS: Final = {
    "transaction": r"[0-9a-hjkmnp-tv-z]{26}",
    "commit": r"[0-9a-f]{40}|[0-9a-f]{64}|",
    "path": r"/[A-Za-z0-9_./+?=-]{1,300}",
    "action": "switch|boot|test|dry-activate",
    "caller": r":[0-9]{1,9}\.[0-9]{1,9}|pid:[1-9][0-9]{0,9}",
}


class Refused(Exception):
    """The order is not carried out, and nothing was changed."""

    def __init__(self, message: str, code: str = "NotAuthorised") -> None:
        super().__init__(message)
        self.code = code


class Order(NamedTuple):
    """One order."""

    transaction: str
    commit: str
    path: str
    action: str
    caller: str
    interactive: bool
    generation: int | None = None


def parse(line: bytes) -> Order:
    """An order as it was sent; raises Refused."""
    try:
        value = json.loads(line[: LIMIT + 1].decode("ascii"), object_pairs_hook=_once)
        known = value.keys() - {"generation"} == {*_FORMS, "interactive"} and type(value["interactive"]) is bool
        known = known and type(value.get("generation", 1)) is int and line.endswith(b"\n") and len(line) <= LIMIT
        if not known or not all(re.fullmatch(form, value[name], re.ASCII) for name, form in _FORMS.items()):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Refused("the order is malformed", "Malformed") from None
    return Order(**value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)
