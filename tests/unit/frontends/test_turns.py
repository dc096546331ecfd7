# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from glixd.frontends.turns import AT_ONCE, SLICE, Rounds, Turns
from tests.support.loop import on_loop


def test_uids_take_turns_however_many_connections_one_has() -> None:
    turns: Turns[str] = Turns()
    for number in range(100):
        turns.add(1, f"attacker {number}")
    turns.add(2, "bystander")
    assert [turns.take()[1] for _ in range(4)] == ["attacker 0", "bystander", "attacker 1", "attacker 2"]


def test_connections_of_one_uid_take_turns() -> None:
    turns: Turns[str] = Turns()
    for name in ("a", "b"):
        turns.add(1, name)
    seen = []
    for _ in range(4):
        seen.append(turns.take()[1])
        turns.add(1, seen[-1])
    assert seen == ["a", "b", "a", "b"]


def test_who_is_dropped_has_no_turn_and_nobody_left_is_nobodys_turn() -> None:
    turns: Turns[str] = Turns()
    turns.add(1, "a")
    turns.add(1, "a")
    turns.drop(1, "b")
    turns.drop(7, "a")
    assert turns
    turns.drop(1, "a")
    assert not turns
    with pytest.raises(KeyError):
        turns.take()


class Busy:
    """Somebody who always has more to do, each time for so long; others come in between where they may."""

    def __init__(self, clock: list[float], seconds: float, turns: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._left = turns
        self.others: list[int] = []
        """After which of its turns the rest of the daemon had its own."""

    def turn(self) -> bool:
        self._clock[0] += self._seconds
        self._left -= 1
        asyncio.get_running_loop().call_soon(self.others.append, self._left)
        return self._left > 0


@on_loop
@pytest.mark.parametrize(
    ("seconds", "rests"), [(SLICE * 1.001, [1, 2, 3, 4, 5, 6]), (SLICE / 3 * 1.001, [3, 6]), (0.0, [AT_ONCE, 6])]
)
async def test_a_few_turns_are_taken_for_a_short_time_before_the_rest_of_the_daemon_has_its_own(
    seconds: float, rests: list[int]
) -> None:
    clock = [0.0]
    rounds = Rounds(clock=lambda: clock[0])
    one = Busy(clock, seconds, 6)
    rounds.ask(1, one)
    seen = {0}
    while len(one.others) < 6:
        await asyncio.sleep(0)
        seen.add(len(one.others))
    assert sorted(seen - {0}) == rests
