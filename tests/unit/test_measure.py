# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools

import pytest

from tests.bench.measure import Figure, Report, take_turns, worse


def test_cases_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def case(name: str) -> float:
        order.append(name)
        return 5.0 if len(order) <= 2 else 0.001

    times = take_turns({"a": lambda: case("a"), "b": lambda: case("b")}, 2)
    assert order == ["a", "b"] * 3
    assert times == {"a": (1.0, 1.0), "b": (1.0, 1.0)}


def test_a_ratio_is_told_against_the_baseline_or_the_sum_of_the_same_run() -> None:
    lines: list[str] = []
    report = Report(show=lines.append)
    report.interleaved(
        "group",
        {"floor": lambda: 0.010, "commit": lambda: 0.020, "add": lambda: 0.060},
        3,
        baseline="floor",
        goals={"add": 2.2},
        sums={"add": ("floor", "commit")},
    )
    floor, commit, add = report.figures
    assert floor.ratio is None
    assert [commit.ratio, add.ratio] == pytest.approx([2, 2])
    assert (floor.met, add.met) == (None, True)
    assert "2.00 × floor + commit  goal 2.2: met" in lines[2]


def test_more_is_better_for_a_rate() -> None:
    assert Figure("rate", (120.0,), "1/s", goal=100).met
    assert not Figure("rate", (80.0,), "1/s", goal=100).met
    assert Figure("time", (80.0,), goal=100).met


@pytest.mark.parametrize(
    ("figure", "before", "found"),
    [
        (Figure("a", (10.0,), baseline="b", base=4.0), {"unit": "ms", "median": 99.0, "ratio": 2.0}, True),
        (Figure("a", (10.0,), baseline="b", base=5.0), {"unit": "ms", "median": 1.0, "ratio": 2.0}, False),
        (Figure("a", (50.0,), "1/s"), {"unit": "1/s", "median": 100.0}, True),
        (Figure("a", (200.0,), "1/s"), {"unit": "1/s", "median": 100.0}, False),
        (Figure("a", (200.0,), "MB"), {"unit": "ms", "median": 100.0}, False),
    ],
)
def test_what_got_worse_is_said_by_ratio_where_there_is_one(
    figure: Figure, before: dict[str, object], found: bool
) -> None:
    assert bool(worse([figure], {"a": before})) is found
    assert worse([figure], {}) == []


def test_what_is_kept_has_the_spread() -> None:
    values = tuple(float(number) for number in itertools.islice(itertools.count(1), 200))
    kept = Figure("many", values).as_json()
    assert (kept["low"], kept["median"], kept["high"], kept["p99"], kept["samples"]) == (1, 100.5, 200, 199, 200)
