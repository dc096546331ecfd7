# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of the repository, of a host and of one package; and the difference of commits and of the work tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd import api, comparison, history
from glixd.errors import InvalidRequest, NotFound
from glixd.protocol import ErrorCode
from tests.support.hermetic import commit_all, git, write_files
from tests.support.plain import MANIFEST, Workshop, add, make_plain_repository, remove


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_plain_repository(tmp_path / "root", {"notes.txt": "one\n", "image": "\n"})
    return tmp_path / "root"


@pytest.fixture
def workshop(root: Path, tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(root, tmp_path / "state")
    made.recover()
    yield made
    made.close()


def told(workshop: Workshop, **asked: Any) -> api.Histories:
    parameters = api.parse(api.operation("History"), asked)
    assert isinstance(parameters, api.HistoryParameters)
    return history.page(workshop.git, workshop.repository.snapshot(), "laptop", parameters)


def subjects(workshop: Workshop, **asked: Any) -> list[str]:
    return [entry.subject.removeprefix("glix ").partition(" (")[0] for entry in told(workshop, **asked).entries]


def diff(workshop: Workshop, **asked: Any) -> api.Difference:
    parameters = api.parse(api.operation("Diff"), asked)
    assert isinstance(parameters, api.DiffParameters)
    return comparison.page(workshop.repository, workshop.repository.snapshot(), parameters)


def commit(root: Path, files: dict[str, str], subject: str = "By hand") -> str:
    write_files(root, files)
    return commit_all(root, subject)


def test_history_of_a_package_has_the_commits_that_changed_it_whoever_made_them(workshop: Workshop, root: Path) -> None:
    workshop.run(add("git", "zsh"))
    workshop.run(add("hello"))
    text = (root / MANIFEST).read_text()
    commit(root, {MANIFEST: text.replace("[packages.git]", "# a note\n[packages.git]")}, "Only a comment")
    commit(root, {MANIFEST: text.replace('flake = "nixpkgs#git"', 'flake = "nixpkgs#gitFull"')}, "Another git")
    workshop.run(remove("zsh"))
    workshop.run(remove("git"))
    assert subjects(workshop, name="git") == ["remove laptop: git", "Another git", "add laptop: git, zsh"]
    assert subjects(workshop, name="zsh") == ["remove laptop: zsh", "add laptop: git, zsh"]


def test_what_never_was_has_no_history_and_what_is_gone_has(workshop: Workshop, root: Path) -> None:
    workshop.run(add("git"))
    workshop.run(remove("git"))
    with pytest.raises(NotFound, match="No change ever touched a package gti of laptop") as caught:
        told(workshop, name="gti")
    assert (caught.value.code, caught.value.details["closest"]) == (ErrorCode.NOT_INSTALLED, [])
    workshop.run(add("git"))
    with pytest.raises(NotFound) as caught:
        told(workshop, name="gti", before=workshop.repository.snapshot().commit)
    assert caught.value.hint == "Did you mean git?"
    for name in (None, "git"):
        with pytest.raises(NotFound, match="no host laptpo") as caught:
            told(workshop, host="laptpo", **({"name": name} if name else {}))
        assert caught.value.code is ErrorCode.UNKNOWN_HOST
    first = told(workshop, name="git").entries[-1].commit
    assert told(workshop, name="git", before=first).entries == ()
    commit(root, {"hosts/pi/glix.toml": "schema = 1\n"}, "Another host")
    with pytest.raises(NotFound, match="of pi"):
        told(workshop, name="git", host="pi")
    git(root, "rm", "-qr", "hosts/pi")
    commit(root, {}, "It is sold")
    assert subjects(workshop, host="pi") == ["It is sold", "Another host"]


def test_the_difference_of_a_host_that_never_was_is_none(workshop: Workshop, root: Path) -> None:
    before = commit(root, {"hosts/pi/glix.toml": "schema = 1\n"}, "Another host")
    git(root, "rm", "-qr", "hosts/pi")
    commit(root, {}, "It is sold")
    assert diff(workshop, before=before, host="pi").files == ("hosts/pi/glix.toml",)
    assert diff(workshop, host="laptop").files == ()
    with pytest.raises(NotFound, match="no host nosuch"):
        diff(workshop, before=before, host="nosuch")


def test_history_of_a_package_in_an_unusual_layout(workshop: Workshop, root: Path) -> None:
    commit(root, {MANIFEST: 'schema = 1\npackages = { git = { flake = "a" }, zsh = { flake = "b" } }\n'}, "Inline")
    commit(root, {MANIFEST: 'schema = 1\npackages = { git = { flake = "c" }, zsh = { flake = "b" } }\n'}, "Changed")
    commit(root, {MANIFEST: "schema = 1\npackages = { git = { flake =\n"}, "Broken")
    assert subjects(workshop, name="git") == ["Broken", "Changed", "Inline"]
    assert subjects(workshop, name="zsh") == ["Broken", "Inline"]


def test_a_package_whose_name_another_begins_with_has_a_history_of_its_own(workshop: Workshop) -> None:
    workshop.run(add("git"))
    workshop.run(add("git-lfs"))
    assert subjects(workshop, name="git") == ["add laptop: git"]


def test_a_change_of_the_configuration_of_a_package_is_in_its_history(workshop: Workshop, root: Path) -> None:
    workshop.run(add("git"))
    text = (root / MANIFEST).read_text()
    commit(root, {MANIFEST: text + '\n[packages.git.config]\ncolour = "red"\n'}, "Red")
    assert subjects(workshop, name="git") == ["Red", "add laptop: git"]


def test_history_of_a_host_has_the_commits_that_touched_its_folder(workshop: Workshop, root: Path) -> None:
    workshop.run(add("git"))
    commit(root, {"notes.txt": "two\n"}, "Notes")
    commit(root, {"hosts/pi/glix.toml": "schema = 1\n"}, "The pi")
    assert subjects(workshop, host="pi") == ["The pi"]
    assert subjects(workshop, host="laptop") == ["add laptop: git", "By hand"]


def test_history_goes_on_where_a_page_ended(workshop: Workshop) -> None:
    for name in ("git", "zsh", "tmux"):
        workshop.run(add(name))
        workshop.run(remove(name))
    for asked in ({}, {"host": "laptop"}, {"name": "zsh"}):
        whole = [entry.commit for entry in told(workshop, **asked).entries]
        pieces: list[str] = []
        before: dict[str, str] = {}
        while True:
            page = told(workshop, **asked, **before, limit=1)
            pieces += [entry.commit for entry in page.entries]
            if page.next is None:
                break
            before = {"before": page.next}
        assert pieces == whole
        assert len(whole) == {0: 7, 1: 2}.get("name" in asked)


def test_an_entry_says_who_when_what_why_and_in_which_transaction(workshop: Workshop, root: Path) -> None:
    done = workshop.run(add("git", "zsh"), reason="Work needs them")
    entry = told(workshop).entries[0]
    assert (entry.commit, entry.author, entry.reason) == (done.commit, "alice", "Work needs them")
    assert entry.transaction
    assert entry.transaction.startswith("test")
    assert entry.uid is not None
    assert entry.body == "added git (nixpkgs#git, system, via nixpkgs)\nadded zsh (nixpkgs#zsh, system, via nixpkgs)"
    by_hand = commit(root, {"notes.txt": "two\n"}, "Notes\n\nFirst.\n\nSecond.")
    entry = told(workshop).entries[0]
    assert (entry.commit, entry.subject, entry.body) == (by_hand, "Notes", "First.\n\nSecond.")
    assert (entry.transaction, entry.uid, entry.reason) == (None, None, None)


def test_diff_without_a_commit_shows_what_was_edited_by_hand(workshop: Workshop, root: Path) -> None:
    assert diff(workshop).diff == ""
    write_files(root, {"notes.txt": "two\n", MANIFEST: (root / MANIFEST).read_text() + "# mine\n", "new": "x"})
    found = diff(workshop)
    assert found.files == (MANIFEST, "notes.txt")
    assert found.commit is None
    assert "-one\n+two\n" in found.diff
    assert "+# mine\n" in found.diff
    assert diff(workshop, host="laptop").files == (MANIFEST,)


def test_diff_shows_a_file_that_is_gone(workshop: Workshop, root: Path) -> None:
    (root / "notes.txt").unlink()
    assert diff(workshop).diff == "--- a/notes.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"


def test_diff_with_one_commit_shows_commits_since_and_edits(workshop: Workshop, root: Path, tmp_path: Path) -> None:
    first = workshop.repository.snapshot().commit
    commit(root, {"later": "a\n", "notes.txt": "two\n"})
    write_files(root, {"notes.txt": "three\n", "later": "b\n"})
    found = diff(workshop, before=first[:8])
    assert found.before == first
    assert found.files == ("later", "notes.txt")
    git(root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "old"), first)
    (tmp_path / "patch").write_text(found.diff)
    git(tmp_path / "old", "apply", str(tmp_path / "patch"))
    for name in ("later", "notes.txt"):
        assert (tmp_path / "old" / name).read_text() == (root / name).read_text()


def test_diff_of_two_commits_is_what_git_applies(workshop: Workshop, root: Path, tmp_path: Path) -> None:
    first = workshop.repository.snapshot().commit
    workshop.run(add("git"))
    (root / "image").write_bytes(b"\xff\x00")
    (root / "link").symlink_to("notes.txt")
    second = commit_all(root, "Picture")
    workshop.run(add("zsh"))
    found = diff(workshop, before=first, commit=second)
    assert (found.before, found.commit, found.next) == (first, second, None)
    assert found.files == (MANIFEST, "image", "link")
    assert "Binary files a/image and b/image differ\n" in found.diff
    assert '+flake = "nixpkgs#git"' in found.diff
    assert "zsh" not in found.diff
    assert diff(workshop, before=second, commit=second).diff == ""


def test_diff_goes_on_behind_a_file(workshop: Workshop, root: Path) -> None:
    first = workshop.repository.snapshot().commit
    lines = "".join(f"line {number}\n" for number in range(20_000))
    second = commit(root, dict.fromkeys(("a", "b", "c"), lines))
    pages = [diff(workshop, before=first, commit=second)]
    while following := pages[-1].next:
        pages.append(diff(workshop, before=first, commit=second, after=following))
    assert [page.files for page in pages] == [("a", "b"), ("c",)]
    assert all(page.diff.count("+++ ") == len(page.files) for page in pages)


def test_a_commit_that_is_not_on_the_branch_is_not_compared(workshop: Workshop, root: Path) -> None:
    commit(root, {"secret": "x"})
    elsewhere = workshop.repository.snapshot().commit
    git(root, "reset", "--quiet", "--hard", "HEAD~1")
    for name in (elsewhere, "0" * 40, "abcd"):
        for argument in ("before", "commit"):
            with pytest.raises(InvalidRequest, match=f"{argument}: .* is no commit of the branch"):
                diff(workshop, **{argument: name})
