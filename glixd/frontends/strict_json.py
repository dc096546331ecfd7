# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads JSON without its grey areas: one meaning or a refusal.

NaN and infinities, duplicate keys, lone surrogates, byte-order marks, other encodings than UTF-8 and deep nesting are
refused. Everything is done at C speed or not at all, because a message may have a mebibyte; and piece by piece, since the
interpreter can be left between two steps alone: a step over all of it kept everybody waiting for 40 ms.
"""

from __future__ import annotations

import json
import math
from typing import Final, NoReturn

from glixd.errors import InvalidRequest
from glixd.protocol import ErrorCode

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 32_768
"""More than any request has. Small values are what takes long to read, and much memory: a hundred times their bytes."""

_PIECE: Final = 64 * 1024
"""Bytes that are looked at in one step."""
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]")


def loads(raw: bytes) -> object:
    """The value that `raw` spells; raises Malformed with the reason, TooLarge for too many values."""
    if raw.count(b",") > MAX_VALUES and _outside_strings(raw).count(b",") > MAX_VALUES:
        raise InvalidRequest(
            f"The message has more than {MAX_VALUES} values and was not read.",
            code=ErrorCode.TOO_LARGE,
            hint="Split the request.",
            details={"limit": MAX_VALUES},
        )
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(raw)
    try:
        value: object = _DECODER.decode(raw.decode())
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    except ValueError as error:
        raise _malformed(_reason(error)) from None
    if b"\\ud" in raw or b"\\uD" in raw:
        _check_text(value)
    return value


def _outside_strings(raw: bytes) -> bytes:
    """What stands in no string, of which one may end with the message instead of a quote.

    Backslashes are taken as escapes everywhere: outside of strings there are none in JSON, so that the message is refused
    at the first of them at the latest, and up to there this is right.
    """
    found: list[bytes] = []
    within = 0
    for start in range(0, len(plain := _without_escapes(raw)), _PIECE):
        parts = plain[start : start + _PIECE].split(b'"')
        found.append(b"".join(parts[within::2]))
        within ^= (len(parts) - 1) & 1
    return b"".join(found)


def _without_escapes(raw: bytes) -> bytes:
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _check_depth(raw: bytes) -> None:
    """Each round takes the innermost level away, so that what is left after MAX_DEPTH rounds is deeper than that."""
    brackets = _outside_strings(raw).translate(_BRACKETS).translate(None, _ALL_BUT_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise _malformed(f"it is nested more than {MAX_DEPTH} deep, or its brackets do not match")


def _check_text(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _malformed("it holds a lone surrogate and is no Unicode text") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("an integer does not fit 64 bits")
    return number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.lower()} at character {error.pos}"
    return str(error)


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The message is no JSON that can be read: {why}.", code=ErrorCode.MALFORMED)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
)
