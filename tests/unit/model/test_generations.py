# SPDX-License-Identifier: GPL-3.0-or-later
"""Which generations of a profile a rule gives up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.model.generations import Generation, Rule, expendable

DAY = 86400
NOW = 100.0 * DAY
PROFILE = [
    Generation(number, NOW - age * DAY, current=number == 5) for number, age in enumerate((90, 60, 31, 10, 1), 1)
]


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        (Rule(), []),
        (Rule(delete_old=True), [1, 2, 3, 4]),
        (Rule(keep=1), [1, 2, 3, 4]),
        (Rule(keep=3), [1, 2]),
        (Rule(keep=9), []),
        (Rule(older_than=30 * DAY), [1, 2]),
        (Rule(older_than=9 * DAY), [1, 2, 3]),
        (Rule(older_than=0), [1, 2, 3, 4]),
        (Rule(keep=4, older_than=30 * DAY), [1]),
        (Rule(keep=1, older_than=59 * DAY), [1]),
    ],
)
def test_a_rule_gives_up_what_no_part_of_it_spares(rule: Rule, gone: list[int]) -> None:
    assert [one.number for one in expendable(reversed(PROFILE), rule, NOW)] == gone


def test_a_generation_that_was_in_use_until_lately_is_not_old() -> None:
    generations = [Generation(1, NOW - 90 * DAY, current=False), Generation(2, NOW - DAY, current=True)]
    assert expendable(generations, Rule(older_than=30 * DAY), NOW) == []


def test_after_a_step_back_the_current_one_stays_and_the_one_that_was_left_counts_by_its_age() -> None:
    generations = [Generation(1, NOW - 90 * DAY, current=True), Generation(2, NOW - 60 * DAY, current=False)]
    assert [one.number for one in expendable(generations, Rule(older_than=30 * DAY), NOW)] == [2]
    assert [one.number for one in expendable(generations, Rule(keep=1), NOW)] == []
    assert [one.number for one in expendable(generations, Rule(delete_old=True), NOW)] == [2]


@given(
    st.sets(st.integers(1, 30)),
    st.integers(0, 29),
    st.none() | st.integers(1, 10),
    st.none() | st.integers(0, 10 * DAY),
    st.booleans(),
)
def test_the_current_generation_and_the_newest_that_are_kept_always_stay(
    numbers: set[int], place: int, keep: int | None, older: int | None, delete_old: bool
) -> None:
    ordered = sorted(numbers)
    current = ordered[place % len(ordered)] if ordered else 0
    generations = [Generation(number, NOW - (40 - number) * DAY, number == current) for number in ordered]
    gone = {one.number for one in expendable(generations, Rule(keep, older, delete_old), NOW)}
    assert current not in gone
    assert not gone & set(ordered[len(ordered) - (keep or 0) :] if keep else [])
