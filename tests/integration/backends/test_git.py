# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to git, on real repositories: what it reads, what it writes, and what it never runs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from glixd.backends.git import Git, RefUpdate
from glixd.backends.objects import Commit, Entry, Person
from glixd.backends.process import Processes
from glixd.errors import Failed
from glixd.protocol import ErrorCode
from tests.support import hermetic
from tests.support.hermetic import commit_all, write_files
from tests.support.plain import processes

ALICE = Person("alice", "alice@laptop")
DAEMON = Person("glixd", "glixd@localhost")
FILES = {"a.txt": "one\n", "folder/b.txt": "two\n", "folder/deep/c d.txt": "three\n"}


@pytest.fixture(params=["sha1", "sha256"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A repository with one commit, in each of git's object formats."""
    folder = tmp_path / "repository"
    folder.mkdir()
    hermetic.git(folder, "init", "--quiet", f"--object-format={request.param}", "--initial-branch=main")
    write_files(folder, FILES)
    commit_all(folder, "First")
    return folder


@pytest.fixture
def git(root: Path, tmp_path: Path) -> Iterator[Git]:
    made = Git(root, processes(tmp_path / "state"))
    yield made
    made.close()


def _commit(git: Git, files: Mapping[str, bytes | Entry | None], message: str = "Subject\n\nName: value\n") -> str:
    oid = git.make_commit(Commit(git.ref("HEAD"), ALICE, DAEMON, message, files))
    git.pending.settle()
    return oid


def _corrupt(root: Path, name: str) -> Path:
    """Damage the loose object of that name in the middle, and return its file."""
    oid = hermetic.git(root, "rev-parse", name)
    path = root / ".git" / "objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path


# -- reading ---------------------------------------------------------------------------------------------------------


def test_objects_are_read_by_any_name(git: Git, root: Path) -> None:
    head = hermetic.git(root, "rev-parse", "HEAD")
    found = git.read("HEAD:folder/deep/c d.txt")
    assert found is not None
    assert (found.kind, found.data) == ("blob", b"three\n")
    assert found.oid == hermetic.git(root, "rev-parse", "HEAD:folder/deep/c d.txt")
    assert git.ref("refs/heads/main") == git.ref("HEAD") == head


@pytest.mark.parametrize("name", ["refs/heads/none", "HEAD:none", "HEAD:two words", "0" * 40, "HEAD\nHEAD", ""])
def test_what_is_not_there_is_none(git: Git, name: str) -> None:
    assert git.read(name) is None
    assert git.ref("HEAD") is not None


def test_a_ref_is_read_anew_each_time(git: Git, root: Path) -> None:
    before = git.ref("HEAD")
    write_files(root, {"a.txt": "changed\n"})
    after = commit_all(root, "Second")
    assert git.ref("HEAD") == after != before
    hermetic.git(root, "pack-refs", "--all")
    hermetic.git(root, "gc", "--quiet")
    assert git.ref("HEAD") == after


def test_reading_goes_on_when_the_reader_was_killed(git: Git, root: Path) -> None:
    assert git.ref("HEAD")
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    readers = [int(line.split()[0]) for line in listed.stdout.splitlines() if "cat-file" in line and str(root) in line]
    assert len(readers) == 1
    os.kill(readers[0], signal.SIGKILL)
    assert git.read("HEAD:a.txt")


def test_a_tree_has_its_entries(git: Git, root: Path) -> None:
    os.symlink("a.txt", root / "link")
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    commit_all(root)
    tree = git.tree("HEAD^{tree}")
    assert {name: entry.mode for name, entry in tree.items()} == {
        "a.txt": "100644",
        "folder": "40000",
        "link": "120000",
        "script": "100755",
    }
    assert tree["folder"].is_tree
    assert not tree["link"].is_regular
    assert tree["script"].is_regular
    assert tree["a.txt"].oid == hermetic.git(root, "rev-parse", "HEAD:a.txt")
    assert git.tree("HEAD:none") == {}
    assert git.tree("HEAD:a.txt") == {}


def test_the_branch_of_head_is_known_and_none_when_detached(git: Git, root: Path) -> None:
    assert git.head_ref() == "refs/heads/main"
    hermetic.git(root, "checkout", "--quiet", "-b", "side/branch")
    assert git.head_ref() == "refs/heads/side/branch"
    hermetic.git(root, "checkout", "--quiet", "--detach")
    assert git.head_ref() is None


def test_history_is_told_with_trailers(git: Git, root: Path) -> None:
    second = _commit(git, {"a.txt": b"new\n"}, "Söme subject\n\nBody: of text\n\nGlix-Uid: 7\nGlix-Transaction: abc\n")
    newest, oldest = git.log(second, limit=10)
    assert newest.oid == second
    assert (newest.subject, newest.author) == ("Söme subject", "alice")
    assert newest.trailers == {"Glix-Uid": "7", "Glix-Transaction": "abc"}
    assert (oldest.subject, oldest.trailers) == ("First", {})
    assert git.log(second, limit=1) == [newest]


def test_changed_paths_of_two_commits(git: Git, root: Path) -> None:
    first = git.ref("HEAD")
    second = _commit(git, {"a.txt": b"new\n", "folder/b.txt": None, "x/y.txt": b"made\n"})
    assert first
    changes = git.changed_paths(first, second)
    assert set(changes) == {"a.txt", "folder/b.txt", "x/y.txt"}
    old, new = changes["a.txt"]
    assert old == git.tree("HEAD^{tree}")["a.txt"]
    assert new is not None
    assert (found := git.read(new.oid)) is not None
    assert found.data == b"new\n"
    assert changes["folder/b.txt"][1] is None
    assert changes["x/y.txt"][0] is None
    assert set(git.changed_paths(None, first)) == set(FILES)


def test_ancestors_and_last_changes(git: Git, root: Path) -> None:
    first = git.ref("HEAD")
    second = _commit(git, {"a.txt": b"new\n"})
    assert first
    assert git.is_ancestor(first, second)
    assert git.is_ancestor(first, first)
    assert not git.is_ancestor(second, first)
    assert git.last_change(second, "a.txt") == second
    assert git.last_change(second, "folder/b.txt") == first
    assert git.last_change(second, "none") is None
    assert git.commits_between(first, second) == [second]


# -- damage ----------------------------------------------------------------------------------------------------------


def test_a_damaged_object_is_an_error_and_never_other_bytes(git: Git, root: Path) -> None:
    (root / "big").write_bytes(os.urandom(3_000_000))
    commit_all(root)
    _corrupt(root, "HEAD:big")
    with pytest.raises(Failed) as caught:
        git.read("HEAD:big")
    assert caught.value.code is ErrorCode.READ_ONLY
    found = git.read("HEAD:a.txt")
    assert found is not None
    assert found.data == b"one\n"


def test_damage_that_is_met_often_does_not_stop_the_reader(git: Git, root: Path) -> None:
    _corrupt(root, "HEAD:folder/b.txt").write_bytes(b"no object at all")
    for _ in range(2000):
        with pytest.raises(Failed) as caught:
            git.read("HEAD:folder/b.txt")
        assert caught.value.code is ErrorCode.READ_ONLY
    assert git.ref("HEAD")


def test_a_missing_object_fails_the_commands_that_need_it(git: Git, root: Path) -> None:
    head = hermetic.git(root, "rev-parse", "HEAD")
    (root / ".git" / "objects" / head[:2] / head[2:]).unlink()
    with pytest.raises(Failed) as caught:
        git.log(head, limit=1)
    assert caught.value.code is ErrorCode.READ_ONLY


# -- writing ---------------------------------------------------------------------------------------------------------


def test_a_commit_is_written_beside_the_work_tree(git: Git, root: Path) -> None:
    index = (root / ".git" / "index").read_bytes()
    oid = _commit(git, {"a.txt": b"new\n", "folder/deep/c d.txt": None, "fresh/x": b"no newline at the end"})
    shown = hermetic.git(root, "show", "--no-patch", "--format=%an %ae %cn %ce %P%n%B", oid)
    head = hermetic.git(root, "rev-parse", "HEAD")
    assert shown == f"alice alice@laptop glixd glixd@localhost {head}\nSubject\n\nName: value"
    assert hermetic.git(root, "ls-tree", "-r", "--name-only", oid).split("\n") == ["a.txt", "folder/b.txt", "fresh/x"]
    assert (root / "a.txt").read_text() == "one\n"
    assert (root / ".git" / "index").read_bytes() == index
    assert hermetic.git(root, "status", "--porcelain") == ""
    hermetic.git(root, "fsck", "--strict")


def test_a_commit_can_move_an_object_with_its_mode(git: Git, root: Path) -> None:
    entry = git.tree("HEAD^{tree}")["a.txt"]._replace(mode="100755")
    oid = _commit(git, {"a.txt": None, "moved.sh": entry})
    tree = git.tree(f"{oid}^{{tree}}")
    assert tree["moved.sh"] == entry
    assert "a.txt" not in tree


def test_refs_move_together_or_not_at_all(git: Git, root: Path) -> None:
    first = git.ref("HEAD")
    second = _commit(git, {"a.txt": b"new\n"})
    assert first
    main, other = "refs/heads/main", "refs/glix/other"
    assert not git.update_refs([RefUpdate(other, second, None), RefUpdate(main, second, second)], keep=())
    assert git.ref(other) is None
    assert git.ref(main) == first
    assert git.update_refs([RefUpdate(other, second, None), RefUpdate(main, second, first)], keep=())
    assert git.ref(other) == git.ref(main) == second
    assert not git.update_refs([RefUpdate(other, first, None)], keep=())
    assert git.update_refs([RefUpdate(other, first, "")], keep=())
    assert git.ref(other) == first


def test_a_locked_ref_does_not_move(git: Git, root: Path) -> None:
    first = git.ref("HEAD")
    second = _commit(git, {"a.txt": b"new\n"})
    (root / ".git" / "refs" / "heads" / "main.lock").touch()
    assert not git.update_refs([RefUpdate("refs/heads/main", second, first)], keep=())
    assert git.ref("HEAD") == first


def test_entries_are_staged_in_an_index_file_of_its_own(git: Git, root: Path, tmp_path: Path) -> None:
    second = _commit(git, {"a.txt": b"new\n", "folder/b.txt": None})
    index = tmp_path / "index"
    shutil.copyfile(root / ".git" / "index", index)
    changes = git.changed_paths(git.ref("HEAD"), second)
    with git.staging(index, {path: new for path, (_, new) in changes.items()}, keep=()) as done:
        done()
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "--stage"],
        env={**os.environ, "GIT_INDEX_FILE": str(index)},
        capture_output=True,
    ).stdout.decode()
    assert "folder/b.txt" not in listed
    assert git.tree(f"{second}^{{tree}}")["a.txt"].oid in listed
    assert hermetic.git(root, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("ours", "merged"),
    [("1\n2\n3\n4\nfive\n", "one\n2\n3\n4\nfive\n"), ("uno\n2\n3\n4\n5\n", None)],
)
def test_texts_are_merged_or_conflict(git: Git, tmp_path: Path, ours: str, merged: str | None) -> None:
    texts = {"theirs": "one\n2\n3\n4\n5\n", "base": "1\n2\n3\n4\n5\n", "ours": ours}
    write_files(tmp_path, texts)
    found = git.merge(*(tmp_path / name for name in texts))
    assert found == (merged.encode() if merged else None)


def test_a_new_repository_has_the_branch_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    made = Git(tmp_path / "new", processes(tmp_path / "state"))
    made.initialise("trunk")
    assert made.head_ref() == "refs/heads/trunk"
    assert made.ref("HEAD") is None
    assert not (tmp_path / "new" / ".git" / "hooks").exists()
    made.close()


# -- what never runs -------------------------------------------------------------------------------------------------


@pytest.fixture
def canary(root: Path, tmp_path: Path) -> Path:
    """A file that comes into being when anything runs that the repository's configuration names."""
    sung, script = tmp_path / "sung", tmp_path / "canary"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >>{sung}\ncat\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    hooks = root / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "post-commit", "reference-transaction", "post-index-change", "post-checkout", "update"):
        shutil.copy(script, hooks / name)
    write_files(
        root, {".gitattributes": "* filter=bird diff=bird merge=bird\n", ".git/info/attributes": "* filter=bird\n"}
    )
    for key in (
        "filter.bird.clean",
        "filter.bird.smudge",
        "filter.bird.process",
        "diff.bird.textconv",
        "diff.bird.command",
        "merge.bird.driver",
        "diff.external",
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.alternateRefsCommand",
        "gpg.program",
        "gpg.ssh.program",
        "credential.helper",
        "alias.cat-file",
        "alias.log",
    ):
        hermetic.git(root, "config", key, str(script))
    for key, value in {
        "filter.bird.required": "true",
        "core.hooksPath": str(hooks),
        "commit.gpgSign": "true",
        "log.showSignature": "true",
        "gc.auto": "1",
        "core.untrackedCache": "true",
    }.items():
        hermetic.git(root, "config", key, value)
    sung.unlink(missing_ok=True)
    return sung


def _sign(root: Path) -> str:
    """Make the newest commit one that carries a signature, and return it."""
    body = hermetic.git(root, "cat-file", "commit", "HEAD")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
    head, _, rest = body.partition("\n\n")
    made = subprocess.run(
        ["git", "-C", root, "hash-object", "-t", "commit", "-w", "--stdin"],
        input=f"{head}\n{signature}\n\n{rest}\n".encode(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    hermetic.git(root, "-c", "core.hooksPath=/dev/null", "update-ref", "refs/heads/main", made.strip())
    return made.strip()


def test_nothing_that_the_repository_names_ever_runs(git: Git, root: Path, tmp_path: Path, canary: Path) -> None:
    head = _sign(root)
    canary.unlink(missing_ok=True)
    git.log(head, limit=5)
    git.last_change(head, "a.txt")
    second = _commit(git, {"a.txt": b"new\n"})
    git.changed_paths(head, second)
    write_files(root, {"a.txt": "edited\n"})
    git.dirty()
    git.modified(head)
    assert git.update_refs([RefUpdate("refs/heads/main", second, head)], keep=())
    index = tmp_path / "index"
    shutil.copyfile(root / ".git" / "index", index)
    with git.staging(index, {"a.txt": git.tree(f"{second}^{{tree}}")["a.txt"]}, keep=()) as done:
        done()
    git.read_tree(second, index, keep=())
    git.merge(root / "a.txt", root / "a.txt", root / "a.txt")
    assert not canary.exists(), canary.read_text()


def test_git_sees_the_constructed_environment_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    hermetic.git(other, "init", "--quiet")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, str(other / ".git"))
    made = Git(root, Processes({"PATH": os.environ["PATH"], "HOME": str(tmp_path)}))
    assert made.ref("HEAD")
    assert len(made.log("HEAD", limit=5)) == 1
    made.close()
