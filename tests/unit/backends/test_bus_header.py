# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of messages, read without the library: the same as the library reads, and nothing for what is none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.backends import bus_header, bus_library
from glixd.backends.bus_header import Kind
from glixd.backends.bus_library import Message, MessageType, Variant
from glixd.errors import InvalidRequest

NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,60}", fullmatch=True)
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
INTERFACE = st.lists(NAME, min_size=2, max_size=4).map(".".join).filter(lambda text: len(text) < 200)


@given(PATH, INTERFACE, NAME, st.integers(1, 0xFFFFFFFF), st.text().filter(lambda text: "\0" not in text))
def test_a_header_says_what_the_library_reads(path: str, interface: str, member: str, serial: int, text: str) -> None:
    message = Message(
        path=path, interface=interface, member=member, destination="a.b", serial=serial, signature="s", body=[text]
    )
    data = bus_library.marshalled(message)
    found = bus_header.read(data)
    assert found is not None
    assert (found.kind, found.path, found.interface, found.member) == (Kind.CALL, path, interface, member)
    assert (found.serial, found.signature, found.size) == (serial, "s", len(data))
    assert found.body == [text]
    header, body = bus_header.sizes(bytearray(data))
    assert header + body == len(data)


@given(INTERFACE, NAME)
@pytest.mark.parametrize("options", [{}, {"host": "laptop"}])
@pytest.mark.parametrize("signature", ["a{sv}", "a{ss}", "t"])
def test_a_body_without_options_is_what_the_library_reads(
    signature: str, options: dict[str, str], interface: str, member: str
) -> None:
    bodies: dict[str, object] = {
        "a{sv}": {name: Variant("s", text) for name, text in options.items()},
        "a{ss}": options,
        "t": len(options),
    }
    message = Message(
        path="/a", interface=interface, member=member, serial=1, signature=signature, body=[bodies[signature]]
    )
    found = bus_header.read(bus_library.marshalled(message))
    assert found is not None
    assert found.body == [bodies[signature]]
    again = bus_header.read(bus_library.marshalled(message))
    assert again is not None
    found.body.append("of one call")
    assert again.body == [bodies[signature]]


def test_calls_of_one_method_share_their_texts_and_nothing_else() -> None:
    def call(serial: int, text: str) -> bytes:
        message = Message(
            path="/a", interface="a.b", member="C", sender=":1.7", serial=serial, signature="s", body=[text]
        )
        return bus_library.marshalled(message)

    first, second = bus_header.read(call(1, "one")), bus_header.read(call(2, "another"))
    assert first is not None
    assert second is not None
    assert first.path is second.path
    assert (first.serial, first.body) == (1, ["one"])
    assert (second.serial, second.body) == (2, ["another"])


def test_however_many_headers_come_a_bounded_number_is_remembered() -> None:
    for number in range(3000):
        data = bus_library.marshalled(Message(path="/a", interface="a.b", member=f"C{number}", serial=1))
        found = bus_header.read(data)
        assert found is not None
        assert found.member == f"C{number}"
    assert len(bus_header._KNOWN) <= bus_header._REMEMBERED


def test_an_answer_says_what_it_answers() -> None:
    message = Message(message_type=MessageType.METHOD_RETURN, reply_serial=77, destination=":1.1", serial=3)
    found = bus_header.read(bus_library.marshalled(message))
    assert found is not None
    assert (found.kind, found.reply_serial, found.body) == (Kind.RETURN, 77, [])


@given(st.binary(min_size=16, max_size=200), st.sampled_from([b"l\1\0\1", b"B\1\0\1"]))
def test_whatever_stands_in_a_header_is_read_or_not_understood(rest: bytes, begin: bytes) -> None:
    data = begin + rest
    assert bus_header.read(data) is None or isinstance(bus_header.read(data), bus_header.Call)


@given(st.data())
def test_a_damaged_header_is_read_or_not_understood(data: st.DataObject) -> None:
    whole = bytearray(
        bus_library.marshalled(Message(path="/a", interface="a.b", member="C", destination="a.b", serial=1))
    )
    place = data.draw(st.integers(4, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    found = bus_header.read(bytes(whole))
    assert found is None or found.kind == Kind.CALL


def test_arguments_that_the_library_can_not_read_are_refused_by_a_typed_error() -> None:
    message = Message(path="/a", interface="a.b", member="C", serial=1, signature="v", body=[Variant("s", "text")])
    data = bytearray(bus_library.marshalled(message))
    data[-9:-4] = struct.pack("<BI", 255, 7)
    found = bus_header.read(bytes(data))
    assert found is not None
    with pytest.raises(InvalidRequest):
        _ = found.body
