# SPDX-License-Identifier: GPL-3.0-or-later
"""Nix strings: what every character becomes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.errors import InvalidRequest
from glixd.model.nixtext import nix_key, nix_string


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("${builtins.abort}", r'"\${builtins.abort}"'),
        ("$${x}", r'"$\${x}"'),
        ("$$${x}", r'"$$\${x}"'),
        ("\\${x}", r'"\\\${x}"'),
        ("cost: $5 {x}", '"cost: $5 {x}"'),
        ("$", '"$"'),
        ("a\nb\tc\rd", r'"a\nb\tc\rd"'),
        ("''indented''", "\"''indented''\""),
        ("grün 😀", '"grün 😀"'),
        ('"; evil = true; x = "', r'"\"; evil = true; x = \""'),
    ],
)
def test_a_string_is_escaped_so_that_nix_reads_it_back(text: str, expected: str) -> None:
    assert nix_string(text) == expected


@pytest.mark.parametrize("text", ["\x00", "a\x07", "\x1b[31m", "\x7f", "\x85", "\ud800", "\x0b", "\x0c"])
def test_an_unwritable_character_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"U\+"):
        nix_string(text)


@pytest.mark.parametrize("name", ["with", "firefox", "or", "7zip", "a.b"])
def test_a_key_is_always_quoted(name: str) -> None:
    assert nix_key(name) == f'"{name}"'


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\r\t")))
def test_undoing_the_escapes_gives_the_text_back(text: str) -> None:
    inside = nix_string(text)[1:-1]
    meaning = {"n": "\n", "r": "\r", "t": "\t"}
    assert re.sub(r"\\(.)", lambda match: meaning.get(match[1], match[1]), inside, flags=re.DOTALL) == text
    unescaped = re.sub(r"\\.", "-", inside, flags=re.DOTALL)
    assert '"' not in unescaped
    assert "${" not in unescaped
