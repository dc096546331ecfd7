# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is."""

from __future__ import annotations

import pytest

from glixd.frontends.turns import Turns


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
