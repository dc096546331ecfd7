# SPDX-License-Identifier: GPL-3.0-or-later
"""A manifest that is read by the part in which it differs from a known one says the same as if all of it were read."""

from __future__ import annotations

import random
import tomllib
from typing import Any

import pytest

from glixd.errors import Refused
from glixd.model.manifest import Manifest

PATH = "hosts/laptop/glix.toml"
HEAD = 'schema = 1\n\n[settings]\ndefault_scope = "home"\nprimary_user = "alice"\n\n'
FILLING = "".join(f'[packages.filling-{number:02}]\nflake = "nixpkgs#hello"\n\n' for number in range(80))
BETWEEN = '[packages.one]\nflake = "nixpkgs#one"\n\n[packages.two]\nflake = "nixpkgs#two"\n\n'

Told = tuple[Manifest, list[str]] | str


def said(text: str) -> Told:
    """What a manifest says, and in which order; or the words in which it is refused."""
    return _told(lambda: Manifest.parse(text, PATH))


def said_by_part(text: str, base: str) -> Told:
    """The same, by the part in which it differs from a base that is known."""
    known = Manifest.parse(base, PATH)
    return _told(lambda: Manifest.parse_part(text, PATH, base, known))


def assert_same(text: str, base: str) -> None:
    """Hold both to say the same; the whole is read first, for what a part tells is remembered."""
    expected = said(text)
    assert said_by_part(text, base) == expected


def _told(parse: Any) -> Told:
    try:
        manifest: Manifest = parse()
    except Refused as error:
        return f"{error.message} {error.details}"
    return manifest, list(manifest.packages)


@pytest.mark.parametrize(
    "now",
    [
        BETWEEN.replace("nixpkgs#two", "nixpkgs#git"),
        BETWEEN.replace("[packages.one]", '[packages.new]\nflake = "nixpkgs#new"\n\n[packages.one]'),
        BETWEEN.replace('[packages.two]\nflake = "nixpkgs#two"\n\n', ""),
        "",
        BETWEEN.replace('#two"\n', '#two"\n[packages.two.config]\na = "b"\n'),
        BETWEEN.replace('#two"\n', '#two"\n[packages.two.config]\na = 1\n'),
        BETWEEN.replace('#two"\n', '#two"\nscope = "nowhere"\n'),
        BETWEEN.replace('#two"\n', '#two"\nscope = "system"\nuser = "bob"\n'),
        BETWEEN.replace('#two"\n', '#two"\nunknown = 1.5\n'),
        BETWEEN.replace('#two"\n', '#two"\nunknown = 1970-01-01\n'),
        BETWEEN.replace('#two"\n', '#two\\u0007"\n'),
        BETWEEN.replace('#two"\n', '#two\x85"\n'),
        BETWEEN.replace('#two"\n', "#two\n"),
        BETWEEN.replace('#two"\n', '#two"\nconfig = "text"\n'),
        BETWEEN.replace('#two"\n', '#two"\nflake = "nixpkgs#again"\n'),
        BETWEEN.replace("[packages.two]", "[packages.one]"),
        BETWEEN.replace("[packages.two]", "[packages.filling-03]"),
        BETWEEN.replace("[packages.two]", "[packages.filling-79]"),
        BETWEEN.replace("[packages.two]", "[packages.filling-79.config]"),
        BETWEEN.replace("[packages.two]", "[[packages.two]]"),
        BETWEEN.replace("[packages.two]", '[packages."not a name"]'),
        BETWEEN.replace("[packages.two]", '[packages]\ntwo.pin = "v1"\n[packages.three]'),
        BETWEEN.replace("[packages.two]", '["pack\\u0061ges"]\n[packages.three]'),
        BETWEEN.replace("[packages.two]", "[settings]\nauto_apply = true\n[packages.two]"),
        BETWEEN.replace("[packages.two]", "[other]\n[packages.two]"),
        BETWEEN.replace("[packages.two]", "[packages.one.more]\na = 1\n[packages.two]"),
        BETWEEN.replace('#two"\n', '#two"\nx = """\n[packages.three]\nflake = "x"\n"""\n'),
        BETWEEN.replace('#two"\n', '#two"\nx = [\n'),
        BETWEEN.replace('#two"\n', '#two"\nx = [\n1,\n[2]]\n'),
        BETWEEN.replace('#two"\n', '#two" # [packages.three]\n'),
    ],
)
@pytest.mark.parametrize("declared", ["", "[packages]\n\n"])
def test_a_part_is_read_as_the_whole_would_be(now: str, declared: str) -> None:
    half = len(FILLING) // 2
    before = HEAD + declared + FILLING[:half] + BETWEEN + FILLING[half:]
    after = HEAD + declared + FILLING[:half] + now + FILLING[half:]
    assert_same(after, before)
    at_the_end = HEAD + declared + FILLING + now
    assert_same(at_the_end, HEAD + declared + FILLING + BETWEEN)


@pytest.mark.parametrize(
    ("far", "now"),
    [
        ('[packages.one.config]\na = "b"\n', ""),
        ('[packages.one.config]\na = "b"\n', '[packages.one]\nflake = "nixpkgs#one"\nconfig = {}\n'),
        ("[packages.one.more.inner]\n", ""),
        ("[packages.one.more]\n", ""),
        ("[packages.one.config]\n", ""),
        ("[packages.one.config]\n", '[packages.one]\nflake = "nixpkgs#one"\nconfig = {}\n'),
        ("[settings.more]\na = 1\n", '[packages.one]\nflake = "nixpkgs#uno"\n'),
    ],
)
def test_what_stands_in_two_places_is_read_whole(far: str, now: str) -> None:
    begin = HEAD + BETWEEN.replace("one", "zero")
    before = begin + '[packages.one]\nflake = "nixpkgs#one"\n' + FILLING + far
    after = begin + now + FILLING + far
    assert_same(after, before)


def test_a_table_that_is_declared_empty_elsewhere_is_seen() -> None:
    one = '[packages.one]\nflake = "nixpkgs#one"\n[packages.one.more.inner]\na = 1\n\n'
    rest = FILLING.replace("packages.filling", "packages.rest") + "[packages.one.more]\n"
    assert_same(HEAD + FILLING + rest, HEAD + FILLING + one + rest)


def test_random_damage_is_seen() -> None:
    order = random.Random(1)
    half = len(FILLING) // 2
    before = HEAD + FILLING[:half] + BETWEEN + FILLING[half:]
    for _ in range(400):
        start = order.randrange(len(HEAD), len(before))
        end = min(start + order.randrange(40), len(before))
        middle = "".join(
            order.choice(["[", "]", '"', "\n", "packages.", "one", " = ", "#", "'", "\\"]) for _ in range(4)
        )
        after = before[:start] + middle + before[end:]
        assert_same(after, before)


def test_only_the_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = HEAD + FILLING + BETWEEN
    base = Manifest.parse(before, PATH)
    after = before.replace("nixpkgs#two", "nixpkgs#three")
    read: list[str] = []
    loads = tomllib.loads

    def counting(text: str) -> Any:
        read.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", counting)
    manifest = Manifest.parse_part(after, PATH, before, base)
    assert manifest.packages["two"].flake == "nixpkgs#three"
    assert manifest.packages["one"] is base.packages["one"]
    assert read
    assert max(map(len, read)) < 100
