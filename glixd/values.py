# SPDX-License-Identifier: GPL-3.0-or-later
"""Frozen values, made quickly: what `dataclasses.dataclass(frozen=True)` makes, in a third of the time that it takes.

The library compiles each of the six or more methods of a frozen class by itself. glixd has a hundred such classes, and making them
was a quarter of the time until it serves. Here a class has one method compiled for it, its `__init__`; the others are closures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass

    __all__ = ["dataclass"]
else:

    def dataclass(*, frozen: bool, slots: bool = False) -> Callable[[type], type]:
        """Make a frozen class of fields; a class that is not frozen is the library's business."""
        if not frozen:
            raise TypeError("this is for frozen classes: use dataclasses.dataclass")
        return lambda cls: _frozen(dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls))


_FACTORY: Final = object()
"""The default of a field whose value is made anew for each object."""


def _frozen(cls: Any) -> type:
    fields = dataclasses.fields(cls)
    compared = [field.name for field in fields if field.compare]
    shown = [field.name for field in fields if field.repr]
    key: Callable[[object], object] = attrgetter(*compared) if compared else lambda _value: ()

    def equal(self: object, other: object) -> bool:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: object) -> int:
        return hash(key(self))

    def show(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    own = cls.__dict__
    if "__eq__" not in own:
        cls.__eq__ = equal
    if own.get("__hash__") is None:
        cls.__hash__ = hashed
    if "__repr__" not in own:
        cls.__repr__ = show
    cls.__init__ = _initialiser(cls, fields)
    cls.__setattr__ = _refuse_to_set
    cls.__delattr__ = _refuse_to_delete
    cls.__reduce__ = _reduce
    return cls  # type: ignore[no-any-return]


def _initialiser(cls: Any, fields: tuple[dataclasses.Field[Any], ...]) -> object:
    """`__init__` as text, compiled: objects are made far more often than classes."""
    known: dict[str, object] = {"_set": object.__setattr__, "_FACTORY": _FACTORY}
    parameters, lines = [], []
    for field in fields:
        name, value = field.name, field.name
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"], known[f"_default_{name}"] = field.default_factory, _FACTORY
            value = f"_make_{name}() if {name} is _FACTORY else {name}"
        elif field.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = field.default
        parameters.append(f"{name}=_default_{name}" if f"_default_{name}" in known else name)
        lines.append(f"\n  _set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("\n  self.__post_init__()")
    exec(f"def __init__({', '.join(['self', *parameters])}):{''.join(lines) or ' pass'}", known)  # noqa: S102 # names of fields alone
    made: Any = known["__init__"]
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    made.__annotations__ = {field.name: field.type for field in fields} | {"return": None}
    return made


def _refuse_to_set(_self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _reduce(self: Any) -> tuple[type, tuple[object, ...]]:
    """How it is copied and pickled: made anew of its fields."""
    return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))
