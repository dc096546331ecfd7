# SPDX-License-Identifier: GPL-3.0-or-later
"""The package index: what fits a query, in which order, and that a build goes on where it stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from glixd.api import Consent
from glixd.backends.index import LEVELS, Entry, Found, Index, IndexDamaged, Indexes, level_of
from glixd.errors import Failed

REVISION = "5" * 40
SYSTEM = "x86_64-linux"
PACKAGES = [
    Entry("firefox", "firefox", "140.0", "Web browser"),
    Entry("firefox-esr", "firefox-esr", "128.0", "Web browser with long support"),
    Entry("firefoxpwa", "firefoxpwa", "2.0", "Tool to install web apps"),
    Entry("librefox", "librefox", "1.0", "Firefox without telemetry"),
    Entry("tor-firefox", "tor-firefox", "1.0", "Anonymous browser"),
    Entry("_1password", "1password", "8.11", "Password manager", (Consent.UNFREE,)),
    Entry("python3Packages.requests", "python3.13-requests", "2.32", "HTTP library for Python"),
    Entry("requests-tool", "requests-tool", "1", "HTTP toys"),
    Entry("ripgrep", "ripgrep", "14.1", "Fast search tool", (Consent.UNFREE, Consent.BROKEN)),
]


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    folder = Indexes(tmp_path / "index")
    yield folder
    folder.close()


def built(indexes: Indexes, packages: Iterable[Entry], revision: str = REVISION) -> Index:
    draft = indexes.draft(revision, SYSTEM)
    draft.add([], Found(tuple(packages)))
    index = indexes.complete(draft, revision, SYSTEM)
    assert index is not None
    return index


def search(index: Index, query: str, limit: int = 50) -> list[str]:
    levels = (index.level(query, level, limit) for level in range(LEVELS))
    return list(dict.fromkeys(entry.attribute for _, entry in itertools.chain.from_iterable(levels)))


def test_the_exact_name_comes_before_a_prefix_before_a_word_before_the_description(indexes: Indexes) -> None:
    assert search(built(indexes, PACKAGES), "firefox") == [
        "firefox",
        "firefoxpwa",
        "firefox-esr",
        "tor-firefox",
        "librefox",
    ]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("FireFox", "firefox"),
        ("firefox-esr", "firefox-esr"),
        ("firefox-e", "firefox-esr"),
        ("requests", "python3Packages.requests"),
        ("python3Packages.requests", "python3Packages.requests"),
        ("python3.13-requests", "python3Packages.requests"),
        ("1password", "_1password"),
        ("manager pass", "_1password"),
        ("web long", "firefox-esr"),
    ],
)
def test_a_query_finds_what_is_meant(indexes: Indexes, query: str, first: str) -> None:
    assert search(built(indexes, PACKAGES), query)[0] == first


@pytest.mark.parametrize(
    "query",
    ["nothing", "fire nothing", '"', "*", "^", "a OR b", "NEAR(a b)", "name:x", "++", "' OR 1=1 --", "\0"],
)
def test_a_query_is_words_and_never_a_command(indexes: Indexes, query: str) -> None:
    assert search(built(indexes, PACKAGES), query) == []


def test_an_entry_comes_back_as_it_was(indexes: Indexes) -> None:
    index = built(indexes, PACKAGES)
    assert [index.find(entry.attribute) for entry in PACKAGES] == PACKAGES
    assert index.find("Firefox") is None


def test_a_misspelt_name_gives_the_closest_of_the_top_level(indexes: Indexes) -> None:
    index = built(indexes, PACKAGES)
    assert index.near("firefx", 3)[0] == "firefox"
    assert index.near("rpigrep", 3) == ["ripgrep"]
    assert index.near("zzzzz", 3) == []


def test_a_build_goes_on_where_it_stopped(indexes: Indexes) -> None:
    draft = indexes.draft(REVISION, SYSTEM)
    assert not draft.begun
    draft.add([], Found(below=(("a",), ("b",), ("odd name",), ("c.d",))))
    draft.add([("a",)], Found((PACKAGES[0],), below=(("a", "x"),)))
    draft.close()
    again = indexes.draft(REVISION, SYSTEM)
    assert again.begun
    assert again.todo(10) == [("b",), ("a", "x")]
    assert again.progress == (1, 2)
    assert indexes.get(REVISION, SYSTEM) is None
    again.close()


def test_an_index_survives_its_daemon_and_only_wanted_ones_stay(indexes: Indexes, tmp_path: Path) -> None:
    built(indexes, PACKAGES)
    built(indexes, PACKAGES[:1], "6" * 40)
    indexes.draft("7" * 40, SYSTEM).close()
    again = Indexes(tmp_path / "index")
    again.prune([("6" * 40, SYSTEM)])
    assert again.get(REVISION, SYSTEM) is None
    index = again.get("6" * 40, SYSTEM)
    assert index is not None
    assert index.size == 1
    assert len(list((tmp_path / "index").iterdir())) == 1
    again.close()


def test_another_revision_or_system_has_another_index(indexes: Indexes) -> None:
    built(indexes, PACKAGES)
    assert indexes.get("6" * 40, SYSTEM) is None
    assert indexes.get(REVISION, "aarch64-linux") is None
    assert indexes.get(None, SYSTEM) is None
    assert indexes.other(SYSTEM) is not None
    assert indexes.other("aarch64-linux") is None


def test_a_damaged_index_is_as_good_as_none(indexes: Indexes, tmp_path: Path) -> None:
    path = built(indexes, PACKAGES).path
    path.write_bytes(b"no database at all" * 1000)
    again = Indexes(tmp_path / "index")
    assert again.get(REVISION, SYSTEM) is None
    assert not path.exists()


def test_damage_that_shows_later_is_told_and_what_was_put_away_is_not_damaged(indexes: Indexes) -> None:
    index = built(indexes, many(5_000))
    data = index.path.read_bytes()
    index.path.write_bytes(data[:4096] + b"x" * (len(data) - 4096))
    with pytest.raises(IndexDamaged) as damaged:
        search(index, "package", 5_000)
    indexes.forget(damaged.value.index)
    assert indexes.get(REVISION, SYSTEM) is None
    index = built(indexes, PACKAGES)
    indexes.close()
    with pytest.raises(Failed, match="put away"):
        index.find("firefox")
    assert index.path.exists()


def test_a_damaged_draft_starts_anew(indexes: Indexes) -> None:
    draft = indexes.draft(REVISION, SYSTEM)
    draft.close()
    draft.path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(Failed):
        indexes.draft(REVISION, SYSTEM)
    assert built(indexes, PACKAGES).size == len(PACKAGES)


SYLLABLES = ("fire", "fox", "lib", "py", "thon", "net", "data", "web", "ser", "kit")
WORDS = ("package", "library", "for", "the", "tool", "fast", "editor", "text", "server", "browser")


def many(count: int) -> Iterator[Entry]:
    """Packages with names and descriptions that have much in common."""
    for number in range(count):
        digits = f"{number:06}"
        name = "".join(SYLLABLES[int(digit)] for digit in digits[-3:]) + f"-{number}"
        description = " ".join(WORDS[int(digit)] for digit in digits)
        yield Entry(f"{'set.' if number % 3 else ''}{name}", name, "1.0", description)


def test_a_hundred_thousand_names_are_ranked_and_paged_without_gaps(indexes: Indexes) -> None:
    index = built(indexes, many(100_000))
    assert index.size == 100_000
    assert search(index, "firefoxlib-12", 3)[0] == "firefoxlib-12"
    for level, query in ((1, "fire"), (2, "99"), (3, "server tool")):
        whole = [number for number, _ in index.level(query, level, 500)]
        assert len(whole) == 500
        assert whole == sorted(set(whole))
        assert [number for number, _ in index.level(query, level, 100)] == whole[:100]


@pytest.mark.parametrize(
    ("query", "level"),
    [("Firefox", 0), ("fire", 1), ("browser", 3), ("web fire", 3), ("x", None), ("", None), ("--", None)],
)
def test_what_is_in_no_index_is_ranked_alike(query: str, level: int | None) -> None:
    assert level_of(query, "firefox", "Web browser") == level
