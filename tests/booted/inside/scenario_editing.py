# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits as transactions: a clone through the daemon, commits in it, and a push that an administrator answers for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.booted.inside.clones import clone, commit, identity, push
from tests.booted.inside.conftest import HOST, PASSWORD
from tests.booted.inside.machine import as_user, copied, eventually, git, glixctl, in_session, run
from tests.booted.inside.terminal import on_terminal

FILE = f"hosts/{HOST}/default.nix"
WITHOUT_AGENT, CONFLICT = 12, 5
ROOT = identity("root")

pytestmark = pytest.mark.usefixtures("repository")


def _add_line(folder: Path, line: str, message: str) -> None:
    commit(folder, FILE, f"{(folder / FILE).read_text()}# {line}\n", message)


def _left() -> list[str]:
    folder = Path("/var/lib/glixd/state/uploads")
    return os.listdir(folder) if folder.exists() else []


def test_a_clone_needs_no_right_to_the_repository_and_a_push_needs_an_administrator() -> None:
    folder = clone("bob", "mine")
    assert git("rev-parse", "HEAD", path=str(folder)) == git("rev-parse", "main")
    _add_line(folder, "what bob wants", "Bob's wish")
    before = git("rev-parse", "main")
    for seat in (True, False):
        done = in_session("bob", "glixctl", "push", "--folder", str(folder), seat=seat, check=False)
        assert done.returncode == WITHOUT_AGENT, done
    assert git("rev-parse", "main") == before
    assert _left() == []


def test_an_administrator_edits_with_an_editor_and_pushes_with_a_password() -> None:
    folder = clone("alice", "system")
    _add_line(folder, "what alice wants", "Alice's edit")
    glixctl("add", "ripgrep")  # the repository moves on, in another file
    before = git("rev-parse", "main")
    said = on_terminal("alice", "glixctl", "push", "--folder", str(folder), passwords=[PASSWORD])
    assert FILE in said, "the dialogue says which files"
    pushed = git("rev-parse", "main")
    assert git("rev-parse", "main~1") == before, "put on top of what came meanwhile"
    assert git("log", "-1", "--format=%an <%ae> %s") == "alice <alice@example.org> Alice's edit"
    trailers = git("log", "-1", "--format=%(trailers:only,unfold)")
    assert f"Glix-Uid: {Path('/home/alice').stat().st_uid}" in trailers
    assert "Glix-Trust: trusted" not in trailers
    assert git("rev-parse", "HEAD", path=str(folder)) == pushed, "the clone follows"
    eventually(copied, "the newest commit in the copy")
    assert (Path("/etc/glixos") / FILE).read_text() == (folder / FILE).read_text()


def test_both_sides_of_a_conflict_are_kept_and_resolved_in_the_clone() -> None:
    mine, other = clone("root", "mine"), clone("root", "other")
    _add_line(other, "the line of the other", "First")
    push(other)
    _add_line(mine, "my line", "Second")
    before = git("rev-parse", "main")
    refused = push(mine, check=False)
    assert refused.returncode == CONFLICT, refused
    assert FILE in refused.stderr
    assert "git rebase" in refused.stderr
    assert git("rev-parse", "main") == before
    assert git("status", "--porcelain") == ""
    assert _left() == []

    rebase = run("git", "-C", str(mine), *ROOT, "rebase", "--quiet", "glixd/main", check=False)
    assert rebase.returncode != 0
    resolved = (mine / FILE).read_text().splitlines()
    (mine / FILE).write_text("\n".join(line for line in resolved if line[:7] not in _MARKS) + "\n")
    run("git", "-C", str(mine), "add", FILE)
    run("git", "-C", str(mine), *ROOT, "-c", "core.editor=true", "rebase", "--continue")
    push(mine)
    assert git("log", "-2", "--format=%s").splitlines() == ["Second", "First"]
    assert git("show", f"main:{FILE}").splitlines()[-2:] == ["# the line of the other", "# my line"]


_MARKS = ("<<<<<<<", "=======", ">>>>>>>")


def test_a_push_that_does_not_evaluate_is_refused() -> None:
    folder = clone("root", "broken")
    (folder / FILE).write_text("{ this is no nix")
    run("git", "-C", str(folder), *ROOT, "commit", "--quiet", "--all", "--message=Broken")
    before = git("rev-parse", "main")
    refused = push(folder, check=False)
    assert refused.returncode not in (0, WITHOUT_AGENT), refused
    assert HOST in refused.stderr
    assert git("rev-parse", "main") == before
    assert _left() == []


def test_nobody_reads_the_repository_itself() -> None:
    for user in ("alice", "bob"):
        done = as_user(user, "git", "clone", "/var/lib/glixd/repo", f"/home/{user}/stolen", check=False)
        assert done.returncode != 0
