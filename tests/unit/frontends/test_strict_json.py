# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON with one meaning is read; everything else is refused with the reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.errors import InvalidRequest
from glixd.frontends import strict_json
from glixd.protocol import MAX_JSON_MESSAGE, ErrorCode

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_json_can_say_is_read_back(value: object, escaped: bool) -> None:
    assert strict_json.loads(json.dumps(value, ensure_ascii=escaped).encode()) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "expecting value"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "too large"),
        (b"9223372036854775808", "64 bits"),
        (b"1" * 5000, "64 bits"),
        (b'{"a":1,"a":2}', "twice"),
        (b'[{"a":{"b":1,"b":1}}]', "twice"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\uDC00":1}', "surrogate"),
        (b'"\\ud800\\u0061"', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "expecting value"),
        ('"é"'.encode("utf-16"), "UTF-8"),
        (b"[" * 33 + b"]" * 33, "deep"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "deep"),
        (b"[" * 100_000, "deep"),
        (b"{} {}", "extra data"),
        (b"{'a':1}", "property name"),
        (b"[1,]", ""),
        (b'"a\nb"', "control character"),
        (b"{", ""),
    ],
)
def test_grey_areas_are_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        strict_json.loads(raw)
    assert refused.value.code is ErrorCode.MALFORMED
    assert reason in refused.value.message


def test_pairs_of_surrogates_are_text() -> None:
    assert strict_json.loads(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_brackets_in_text_and_beside_each_other_are_not_depth() -> None:
    assert strict_json.loads(json.dumps(['[{"\\"' * 100, [[]] * 100, [{}] * 100]).encode())
    assert strict_json.loads(b"[" * 32 + b"]" * 32)


IN_PIECES = st.lists(st.sampled_from([b'"', b"\\\\", b"\\", b"[", b"]", b",", b"x", b"xyz" * 1000]), max_size=200).map(
    b"".join
)


@given(IN_PIECES, st.integers(1, 64))
def test_what_stands_outside_of_strings_is_the_same_however_it_is_cut(raw: bytes, piece: int) -> None:
    """One by one as the grammar says, up to the first backslash outside, where every message is refused."""
    expected, within, escaped = bytearray(), False, False
    for byte in raw:
        if not within and byte == ord("\\"):
            break
        if within and (escaped or byte == ord("\\")):
            escaped = not escaped
        elif byte == ord('"'):
            within = not within
        elif not within:
            expected.append(byte)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_PIECE", piece)
        assert strict_json._outside_strings(raw).startswith(expected)


@pytest.mark.parametrize("piece", [b"[", b"[]", b'\\"', b'"', b'{"a":', b"[[],", b'"\\"'])
def test_the_largest_message_of_any_pattern_is_judged(piece: bytes) -> None:
    """The judgement is linear, or this would not end within the patience of the test run."""
    with pytest.raises(InvalidRequest):
        strict_json.loads((piece * MAX_JSON_MESSAGE)[:MAX_JSON_MESSAGE])


def test_more_values_than_any_request_has_are_refused_unread_and_commas_in_text_are_none() -> None:
    many = b"[" + b",".join([b"{}"] * (strict_json.MAX_VALUES + 2)) + b"]"
    with pytest.raises(InvalidRequest) as refused:
        strict_json.loads(many)
    assert refused.value.code is ErrorCode.TOO_LARGE
    assert strict_json.loads(b'["' + b"," * (2 * strict_json.MAX_VALUES) + b'"]') == [
        "," * (2 * strict_json.MAX_VALUES)
    ]
    assert strict_json.loads(b"[" + b",".join([b"1"] * strict_json.MAX_VALUES) + b"]") == [1] * strict_json.MAX_VALUES
