# SPDX-License-Identifier: GPL-3.0-or-later
"""New objects of a repository: made in memory as git would make them, and written all together or not at all."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from glixd.backends.git import Git
from glixd.backends.objects import Commit, Content, Entry, Person
from tests.support import hermetic
from tests.support.hermetic import commit_all, write_files
from tests.support.plain import processes

ALICE = Person("alice", "alice@laptop")
DAEMON = Person("glixd", "glixd@localhost")
AWKWARD = ("a", "a-b", "a.b", "a/b", "a0", "ab/c", "zoë/ß")
"""Names that git sorts otherwise than a program that does not know that a folder ends in a slash."""


@pytest.fixture(params=["sha1", "sha256"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty repository, in each of git's object formats."""
    folder = tmp_path / "repository"
    folder.mkdir()
    hermetic.git(folder, "init", "--quiet", f"--object-format={request.param}", "--initial-branch=main")
    return folder


@pytest.fixture
def git(root: Path, tmp_path: Path) -> Iterator[Git]:
    made = Git(root, processes(tmp_path / "state"))
    yield made
    made.close()


def make(git: Git, base: str | None, changes: dict[str, Content], programs: frozenset[str] = frozenset()) -> str:
    return git.make_commit(Commit(base, ALICE, DAEMON, "Subject\n", changes, programs))


def tree_of(root: Path, commit: str) -> str:
    return hermetic.git(root, "rev-parse", f"{commit}^{{tree}}")


@pytest.mark.parametrize("first", [True, False])
def test_the_tree_is_the_one_that_git_makes_of_the_same_files(git: Git, root: Path, first: bool) -> None:
    texts = {name: f"{name}\n" for name in AWKWARD if name != "a"}
    write_files(root, texts if first else dict(list(texts.items())[:2]))
    base = commit_all(root)
    if not first:
        write_files(root, texts)
    mine = make(git, None if first else base, {name: text.encode() for name, text in texts.items()})
    git.pending.settle()
    assert tree_of(root, mine) == tree_of(root, commit_all(root))
    hermetic.git(root, "fsck", "--strict")


def test_what_goes_takes_its_empty_folders_along_and_leaves_the_rest(git: Git, root: Path) -> None:
    write_files(root, {"deep/er/file": "x", "deep/other": "y", "top": "z"})
    base = commit_all(root)
    first = make(git, base, {"deep/er/file": None})
    second = make(git, first, {"deep/other": None, "nowhere/at/all": None})
    third = make(git, second, {"top": None})
    git.pending.settle()
    listed = [hermetic.git(root, "ls-tree", "-r", "--name-only", oid).split() for oid in (first, second, third)]
    assert listed == [["deep/other", "top"], ["top"], []]
    hermetic.git(root, "fsck", "--strict")


def test_a_file_becomes_a_folder_and_back(git: Git, root: Path) -> None:
    write_files(root, {"name": "file"})
    first = make(git, commit_all(root), {"name/inner": b"x"})
    second = make(git, first, {"name": b"file again"})
    git.pending.settle()
    assert hermetic.git(root, "ls-tree", "-r", "--name-only", first) == "name/inner"
    assert hermetic.git(root, "show", f"{second}:name") == "file again"


def test_modes_are_kept_given_and_moved(git: Git, root: Path) -> None:
    first = make(git, None, {"run": b"#!/bin/sh\n", "plain": b"x"}, programs=frozenset({"run"}))
    program = git.tree(f"{first}^{{tree}}")["run"]
    second = make(git, first, {"run": None, "other": program})
    git.pending.settle()
    assert program.mode == "100755"
    assert git.tree(f"{second}^{{tree}}") == {
        "other": program,
        "plain": Entry("100644", git.ref(f"{first}:plain") or ""),
    }


def test_commits_that_follow_each_other_are_read_before_any_of_them_is_written(git: Git, root: Path) -> None:
    write_files(root, {"folder/kept": "kept\n", "folder/file": "old\n"})
    base = commit_all(root)
    first = make(git, base, {"folder/file": b"new\n"})
    second = make(git, first, {"folder/file": b"newer\n"})
    found = [git.read(f"{oid}:folder/file") for oid in (base, first, second)]
    assert [one and one.data for one in found] == [b"old\n", b"new\n", b"newer\n"]
    assert set(git.tree(f"{second}:folder")) == {"kept", "file"}
    assert git.read(f"{second}:folder/kept") == git.read(f"{base}:folder/kept")
    assert git.read(f"{second}:nothing") is None
    assert git.ref(second) == second
    assert [git.last_change(oid, "folder/file") for oid in (base, first, second)] == [base, first, second]
    assert git.last_change(second, "folder/kept") == base
    assert hermetic.git(root, "rev-list", "--all", "--count") == "1"
    git.pending.settle()
    assert hermetic.git(root, "log", "--format=%H", second).split() == [second, first, base]


def test_what_was_forgotten_was_never_there(git: Git, root: Path) -> None:
    oid = make(git, None, {"file": b"x"})
    git.pending.forget()
    git.pending.settle()
    assert git.read(oid) is None
    assert hermetic.git(root, "count-objects") == "0 objects, 0 kilobytes"


def test_authors_are_told_as_git_tells_them(git: Git, root: Path) -> None:
    odd = Person("A <b>\nauthor Evil", "a@b>\n")
    oid = git.make_commit(Commit(None, odd, DAEMON, "Söme\n\nName: värdi\n", {"file": b"x"}))
    git.pending.settle()
    shown = hermetic.git(root, "show", "--no-patch", "--format=%an|%ae|%cn|%ce|%B", oid)
    assert shown == "A bauthor Evil|a@b|glixd|glixd@localhost|Söme\n\nName: värdi"
    hermetic.git(root, "fsck", "--strict")


def test_a_tag_is_the_one_that_git_makes_of_the_same_words(git: Git, root: Path) -> None:
    commit = make(git, None, {"file": b"x"})
    tag = git.make_tag("gen/1", commit, DAEMON, 1700000000, "Generation 1 of pi\n\nGlix-Time: now\n")
    git.pending.settle()
    hermetic.git(root, "update-ref", "refs/tags/gen/1", tag)
    told = hermetic.git(root, "cat-file", "tag", tag)
    made = subprocess.run(
        ["git", "-C", os.fspath(root), "mktag", "--strict"],
        input=f"{told}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == tag
    assert hermetic.git(root, "rev-parse", "gen/1^{commit}") == commit
    hermetic.git(root, "fsck", "--strict")


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Let the kernel refuse to write longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 60])
def test_a_disk_that_fails_leaves_no_object_and_no_scrap(git: Git, root: Path, size: int) -> None:
    changes: dict[str, Content] = {"file": os.urandom(2000)}
    make(git, None, changes)
    with no_file_longer_than(size), pytest.raises(OSError, match="File too large"):
        git.pending.settle()
    assert [path for path in (root / ".git" / "objects").rglob("*") if path.is_file()] == []
    oid = make(git, None, changes)
    git.pending.settle()
    assert hermetic.git(root, "cat-file", "-t", oid) == "commit"


def test_a_scrap_of_a_killed_process_does_not_stop_the_next_one(git: Git, root: Path) -> None:
    oid = make(git, None, {"file": b"x"})
    scrap = root / ".git" / "objects" / oid[:2] / f"tmp_obj_{oid[2:]}"
    scrap.parent.mkdir()
    scrap.write_bytes(b"torn")
    scrap.chmod(0o444)
    git.pending.settle()
    assert hermetic.git(root, "cat-file", "-t", oid) == "commit"
    assert not scrap.exists()


def test_objects_get_the_mode_that_git_gives_them(git: Git, root: Path) -> None:
    oid = make(git, None, {"file": b"x"})
    before = os.umask(0o027)
    try:
        git.pending.settle()
    finally:
        os.umask(before)
    assert (root / ".git" / "objects" / oid[:2] / oid[2:]).stat().st_mode & 0o777 == 0o440


@contextmanager
def folders_that_vanish(objects: Path) -> Iterator[None]:
    """Let every folder of objects go whenever it is empty, as a git does that packs them."""
    stop = threading.Event()

    def take_away() -> None:
        while not stop.is_set():
            for folder in objects.glob("??"):
                with suppress(OSError):
                    folder.rmdir()

    thread = threading.Thread(target=take_away)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_folders_that_git_takes_away_meanwhile_are_made_anew(git: Git, root: Path) -> None:
    with folders_that_vanish(root / ".git" / "objects"):
        oids = []
        for number in range(100):
            oids.append(make(git, None, {"file": b"%d" % number}))
            git.pending.settle()
    assert {hermetic.git(root, "cat-file", "-t", oid) for oid in oids} == {"commit"}
