# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be undone is looked for from the newest commit on, and no further than it takes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from glixd.backends.commits import LONGEST, line
from glixd.backends.git import Git, LogEntry
from glixd.undo import PAGE, chosen, still_undoable, undoable, undoable_since
from tests.support.hermetic import git
from tests.support.plain import processes

COMMITS = 2 * PAGE + 20


class Counting(Git):
    """A git that counts the commits it was asked to read."""

    commits = 0

    def log(self, revision: str, *, limit: int, skip: int = 0, paths: Sequence[str] = ()) -> list[LogEntry]:
        found = super().log(revision, limit=limit, skip=skip, paths=paths)
        self.commits += len(found)
        return found


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long history of our changes, the newest of which undoes the one before."""
    root = tmp_path_factory.mktemp("history")
    git(root, "init", "--quiet")
    lines = []
    for number in range(COMMITS):
        message = f"change {number}\n\nGlix-Transaction: {number}\n"
        moment = f"{1_700_000_000 + number} +0000"
        lines.append(f"commit refs/heads/main\ncommitter a <a@b> {moment}\ndata {len(message)}\n{message}")
        lines.append(f"M 100644 inline file\ndata {len(str(number))}\n{number}\n")
    subprocess.run(["git", "fast-import", "--quiet"], cwd=root, input="\n".join(lines).encode(), check=True)
    undone = git(root, "rev-parse", "main")
    tree = git(root, "rev-parse", "main~1^{tree}")
    message = f"back\n\nGlix-Transaction: x\nGlix-Undoes: {undone}"
    git(root, "update-ref", "refs/heads/main", git(root, "commit-tree", tree, "-p", "main", "-m", message))
    return root


@pytest.fixture
def counting(history: Path, tmp_path: Path) -> Iterator[Counting]:
    made = Counting(history, processes(tmp_path))
    yield made
    made.close()


def test_one_step_back_reads_the_newest_part_only(counting: Counting, history: Path) -> None:
    (entry,) = chosen(counting, "main", steps=1, to_commit=None)
    assert entry.oid == git(history, "rev-parse", "main~2")
    assert counting.commits == PAGE


def test_what_is_asked_for_is_found_however_old_it_is(counting: Counting, history: Path) -> None:
    old = git(history, "rev-parse", f"main~{COMMITS - 1}")
    undone = git(history, "rev-parse", "main~1")
    assert set(still_undoable(counting, "main", [old, undone])) == {old}
    counting.commits = 0
    assert set(still_undoable(counting, "main", [git(history, "rev-parse", "main~3")]))
    assert counting.commits == PAGE


def test_whole_history_comes_part_by_part_and_complete(counting: Counting, history: Path) -> None:
    expected = git(history, "rev-list", "main").splitlines()[2:]
    assert [entry.oid for entry in undoable(counting, "main")] == expected


MESSAGES = {
    "ours": "glix add laptop: hello\n\nAdded hello.\n\nGlix-Transaction: x\nGlix-Undoes: a\nGlix-Undoes: b\n",
    "a revert": 'Revert "glix add"\n\nThis reverts commit 0123456789012345678901234567890123456789.\n',
    "a subject alone": "Tidy up",
    "a paragraph": "Tidy up\n\nWhy, in a line.\nAnd another.\n",
    "no ascii": "Räume auf\n\nÜber alles – “so”.\n\nSigned-off-by: Jörg <j@x>\n",
    "trailers in the middle": "Tidy\n\nGlix-Transaction: x\n\nThat was quoted.\n",
    "prose with a colon": "Tidy\n\nWhy: since.\nIt is so.\n",
    "a trailer among words": "Tidy\n\nwords\nwords\nSigned-off-by: a <a@b>\n",
    "a folded trailer": "Tidy\n\nGlix-Transaction: x\n y\n",
    "a trailer without a value": "Tidy\n\nGlix-Transaction:\n",
    "a long subject": "Tidy\nup\n\nGlix-Transaction: x\n",
    "only a trailer": "Glix-Transaction: x\n",
    "empty lines": "Tidy\n\n\nGlix-Transaction: x\n\n\n",
    "blank lines": "Tidy\n \nGlix-Transaction: x\n",
    "a tab": "Tidy\n\nGlix-Transaction: x\t\n",
    "a comment": "Tidy\n\nGlix-Transaction: x\n# Glix-Undoes: y\n",
    "a cherry": "Tidy\n\nGlix-Transaction: x\n(cherry picked from commit 0123)\n",
    "nothing": "",
}
SIMPLE = ("ours", "a revert", "a subject alone", "a paragraph", "no ascii", "trailers in the middle", "only a trailer")


def commit_of(root: Path, parent: str | None, message: str) -> str:
    """A commit with exactly that message."""
    tree = git(root, "hash-object", "-t", "tree", "-w", "/dev/null")
    follows = f"parent {parent}\n" if parent else ""
    who = "Ann Other <ann@example.org> 1700000000 +0100"
    made = f"tree {tree}\n{follows}author {who}\ncommitter {who}\n\n{message}".encode()
    done = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"], cwd=root, input=made, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository for commits with every kind of message."""
    root = tmp_path_factory.mktemp("messages")
    git(root, "init", "--quiet")
    return root


@pytest.mark.parametrize("name", MESSAGES)
def test_a_commit_is_read_as_git_reads_it_or_not_at_all(messages: Path, tmp_path: Path, name: str) -> None:
    old = commit_of(messages, None, "The first")
    new = commit_of(messages, old, MESSAGES[name])
    reader = Git(messages, processes(tmp_path))
    try:
        found = line(reader.read, old, new)
        assert found == (reader.log(f"{old}..{new}", limit=2) if name in SIMPLE else None)
    finally:
        reader.close()


def test_only_a_short_line_of_commits_is_read_without_git(messages: Path, tmp_path: Path) -> None:
    line_of = [commit_of(messages, None, "The first")]
    for number in range(LONGEST + 1):
        line_of.append(commit_of(messages, line_of[-1], f"change {number}\n\nGlix-Transaction: {number}\n"))
    aside = commit_of(messages, line_of[0], "Aside")
    merge = git(messages, "commit-tree", f"{aside}^{{tree}}", "-p", line_of[1], "-p", aside, "-m", "Merge")
    reader = Git(messages, processes(tmp_path))
    try:
        assert line(reader.read, line_of[1], line_of[-1]) == reader.log(f"{line_of[1]}..{line_of[-1]}", limit=99)
        assert line(reader.read, line_of[-1], line_of[-1]) == []
        for old, new in ((line_of[0], line_of[-1]), (line_of[0], merge), (aside, line_of[1]), (line_of[2], line_of[1])):
            assert line(reader.read, old, new) is None
        assert undoable_since(reader, line_of[-1], line_of[0]) == list(undoable(reader, line_of[-1], line_of[0]))
        assert undoable_since(reader, merge, line_of[0]) == list(undoable(reader, merge, line_of[0]))
        assert undoable_since(reader, line_of[1], aside) is None
    finally:
        reader.close()
