# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of packages: what a filter leaves, what sorting does, and that pages lose and repeat nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd import api, listing
from glixd.backends.repository import Repository
from glixd.errors import InvalidRequest
from tests.support.hermetic import commit_all, git, write_files
from tests.support.plain import make_plain_repository, processes

LAPTOP = """\
schema = 1
[settings]
default_scope = "system"
primary_user = "alice"
[packages.zsh]
flake = "nixpkgs#zsh"
[packages.firefox]
flake = "github:o/Browser"
scope = "home"
[packages.emacs]
flake = "nixpkgs#emacs"
scope = "home"
user = "bob"
enabled = false
"""
PI = """\
schema = 1
[packages.git]
flake = "github:o/git"
[packages.emacs]
flake = "nixpkgs#emacs"
"""

Listed = Callable[..., list[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two hosts."""
    make_plain_repository(tmp_path / "root", {"hosts/laptop/glix.toml": LAPTOP, "hosts/pi/glix.toml": PI})
    return tmp_path / "root"


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Iterator[Repository]:
    made = Repository(root, processes(tmp_path))
    yield made
    made.close()


def page(repository: Repository, **asked: Any) -> listing.Page:
    parameters = api.parse(api.operation("List"), asked)
    assert isinstance(parameters, api.ListParameters)
    return listing.page(repository, repository.snapshot(), "laptop", parameters)


def names(found: listing.Page) -> list[str]:
    return [f"{entry.host}/{entry.name}" for entry in found.packages]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["laptop/firefox", "laptop/zsh"]),
        ({"include_disabled": True}, ["laptop/emacs", "laptop/firefox", "laptop/zsh"]),
        ({"state": "disabled"}, ["laptop/emacs"]),
        ({"state": "enabled", "include_disabled": True}, ["laptop/firefox", "laptop/zsh"]),
        ({"scope": "system"}, ["laptop/zsh"]),
        ({"scope": "home"}, ["laptop/firefox"]),
        ({"user": "alice"}, ["laptop/firefox"]),
        ({"user": "bob"}, []),
        ({"user": "bob", "include_disabled": True}, ["laptop/emacs"]),
        ({"text": "BROWSER"}, ["laptop/firefox"]),
        ({"text": "github:"}, ["laptop/firefox"]),
        ({"text": "emacs", "all_hosts": True}, ["pi/emacs"]),
        ({"all_hosts": True}, ["laptop/firefox", "laptop/zsh", "pi/emacs", "pi/git"]),
        ({"all_hosts": True, "sort": "name"}, ["pi/emacs", "laptop/firefox", "pi/git", "laptop/zsh"]),
        ({"all_hosts": True, "sort": "flake"}, ["laptop/firefox", "pi/git", "pi/emacs", "laptop/zsh"]),
        ({"all_hosts": True, "sort": "scope"}, ["laptop/firefox", "laptop/zsh", "pi/emacs", "pi/git"]),
        (
            {"all_hosts": True, "sort": "user", "include_disabled": True},
            ["laptop/zsh", "pi/emacs", "pi/git", "laptop/firefox", "laptop/emacs"],
        ),
    ],
)
def test_a_list_has_what_was_asked_for_in_the_order_asked_for(
    repository: Repository, asked: dict[str, Any], expected: list[str]
) -> None:
    assert names(page(repository, **asked)) == expected


@pytest.mark.parametrize("sort", [None, *api.Order])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_pages_are_the_list_in_pieces(repository: Repository, sort: api.Order | None, limit: int) -> None:
    asked: dict[str, Any] = {"all_hosts": True, "include_disabled": True}
    if sort:
        asked["sort"] = sort.value
    whole = names(page(repository, **asked))
    pieces: list[str] = []
    after: dict[str, str] = {}
    while True:
        found = page(repository, **asked, **after, limit=limit)
        assert len(found.packages) <= limit
        pieces += names(found)
        if found.next is None:
            break
        after = {"after": found.next}
    assert pieces == whole
    assert len(whole) == 5


def test_a_sorted_list_goes_on_as_it_began_although_the_packages_change_meanwhile(
    repository: Repository, root: Path
) -> None:
    first = page(repository, all_hosts=True, sort="flake", limit=2)
    assert names(first) == ["laptop/firefox", "pi/git"]
    write_files(root, {"hosts/pi/glix.toml": 'schema = 1\n[packages.aaa]\nflake = "zzz"\n'})
    commit_all(root, "Other packages")
    rest = page(repository, all_hosts=True, sort="flake", limit=2, after=first.next)
    assert names(rest) == ["pi/emacs", "laptop/zsh"]
    assert names(page(repository, all_hosts=True, sort="flake")) == ["laptop/firefox", "laptop/zsh", "pi/aaa"]


@pytest.mark.parametrize("after", ["nonsense", "", ":", "xyz:laptop/zsh", "laptop", "--help:laptop/zsh"])
@pytest.mark.parametrize("sort", [{}, {"sort": "name"}])
def test_a_cursor_that_list_did_not_give_is_refused(repository: Repository, after: str, sort: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="after"):
        page(repository, after=after, **sort)


def test_a_cursor_at_a_commit_that_is_not_on_the_branch_is_refused(repository: Repository, root: Path) -> None:
    first = page(repository, all_hosts=True, sort="name", limit=1)
    write_files(root, {"notes": "x"})
    commit_all(root, "Another")
    elsewhere = repository.snapshot().commit
    git(root, "reset", "--quiet", "--hard", "HEAD~1")
    for commit in (elsewhere, "0" * 40):
        with pytest.raises(InvalidRequest, match="not on the branch"):
            page(repository, sort="name", after=f"{commit}:{str(first.next).partition(':')[2]}")


def test_a_cursor_of_another_list_is_refused(repository: Repository) -> None:
    first = page(repository, all_hosts=True, sort="name", limit=1)
    with pytest.raises(InvalidRequest, match="another list"):
        page(repository, host="laptop", sort="name", after=first.next)


def test_a_thousand_packages_are_listed_in_every_order(repository: Repository, root: Path) -> None:
    numbers = list(range(1000))
    random.Random(1).shuffle(numbers)
    tables = "".join(f'[packages.p{number:04}]\nflake = "nixpkgs#p{999 - number:04}"\n' for number in numbers)
    write_files(root, {"hosts/pi/glix.toml": "schema = 1\n" + tables})
    commit_all(root, "Many")
    by_name = [entry.name for entry in page(repository, host="pi", sort="name").packages]
    by_flake = [entry.name for entry in page(repository, host="pi", sort="flake").packages]
    assert by_name == [f"p{number:04}" for number in range(1000)]
    assert by_flake == by_name[::-1]
