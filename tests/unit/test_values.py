# SPDX-License-Identifier: GPL-3.0-or-later
"""Frozen values behave like those of the standard library, which makes them more slowly."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from glixd.values import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Made quickly."""

    x: int
    y: int = 2
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Same:
    """Made by the library."""

    x: int
    y: int = 2
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Checked:
    """Looks at itself when it is made, and has an equality of its own."""

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("it has no name")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checked) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return hash(self.name.lower())


@dataclass(frozen=True, slots=True)
class Hashed:
    """Knows a quicker hash."""

    name: str

    def __hash__(self) -> int:
        return 7


@dataclass(frozen=True, slots=True)
class Farther(Point):
    """Has what its base has, and more."""

    z: int = 3


@dataclass(frozen=True, slots=True)
class Nothing:
    """Has no fields."""


def test_a_value_is_shown_and_described_as_the_librarys_own() -> None:
    assert repr(Point(1)) == repr(Same(1)).replace("Same", "Point")
    assert str(inspect.signature(Point)).count("=") == str(inspect.signature(Same)).count("=")
    assert list(inspect.signature(Point).parameters) == list(inspect.signature(Same).parameters)
    assert Point.__match_args__ == Same.__match_args__
    assert [(field.name, field.type) for field in dataclasses.fields(Point)] == [
        (field.name, field.type) for field in dataclasses.fields(Same)
    ]
    assert dataclasses.asdict(Point(1, names={"a": "b"})) == dataclasses.asdict(Same(1, names={"a": "b"}))


def test_values_are_equal_by_what_is_compared_and_by_their_class() -> None:
    assert Point(1) == Point(1, 2, {}, secret="other")
    assert Point(1) != Point(2)
    of_another_class: object = Same(1)
    assert Point(1) != of_another_class
    assert Point(1) != Farther(1)
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert len({Farther(1, names=_Frozen()), Farther(1, names=_Frozen())}) == 1
    assert Checked("A") == Checked("a")
    assert len({Checked("A"), Checked("a")}) == 1
    assert hash(Hashed("a")) == 7
    assert Hashed("a") != Hashed("b")


def test_a_value_can_not_be_changed() -> None:
    value: Any = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        value.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del value.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.another = 2
    assert not hasattr(value, "__dict__")


def test_a_default_that_is_made_is_made_for_each_value() -> None:
    assert Point(1).names == {}
    assert Point(1).names is not Point(1).names
    assert Farther(1).z == 3


def test_what_is_missing_or_too_much_is_refused() -> None:
    make: Any = Point
    wrong: tuple[tuple[object, ...], ...] = ((), (1, 2, {}, "", 5))
    for given in wrong:
        with pytest.raises(TypeError, match="__init__"):
            make(*given)
    with pytest.raises(TypeError, match="w"):
        make(1, w=2)
    with pytest.raises(ValueError, match="it has no name"):
        Checked("")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_value_is_copied_with_what_it_has(again: Any) -> None:
    value = Farther(1, names={"a": "b"}, secret="kept", z=4)
    assert again(value) == value
    assert again(value).secret == "kept"
    assert dataclasses.replace(value, x=5) == Farther(5, names={"a": "b"}, z=4)


def test_a_class_that_can_change_is_the_librarys_business() -> None:
    make: Any = dataclass
    with pytest.raises(TypeError, match="frozen"):
        make(frozen=False)


class _Frozen(dict[str, str]):
    def __hash__(self) -> int:  # type: ignore[override] # for a value of a test
        return 0
