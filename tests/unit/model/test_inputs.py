# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of inputs: one for each pair of package and URL."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.api import PACKAGE_NAME
from glixd.model.inputs import INPUT_NAME, RESERVED_INPUTS, assign_input


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("firefox", "firefox"),
        ("with", "with"),
        ("7zip", "p-7zip"),
        ("_1password", "p-_1password"),
        ("gtk+", "gtk-"),
        ("a.b", "a-b"),
        ("nixpkgs", "p-nixpkgs"),
        ("self", "p-self"),
        ("home-manager", "p-home-manager"),
        ("glixos-core", "p-glixos-core"),
        ("x" * 128, "x" * 128),
    ],
)
def test_the_first_url_gets_the_fitted_name(name: str, expected: str) -> None:
    assert assign_input(name, "github:o/r", {}) == expected


def test_the_same_package_from_the_same_url_shares_its_input() -> None:
    assert assign_input("x", "github:o/x", {"x": "github:o/x", "y": "github:o/y"}) == "x"


def test_another_url_under_the_same_name_gets_a_digest() -> None:
    other = "github:o/x/v2"
    expected = f"x-{hashlib.sha256(other.encode()).hexdigest()[:8]}"
    assert assign_input("x", other, {"x": "github:o/x"}) == expected
    assert assign_input("x", other, {"x": "github:o/x", expected: other}) == expected


def test_an_assigned_name_stays_when_the_plain_one_becomes_free() -> None:
    other = "github:o/x/v2"
    assigned = assign_input("x", other, {"x": "github:o/x"})
    assert assign_input("x", other, {assigned: other}) == assigned


def test_a_digest_that_is_taken_grows() -> None:
    url = "github:o/x"
    digest = hashlib.sha256(url.encode()).hexdigest()
    taken = {"x": "github:a/b", f"x-{digest[:8]}": "github:c/d"}
    assert assign_input("x", url, taken) == f"x-{digest[:16]}"


@given(st.lists(st.tuples(st.from_regex(PACKAGE_NAME, fullmatch=True), st.sampled_from("abc")), max_size=12))
def test_every_assigned_name_is_usable_and_stands_for_one_url(pairs: list[tuple[str, str]]) -> None:
    taken: dict[str, str] = {}
    for name, url in pairs:
        assigned = assign_input(name, url, taken)
        assert INPUT_NAME.fullmatch(assigned)
        assert assigned not in RESERVED_INPUTS
        assert taken.setdefault(assigned, url) == url
    for name, url in pairs:
        assert taken[assign_input(name, url, taken)] == url
