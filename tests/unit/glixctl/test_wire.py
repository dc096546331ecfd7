# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON of the socket is that of the `json` package."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glixctl import wire
from glixd.protocol import State

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_values_are_written_and_read_as_the_package_does_it(value: Any) -> None:
    written = wire.dumps(value)
    assert written == json.dumps(value)
    assert wire.loads(f" {written}\n".encode()) == json.loads(written)


def test_words_of_the_protocol_and_tuples_are_written_as_the_package_does_it() -> None:
    value = {"state": State.RUNNING, "names": ("a", "b"), "no text": "\ud800"}
    assert wire.dumps(value) == json.dumps(value)


@given(st.binary() | st.text(alphabet='[]{}",:0123456789tfn \\eE.-+').map(str.encode))
def test_what_is_no_json_is_refused_as_the_package_refuses_it(data: bytes) -> None:
    assert read(wire.loads, data) == read(lambda raw: json.loads(raw.decode()), data)


def read(reader: Callable[[bytes], Any], data: bytes) -> str:
    """What a reader makes of bytes, to be compared: a value that is no number is not equal to itself."""
    try:
        return repr(reader(data))
    except ValueError:
        return "refused"
