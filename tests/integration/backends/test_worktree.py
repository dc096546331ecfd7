# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing into a work tree that a person writes to as well: done, merged or left alone, and never lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from glixd.backends.objects import Entry
from glixd.backends.worktree import WorkTree, displaced_name
from glixd.errors import Failed
from glixd.protocol import ErrorCode
from tests.support.hermetic import commit_all, git
from tests.support.plain import MANIFEST, Workshop, add

Changes = dict[str, tuple[Entry | None, Entry | None]]
LINES = "".join(f"line {number}\n" for number in range(1, 20))


class Interrupted(WorkTree):
    """A work tree in which something happens just before a file is exchanged: a person writes, or a process dies."""

    def meanwhile(self, act: Callable[[], None]) -> WorkTree:
        """The work tree, with what is to happen once."""
        self._acts = [act]
        return self

    def _replace(self, path: str, expected: bytes | None, data: bytes, mode: str) -> bool:
        if self._acts:
            self._acts.pop()()
        return super()._replace(path, expected, data, mode)


@pytest.fixture
def lines(root: Path) -> Path:
    """A file of the commit, with many lines."""
    (root / "lines").write_text(LINES)
    commit_all(root)
    return root / "lines"


@pytest.fixture
def changes(workshop: Workshop, lines: Path) -> Changes:
    """What a commit changes that is not published yet: the last line of `lines`."""
    base = git(workshop.root, "rev-parse", "HEAD")
    lines.write_text(LINES.replace("line 19", "ours"))
    commit_all(workshop.root)
    changed = workshop.git.changed_paths(base, "HEAD")
    lines.write_text(LINES)
    return changed


def _manual(workshop: Workshop) -> Interrupted:
    workshop.repository.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Interrupted(workshop.git, workshop.repository.scratch)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _publish(tree: WorkTree, changes: Changes) -> list[str]:
    return tree.publish(changes, {})


def test_an_untouched_file_is_replaced_and_keeps_its_mode(workshop: Workshop, lines: Path, changes: Changes) -> None:
    lines.chmod(0o640)
    before = lines.stat().st_ino
    assert _publish(workshop.repository.worktree, changes) == []
    assert lines.read_text() == LINES.replace("line 19", "ours")
    assert stat.S_IMODE(lines.stat().st_mode) == 0o640
    assert lines.stat().st_ino != before
    assert list(workshop.repository.scratch.iterdir()) == []


def test_publishing_twice_is_publishing_once(workshop: Workshop, lines: Path, changes: Changes) -> None:
    _publish(workshop.repository.worktree, changes)
    inode = lines.stat().st_ino
    assert _publish(workshop.repository.worktree, changes) == []
    assert lines.stat().st_ino == inode


def test_an_edit_elsewhere_in_the_file_is_merged(workshop: Workshop, lines: Path, changes: Changes) -> None:
    lines.write_text(LINES.replace("line 1\n", "theirs\n"))
    assert _publish(workshop.repository.worktree, changes) == []
    assert lines.read_text() == LINES.replace("line 1\n", "theirs\n").replace("line 19", "ours")


def test_an_edit_of_the_same_line_stays_and_is_told(workshop: Workshop, lines: Path, changes: Changes) -> None:
    theirs = LINES.replace("line 19", "theirs")
    lines.write_text(theirs)
    worktree = workshop.repository.worktree
    assert _publish(worktree, changes) == ["lines"]
    assert lines.read_text() == theirs
    assert worktree.unresolved({"lines": theirs.encode()}) == ["lines"]
    assert worktree.unresolved({"lines": b"resolved\n"}) == []


def _no_exchange(workshop: Workshop) -> WorkTree:
    """The work tree on a file system that can't exchange two files."""
    workshop.repository.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    return WorkTree(workshop.git, workshop.repository.scratch, exchange=lambda _first, _second: False)


def test_without_exchange_a_file_is_compared_and_replaced(workshop: Workshop, lines: Path, changes: Changes) -> None:
    lines.chmod(0o640)
    assert _publish(_no_exchange(workshop), changes) == []
    assert lines.read_text() == LINES.replace("line 19", "ours")
    assert stat.S_IMODE(lines.stat().st_mode) == 0o640
    assert list(workshop.repository.scratch.iterdir()) == []


def test_without_exchange_an_edit_is_merged_or_stays(workshop: Workshop, lines: Path, changes: Changes) -> None:
    lines.write_text(LINES.replace("line 1\n", "theirs\n"))
    assert _publish(_no_exchange(workshop), changes) == []
    assert lines.read_text() == LINES.replace("line 1\n", "theirs\n").replace("line 19", "ours")
    lines.write_text(LINES.replace("line 19", "theirs"))
    assert _publish(_no_exchange(workshop), changes) == ["lines"]
    assert lines.read_text() == LINES.replace("line 19", "theirs")


def test_an_edit_just_before_the_exchange_is_merged(workshop: Workshop, lines: Path, changes: Changes) -> None:
    edited = LINES.replace("line 1\n", "theirs\n")
    tree = _manual(workshop).meanwhile(partial(_write, lines, edited))
    assert _publish(tree, changes) == []
    assert lines.read_text() == edited.replace("line 19", "ours")


def test_a_conflicting_edit_just_before_the_exchange_stays(workshop: Workshop, lines: Path, changes: Changes) -> None:
    edited = LINES.replace("line 19", "theirs")
    tree = _manual(workshop).meanwhile(partial(_write, lines, edited))
    assert _publish(tree, changes) == ["lines"]
    assert lines.read_text() == edited


def test_a_file_that_goes_just_before_the_exchange_stays_away(
    workshop: Workshop, lines: Path, changes: Changes
) -> None:
    assert _publish(_manual(workshop).meanwhile(lines.unlink), changes) == ["lines"]
    assert not lines.exists()


def test_a_new_file_never_replaces_one_that_is_there(workshop: Workshop, lines: Path, changes: Changes) -> None:
    fresh: Changes = {"fresh/file": (None, changes["lines"][1])}
    (workshop.root / "fresh").mkdir()
    mine = workshop.root / "fresh" / "file"
    mine.write_text("a person's\n")
    assert _publish(workshop.repository.worktree, fresh) == ["fresh/file"]
    assert mine.read_text() == "a person's\n"


def test_a_new_file_comes_with_its_folders(workshop: Workshop, changes: Changes) -> None:
    new = changes["lines"][1]
    assert new is not None
    fresh: Changes = {"new/folder/file": (None, new._replace(mode="100755"))}
    assert _publish(workshop.repository.worktree, fresh) == []
    assert os.access(workshop.root / "new/folder/file", os.X_OK)


def test_a_file_that_the_commit_deletes_goes_unless_it_was_edited(workshop: Workshop, root: Path) -> None:
    for name in ("folder/plain", "edited"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("contents\n")
    commit_all(root)
    tree = {name: workshop.git.read(f"HEAD:{name}") for name in ("folder/plain", "edited")}
    gone: Changes = {name: (Entry("100644", found.oid), None) for name, found in tree.items() if found}
    (root / "edited").write_text("edited\n")
    assert _publish(workshop.repository.worktree, gone) == ["edited"]
    assert not (root / "folder").exists()
    assert (root / "edited").read_text() == "edited\n"


@pytest.mark.parametrize("name", [MANIFEST, "hosts"])
def test_links_are_refused(workshop: Workshop, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (workshop.root / name).rename(elsewhere)
    (workshop.root / name).symlink_to(elsewhere)
    with pytest.raises(Failed) as caught:
        workshop.run(add("firefox"))
    assert caught.value.code is ErrorCode.READ_ONLY
    assert "link" in caught.value.message


def test_edits_are_seen_and_undoing_one_too(workshop: Workshop, root: Path) -> None:
    worktree, managed = workshop.repository.worktree, workshop.repository.snapshot().managed
    path = root / MANIFEST
    text = path.read_text()
    assert worktree.edits(managed) == {}
    path.write_text(text + "# more\n")
    assert worktree.edits(managed) == {MANIFEST: (text + "# more\n").encode()}
    path.write_text(text)
    assert worktree.edits(managed) == {}
    path.unlink()
    assert worktree.edits(managed) == {MANIFEST: None}


def test_an_edit_that_keeps_size_and_time_is_seen(workshop: Workshop, root: Path) -> None:
    worktree, managed = workshop.repository.worktree, workshop.repository.snapshot().managed
    path = root / MANIFEST
    os.utime(path, ns=(0, 0))
    assert worktree.edits(managed) == {}
    path.write_text(path.read_text().replace("schema = 1", "schema = 2"))
    os.utime(path, ns=(0, 0))
    assert set(worktree.edits(managed)) == {MANIFEST}


# -- an exchange that was interrupted --------------------------------------------------------------------------------


def _left(workshop: Workshop, data: bytes, displaced: bytes) -> Path:
    """What a process leaves that is killed between the exchange of `lines` and the comparison."""
    left = workshop.repository.scratch / displaced_name("lines", data)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(displaced)
    return left


def test_an_edit_that_an_interrupted_exchange_displaced_comes_back(
    workshop: Workshop, lines: Path, changes: Changes
) -> None:
    ours = LINES.replace("line 19", "ours")
    theirs = LINES.replace("line 1\n", "theirs\n")
    lines.write_text(ours)
    left = _left(workshop, ours.encode(), theirs.encode())
    workshop.recover()
    assert lines.read_text() == theirs
    assert not left.exists()


def test_an_edit_whose_place_was_edited_again_is_kept_aside(workshop: Workshop, lines: Path, changes: Changes) -> None:
    lines.write_text("the newest edit\n")
    left = _left(workshop, b"ours", b"the older edit\n")
    workshop.recover()
    assert lines.read_text() == "the newest edit\n"
    assert (workshop.repository.folder / "kept" / left.name).read_bytes() == b"the older edit\n"


@pytest.mark.parametrize("displaced", [LINES.encode(), b"ours"], ids=["old contents", "never exchanged"])
def test_what_nobody_edited_is_not_given_back(
    workshop: Workshop, lines: Path, changes: Changes, displaced: bytes
) -> None:
    lines.write_text("whatever\n")
    left = _left(workshop, b"ours", displaced)
    workshop.recover()
    assert lines.read_text() == "whatever\n"
    assert not left.exists()
    assert not (workshop.repository.folder / "kept").exists()
