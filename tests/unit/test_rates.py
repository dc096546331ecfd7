# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a uid may ask, with a clock of the test's own."""

from __future__ import annotations

import pytest

from glixd.errors import InvalidRequest
from glixd.protocol import ErrorCode
from glixd.rates import Rates


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(rates: Rates, uid: int, times: int) -> int:
    """How many of so many calls are let through."""
    passed = 0
    for _ in range(times):
        try:
            rates.take(uid)
        except InvalidRequest:
            continue
        passed += 1
    return passed


def test_a_burst_is_let_through_and_then_as_many_as_time_allows() -> None:
    clock = Clock()
    rates = Rates(20, 40, clock)
    assert taken(rates, 1000, 100) == 40
    clock.now += 1
    assert taken(rates, 1000, 100) == 20
    clock.now += 3600
    assert taken(rates, 1000, 100) == 40


def test_every_uid_has_a_bucket_of_its_own_and_root_has_one_too() -> None:
    rates = Rates(1, 2, Clock())
    assert [taken(rates, uid, 5) for uid in (1000, 1001, 0)] == [2, 2, 2]


def test_the_refusal_says_the_limit_and_when_to_ask_again() -> None:
    clock = Clock()
    rates = Rates(2, 1, clock)
    rates.take(1000)
    with pytest.raises(InvalidRequest) as refused:
        rates.take(1000)
    assert refused.value.code is ErrorCode.LIMIT_EXCEEDED
    assert refused.value.details == {"limit": 1, "milliseconds": 500}
    clock.now += 0.5
    rates.take(1000)


def test_what_is_refused_does_not_put_off_the_next_one() -> None:
    clock = Clock()
    rates = Rates(1, 1, clock)
    rates.take(1000)
    assert taken(rates, 1000, 1000) == 0
    clock.now += 1
    assert taken(rates, 1000, 2) == 1


def test_uids_that_have_been_quiet_take_no_room() -> None:
    clock = Clock()
    rates = Rates(20, 40, clock)
    for uid in range(100_000):
        clock.now += 0.01
        rates.take(uid)
    assert len(rates) <= 1025
