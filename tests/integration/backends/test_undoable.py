# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be undone is looked for from the newest commit on, and no further than it takes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from glixd.backends.git import Git, LogEntry
from glixd.undo import PAGE, chosen, still_undoable, undoable
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
