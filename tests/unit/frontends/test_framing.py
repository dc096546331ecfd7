# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages come out of the stream as they went in, however the bytes are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.errors import InvalidRequest
from glixd.frontends.framing import Frames, Framing, FramingLost, framed
from glixd.protocol import ErrorCode

MESSAGES = st.lists(st.dictionaries(st.text(), st.text()).map(lambda value: json.dumps(value).encode()), max_size=5)


def taken(frames: Frames) -> list[bytes]:
    messages = []
    while (message := frames.next()) is not None:
        messages.append(message)
    return messages


@given(MESSAGES, st.sampled_from(Framing), st.integers(1, 50))
def test_messages_survive_any_cut_of_the_stream(messages: list[bytes], framing: Framing, size: int) -> None:
    stream = b"".join(framed(message, framing) for message in messages)
    frames = Frames()
    received = []
    for start in range(0, len(stream), size):
        frames.feed(stream[start : start + size])
        received += taken(frames)
    assert received == messages
    assert not frames.partial


def test_blank_lines_and_carriage_returns_are_no_messages() -> None:
    frames = Frames()
    frames.feed(b'\n\r\n  \n{"a":1}\r\n\n[]\n')
    assert taken(frames) == [b'{"a":1}\r', b"[]"]


def test_a_message_that_has_begun_is_partial_until_it_is_complete() -> None:
    frames = Frames()
    partial = []
    for data in (b"", b"{", b"}\n"):
        frames.feed(data)
        message = frames.next()
        partial.append(frames.partial)
    assert message == b"{}"
    assert partial == [False, True, False]


@pytest.mark.parametrize("framing", Framing)
def test_an_oversized_message_is_reported_once_before_it_is_complete_and_never_kept(framing: Framing) -> None:
    frames = Frames(limit=10)
    frames.feed(framed(b"[]", framing))
    assert frames.next() == b"[]"
    start, rest = (framed(b'"%b"' % (b"x" * 1000), framing)[at] for at in (slice(0, 500), slice(500, None)))
    frames.feed(start)
    with pytest.raises(InvalidRequest) as refused:
        frames.next()
    assert refused.value.code is ErrorCode.TOO_LARGE
    assert frames.next() is None
    assert frames.partial
    assert len(frames._buffer) == 0
    frames.feed(rest + framed(b"{}", framing))
    assert taken(frames) == [b"{}"]


def test_a_message_of_exactly_the_limit_is_read() -> None:
    frames = Frames(limit=10)
    frames.feed(b"0123456789\n01234567890\n[]\n")
    assert frames.next() == b"0123456789"
    with pytest.raises(InvalidRequest):
        frames.next()
    assert frames.next() == b"[]"


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 1 2\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"Content-Length: \r\n\r\n",
        b"Content-Length: 9999999999999999\r\n\r\n",
        b"Content-Type: x\r\n\r\n",
        b"Cola\r\n\r\n",
        b"C" * 5000,
    ],
)
def test_a_broken_header_loses_the_framing(header: bytes) -> None:
    frames = Frames()
    frames.feed(header)
    with pytest.raises(FramingLost):
        frames.next()
