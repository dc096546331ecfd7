# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests shaped by the table: every operation, with parameters of the right type, of a wrong one, missing and unknown.

Nothing is listed here that the table says: a new operation, a new parameter and a new type are asked for from the day on
that they are in it. A name that parameters share (host, names, refs, …) may have words of its own, some of which mean
something in the repository; parameters with other names are given whatever text there is.
"""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from glixd import api
from tests.support import corpus

_SHORT: Final = 0.2
"""Seconds that a request waits, however long it might."""


@dataclass(frozen=True)
class Shaped:
    """One request."""

    method: str
    parameters: Any

    def message(self, identity: int) -> dict[str, Any]:
        """As it goes through the socket."""
        return {"jsonrpc": "2.0", "id": identity, "method": self.method, "params": self.parameters}

    def call(self) -> tuple[str, list[object]]:
        """Signature and body for the bus; raises Inexpressible."""
        if not isinstance(self.parameters, dict):
            raise corpus.Inexpressible
        case = {"why": "", "operation": self.method, "parameters": self.parameters, "error": "Malformed"}
        return corpus.Case.read("shaped", case).call()


class Shapes:
    """An endless stream of requests, the same for the same seed."""

    def __init__(self, seed: int, words: Mapping[str, Sequence[str]]) -> None:
        self._chance = random.Random(seed)
        self._words = words
        self._bad = [text for case in corpus.cases() if case.parameters for text in _texts(case.parameters)]

    def next(self, method: str | None = None) -> Shaped:
        """A request, of that method where one is named."""
        row = api.OPERATIONS[method or self._chance.choice(list(api.OPERATIONS))]
        if method is None and self._happens(0.02):
            return Shaped(self._chance.choice([row.name.lower(), row.name + "s", "", "rpc.x", "é"]), {})
        if self._happens(0.02):
            return Shaped(row.name, self._anything(2))
        return Shaped(row.name, self._tamed(row, self._parameters(row.parameters)))

    def _tamed(self, row: api.Operation, parameters: dict[str, Any]) -> dict[str, Any]:
        """The same, but nobody waits for long."""
        if "timeout" in row.parameters.model_fields and self._is_number(parameters.get("timeout", 1.0)):
            parameters["timeout"] = min(float(parameters.get("timeout", 1.0)), _SHORT)
        return parameters

    @staticmethod
    def _is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def _parameters(self, model: type[api.Parameters]) -> dict[str, Any]:
        given = {}
        for name, field in model.model_fields.items():
            if self._happens(0.96 if field.is_required() else 0.25):
                right = self._happens(0.88)
                given[name] = self._of_type(name, field.annotation) if right else self._anything(2)
        if self._happens(0.04):
            given[self._text("unknown")] = self._anything(1)
        return given

    # -- values ----------------------------------------------------------------------------------------------------

    def _happens(self, probability: float) -> bool:
        return self._chance.random() < probability

    def _of_type(self, name: str, annotation: Any) -> Any:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._of_type(name, arguments[0])
        if origin in (typing.Union, types.UnionType):
            present = [argument for argument in arguments if argument is not types.NoneType]
            return None if self._happens(0.1) else self._of_type(name, self._chance.choice(present))
        if origin in (tuple, list):
            number = self._chance.choice([0, 1, 1, 1, 2, 3, 257 if self._happens(0.05) else 1])
            return [self._of_type(name, arguments[0]) for _ in range(number)]
        if origin is dict and name == "operations":
            return self._part()
        if origin is dict:
            return {self._text("key"): self._of_type("value", str) for _ in range(self._chance.randrange(4))}
        return self._single(name, annotation)

    def _single(self, name: str, annotation: Any) -> Any:
        if annotation is bool:
            return self._happens(0.5)
        if annotation is int:
            return self._chance.choice([0, 1, 2, 10, -1, 1000, 1001, 10**6, (1 << 63) - 1, -(1 << 63)])
        if annotation is float:
            return self._chance.choice([0.0, 0.1, 1.5, -1.0, 1e308, 86400.0, 86401.0, 5e-324])
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            return self._chance.choice([member.value for member in annotation])
        return self._text(name)

    def _part(self) -> Any:
        """A part of a batch: an operation beside its own parameters."""
        rows = [row for row in api.OPERATIONS.values() if row.kind is api.Kind.MUTATION]
        row = self._chance.choice(rows)
        own = {name: value for name, value in self._parameters(row.parameters).items() if name != "operations"}
        return {**own, "operation": row.name} if self._happens(0.95) else own

    def _text(self, name: str) -> str:
        kind = self._chance.random()
        if kind < 0.7 and name in self._words:
            return self._chance.choice(self._words[name])
        if kind < 0.9:
            return self._chance.choice(self._bad)
        letters = "aZ09_-+./:?#&=%$\"'\\`{}[]()<>|;!*~^@, \n\t\0\u00e9\u202e\ufeff\U0001f600\u2028"
        return "".join(self._chance.choices(letters, k=self._chance.choice([0, 1, 3, 10, 60, 300])))

    def _anything(self, depth: int) -> Any:
        """A value of any type that JSON has."""
        scalars: list[Any] = [None, True, False, 0, -1, 1.5, 1e300, 1 << 62, "", "x", self._text("any")]
        if not depth or self._happens(0.6):
            return self._chance.choice(scalars)
        items = [self._anything(depth - 1) for _ in range(self._chance.randrange(4))]
        return items if self._happens(0.5) else {self._text("key"): item for item in items}


def _texts(value: Any) -> list[str]:
    """Every text within a value that is not too long to be repeated often."""
    match value:
        case str():
            return [value] if len(value) < 600 else []
        case dict():
            return [text for item in value.values() for text in _texts(item)]
        case list():
            return [text for item in value for text in _texts(item)]
    return []
