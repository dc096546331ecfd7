# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus of bad input in tests/fixtures/corpus: how a case is written, and how it is said on each wire."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from glixd import api
from glixd.api import Kind
from glixd.backends.bus import Variant
from glixd.protocol import ErrorCode
from tests.support.hermetic import FIXTURES

FOLDER: Final = FIXTURES / "corpus"
MESSAGES: Final = "messages"
"""The file whose cases are messages and no operations."""

AT_ONCE: Final = frozenset({ErrorCode.INVALID_ARGUMENT, ErrorCode.UNKNOWN_OPERATION, ErrorCode.MALFORMED})
"""Errors of a malformed request: there is no transaction, unless a case says that there is."""
_MEMBER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)


class Inexpressible(Exception):
    """A wire has no way to say it."""


@dataclass(frozen=True)
class Case:
    """One request that must be refused: what is said, with which error it ends, and why.

    In a file, `{ text = "x", times = 3 }` is a long text, `{ each = "p%d", times = 3 }` are as many different ones, and
    `{ hex = "ff" }` is a word of a command line that is no text.
    """

    file: str
    why: str
    operation: str
    error: ErrorCode
    parameters: dict[str, Any] | None
    json: str | None
    """The parameters as JSON, where nothing else can say them."""
    words: tuple[str, ...] | None
    """The same on a command line, where glixctl can say it."""
    client: ErrorCode
    """What glixctl says, where it refuses a command line of its own accord."""
    socket: bool
    transaction: bool
    """Whether the refusal is the end of a transaction."""

    @classmethod
    def read(cls, file: str, table: dict[str, Any]) -> Case:
        """The case that a table of a file describes."""
        error = ErrorCode(table["error"])
        operation = _expanded(table["operation"])
        row = api.OPERATIONS.get(operation)
        mutation = row is not None and row.kind is Kind.MUTATION
        words = table.get("words")
        return cls(
            file=file,
            why=table["why"],
            operation=operation,
            error=error,
            parameters=_expanded(table["parameters"]) if "parameters" in table else None,
            json=table.get("json"),
            words=None if words is None else tuple(_words(words)),
            client=ErrorCode(table.get("client", error)),
            socket=table.get("socket", True),
            transaction=table.get("transaction", mutation and error not in AT_ONCE),
        )

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"

    def message(self, identity: int) -> bytes:
        """The request as a line for the socket."""
        parameters = json.dumps(self.parameters) if self.json is None else self.json
        method = json.dumps(self.operation)
        return f'{{"jsonrpc": "2.0", "id": {identity}, "method": {method}, "params": {parameters}}}\n'.encode()

    def call(self) -> tuple[str, list[object]]:
        """Signature and body for the bus, in which every value has the type that it shows; raises Inexpressible."""
        if self.parameters is None or not _MEMBER.fullmatch(self.operation):
            raise Inexpressible
        row = api.OPERATIONS.get(self.operation)
        given = {_text(name): _variant(value) for name, value in self.parameters.items()}
        names = api.required(row.parameters) if row else []
        typed = [given.pop(name) for name in names if name in given]
        return "".join(one.signature for one in typed) + "a{sv}", [*(one.value for one in typed), given]


def cases() -> list[Case]:
    """Every case of the corpus, file by file."""
    return [
        Case.read(path.stem, table)
        for path in sorted(FOLDER.glob("*.toml"))
        if path.stem != MESSAGES
        for table in tomllib.loads(path.read_text())["case"]
    ]


def messages() -> list[dict[str, Any]]:
    """The messages that are no request."""
    found: list[dict[str, Any]] = tomllib.loads((FOLDER / f"{MESSAGES}.toml").read_text())["case"]
    return found


def _expanded(value: Any) -> Any:
    match value:
        case {"text": str(text), "times": int(times)}:
            return text * times
        case {"each": str(text), "times": int(times)}:
            return [text % number for number in range(times)]
        case dict():
            return {key: _expanded(item) for key, item in value.items()}
        case list():
            spread = [_expanded(item) for item in value]
            return spread[0] if len(value) == 1 and isinstance(value[0], dict) and "each" in value[0] else spread
    return value


def _words(words: list[Any]) -> Iterator[str]:
    for word in words:
        match word:
            case {"hex": str(digits)}:
                yield os.fsdecode(bytes.fromhex(digits))
            case {"each": _}:
                yield from _expanded(word)
            case _:
                yield _expanded(word)


def _text(text: str) -> str:
    if "\0" in text:
        raise Inexpressible
    return text


def _variant(value: object) -> Variant:
    match value:
        case bool():
            return Variant("b", value)
        case int():
            if not -(1 << 63) <= value < 1 << 63:
                raise Inexpressible
            return Variant("x", value)
        case float():
            return Variant("d", value)
        case str():
            return Variant("s", _text(value))
        case list():
            return _array([_variant(item) for item in value])
        case dict():
            return Variant("a{sv}", {_text(key): _variant(item) for key, item in value.items()})
    raise Inexpressible


def _array(items: list[Variant]) -> Variant:
    """An array, whose items are all of one type on the bus."""
    signatures = {item.signature for item in items} or {"s"}
    if len(signatures) > 1:
        raise Inexpressible
    return Variant("a" + signatures.pop(), [item.value for item in items])
