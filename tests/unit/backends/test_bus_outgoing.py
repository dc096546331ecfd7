# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which messages are written to the bus."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glixd.backends.bus_outgoing import Outgoing


def test_whoever_asked_last_does_not_wait_behind_a_thousand_answers_to_another() -> None:
    outgoing = Outgoing()
    for number in range(1000):
        outgoing.add(":1.1", b"a%03d" % number)
    outgoing.add(":1.2", b"b000")
    assert outgoing.take(12) == b"a000b000a001"


def test_no_more_is_taken_than_is_wanted_but_for_the_rest_of_a_message() -> None:
    outgoing = Outgoing()
    outgoing.add(":1.1", b"x" * 100)
    outgoing.add(":1.1", b"y")
    assert outgoing.take(1) == b"x" * 100
    assert outgoing.size == 1
    assert outgoing.take(0) == b""
    assert outgoing.take(10) == b"y"
    assert outgoing.take(10) == b""
    assert outgoing.size == 0


@given(st.lists(st.tuples(st.sampled_from(["", ":1.1", ":1.2"]), st.integers(1, 9))), st.integers(1, 40))
def test_everything_is_written_once_and_each_destination_is_told_in_order(
    sent: list[tuple[str, int]], size: int
) -> None:
    outgoing = Outgoing()
    marks = {"": b"s", ":1.1": b"a", ":1.2": b"b"}
    for number, (destination, length) in enumerate(sent):
        outgoing.add(destination, marks[destination] + b"%03d;" % number + b"." * length + b"\n")
    assert outgoing.size == sum(length + 6 for _, length in sent)
    written = b""
    while outgoing.size:
        written += outgoing.take(size)
    told = [(line[:1], int(line[1:4])) for line in written.splitlines()]
    for mark in marks.values():
        assert [number for of, number in told if of == mark] == [
            number for number, (destination, _) in enumerate(sent) if marks[destination] == mark
        ]
