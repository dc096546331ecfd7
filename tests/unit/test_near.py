# SPDX-License-Identifier: GPL-3.0-or-later
"""Near names: the likest first, as many as asked for, and another help where nothing is like it."""

from __future__ import annotations

from glixd.near import did_you_mean, near

KNOWN = ("firefox", "firefox-esr", "librefox", "git", "firefox")


def test_the_likest_names_come_first_and_each_once() -> None:
    assert near("firefx", KNOWN) == ["firefox", "librefox", "firefox-esr"]
    assert near("firefx", iter(KNOWN), 1) == ["firefox"]
    assert near("zzz", KNOWN) == []


def test_a_text_that_is_no_name_is_like_none() -> None:
    assert near("firefox" * 40, ["firefox" * 40]) == []


def test_a_hint_asks_for_what_was_meant_or_says_what_else_helps() -> None:
    assert did_you_mean(["a", "b"], "See the list.") == "Did you mean a or b?"
    assert did_you_mean([], "See the list.") == "See the list."
