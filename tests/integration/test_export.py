# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy in /etc/glixos follows the branch, only forwards, and runs nothing that the repository says."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixd.export.copy import Copy, NotExported, Source
from tests.support.hermetic import commit_all, git, write_files

pytestmark = pytest.mark.integration


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    write_files(folder, {"flake.nix": "one", "hosts/a/glix.toml": "schema = 1"})
    commit_all(folder)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy", tmp_path / "history.git", "main")


def _git(copy: Copy, *arguments: str) -> str:
    return git(copy.place, f"--git-dir={copy.history}", f"--work-tree={copy.place}", *arguments)


def _follow(copy: Copy, repository: Path) -> str | None:
    return copy.follow(Source(repository, "main", None))


def test_copy_has_the_files_and_the_commit_of_the_branch(repository: Path, copy: Copy) -> None:
    assert _follow(copy, repository) == git(repository, "rev-parse", "HEAD")
    assert (copy.place / "hosts/a/glix.toml").read_text() == "schema = 1"
    assert _git(copy, "rev-parse", "main") == git(repository, "rev-parse", "HEAD")
    assert _git(copy, "status", "--porcelain") == "?? .glixd-revision"
    assert _git(copy, "fsck", "--strict") == ""
    assert (copy.place / ".glixd-revision").read_text() == f"{git(repository, 'rev-parse', 'HEAD')}\n"
    assert not (copy.place / ".git").exists()


def test_copy_follows_changes_and_removals(repository: Path, copy: Copy) -> None:
    _follow(copy, repository)
    (repository / "hosts/a/glix.toml").unlink()
    write_files(repository, {"flake.nix": "two"})
    newest = commit_all(repository)
    assert _follow(copy, repository) == newest
    assert _follow(copy, repository) == newest
    assert (copy.place / "flake.nix").read_text() == "two"
    assert not (copy.place / "hosts").exists()
    assert _git(copy, "status", "--porcelain") == "?? .glixd-revision"


def test_a_repository_without_the_branch_exports_nothing(tmp_path: Path, copy: Copy) -> None:
    git(tmp_path, "init", "--quiet", "repo")
    assert _follow(copy, tmp_path / "repo") is None
    assert not copy.place.exists()


def test_a_branch_that_was_rewritten_is_refused_and_the_copy_stays(repository: Path, copy: Copy) -> None:
    before = _follow(copy, repository)
    write_files(repository, {"flake.nix": "rewritten"})
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--amend", "--message", "Rewrite")
    with pytest.raises(NotExported, match="does not build on"):
        _follow(copy, repository)
    assert _git(copy, "rev-parse", "main") == before
    assert (copy.place / "flake.nix").read_text() == "one"


def test_a_pass_that_was_interrupted_between_files_and_branch_is_finished(repository: Path, copy: Copy) -> None:
    old = _follow(copy, repository)
    write_files(repository, {"flake.nix": "two"})
    new = commit_all(repository)
    _follow(copy, repository)
    _git(copy, "update-ref", "refs/heads/main", str(old))
    assert _follow(copy, repository) == new
    assert _git(copy, "status", "--porcelain") == "?? .glixd-revision"


def test_a_folder_with_other_files_is_left_alone(repository: Path, copy: Copy) -> None:
    write_files(copy.place, {"configuration.nix": "{ }"})
    with pytest.raises(NotExported, match="did not put there"):
        _follow(copy, repository)
    assert [path.name for path in copy.place.iterdir()] == ["configuration.nix"]


def test_a_copy_that_was_moved_away_is_made_anew(repository: Path, copy: Copy, tmp_path: Path) -> None:
    _follow(copy, repository)
    git(repository, "commit", "--quiet", "--amend", "--message", "Rewrite")
    with pytest.raises(NotExported):
        _follow(copy, repository)
    copy.place.rename(tmp_path / "away")
    assert _follow(copy, repository) == git(repository, "rev-parse", "HEAD")
    assert (copy.place / "flake.nix").read_text() == "one"


def test_a_local_change_in_the_copy_is_not_overwritten(repository: Path, copy: Copy) -> None:
    before = _follow(copy, repository)
    write_files(copy.place, {"flake.nix": "mine"})
    write_files(repository, {"flake.nix": "two"})
    commit_all(repository)
    with pytest.raises(NotExported, match="read-tree"):
        _follow(copy, repository)
    assert (copy.place / "flake.nix").read_text() == "mine"
    assert _git(copy, "rev-parse", "main") == before


def test_nothing_that_the_repository_configures_is_run(repository: Path, copy: Copy, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    script = f"#!/bin/sh\ntouch {trap}\ncat\n"
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        path = repository / ".git/hooks" / hook
        write_files(repository, {f".git/hooks/{hook}": script})
        path.chmod(0o755)
    git(repository, "config", "filter.evil.smudge", f"touch {trap}")
    git(repository, "config", "filter.evil.clean", f"touch {trap}")
    git(repository, "config", "uploadpack.packObjectsHook", f"touch {trap}; git")
    write_files(repository, {".gitattributes": "* filter=evil\n"})
    git(repository, "-c", "filter.evil.clean=cat", "-c", "core.hooksPath=/dev/null", "add", "--all")
    git(repository, "-c", "filter.evil.clean=cat", "-c", "core.hooksPath=/dev/null", "commit", "--quiet", "-m", "evil")
    trap.unlink(missing_ok=True)
    assert _follow(copy, repository) == git(repository, "rev-parse", "HEAD")
    assert not trap.exists()
    assert (copy.place / "flake.nix").read_text() == "one"
