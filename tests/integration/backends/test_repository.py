# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository under its lock: whose locks are whose, what recovery finishes, and what it leaves alone."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd.backends.bell import Bell
from glixd.backends.held import Held
from glixd.backends.process import Cancellation
from glixd.backends.publishing import Changes, Published
from glixd.backends.repository import Repository
from glixd.backends.snapshot import MANIFESTS
from glixd.errors import Cancelled, GlixError, Refused
from glixd.protocol import ErrorCode
from tests.support import hermetic
from tests.support.hermetic import commit_all, git
from tests.support.plain import HOST, MANIFEST, Workshop, add, make_plain_repository

MAIN_LOCK = Path(".git/refs/heads/main.lock")


class Unpublished(Repository):
    """A repository whose process ends right after the commit point."""

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """End before anything is published."""
        return Published(pending="the process ended")


@pytest.fixture
def interrupted(root: Path, tmp_path: Path) -> Iterator[Workshop]:
    """The parts of a process that never publishes."""
    made = Workshop(root, tmp_path / "state", make=Unpublished)
    yield made
    made.close()


@pytest.fixture
def fresh(root: Path, tmp_path: Path) -> Iterator[Workshop]:
    """The parts of the process that comes afterwards."""
    made = Workshop(root, tmp_path / "state")
    yield made
    made.close()


def _refused(workshop: Workshop, code: ErrorCode, name: str = "firefox", **options: Any) -> GlixError:
    before = git(workshop.root, "rev-parse", "HEAD")
    with pytest.raises(GlixError) as caught:
        workshop.run(add(name), **options)
    assert caught.value.code is code, caught.value
    assert git(workshop.root, "rev-parse", "HEAD") == before
    return caught.value


def _noted(root: Path) -> str:
    """The commit that the work tree was brought to, as it is noted."""
    return (root / ".git" / "glix" / "published").read_text().strip()


def _shown(root: Path) -> str:
    """The manifest of the work tree, which must be that of HEAD."""
    text = (root / MANIFEST).read_text()
    assert text.strip() == git(root, "show", f"HEAD:{MANIFEST}")
    return text


# -- locks -----------------------------------------------------------------------------------------------------------


def test_the_lock_is_held_by_one_at_a_time(workshop: Workshop, fresh: Workshop) -> None:
    order: list[str] = []
    with workshop.repository.locked():
        thread = threading.Thread(target=lambda: order.append("second" if fresh.run(add("firefox")).commit else ""))
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_waiting_for_the_lock_can_be_cancelled(workshop: Workshop, fresh: Workshop) -> None:
    cancellation = Cancellation()
    caught: list[GlixError] = []

    def wait() -> None:
        try:
            fresh.run(add("firefox"), cancellation=cancellation)
        except Cancelled as error:
            caught.append(error)

    with workshop.repository.locked():
        thread = threading.Thread(target=wait)
        thread.start()
        cancellation.request()
        thread.join()
    assert len(caught) == 1


def test_children_that_write_inherit_the_lock(workshop: Workshop) -> None:
    with workshop.repository.locked() as held:
        child = workshop.processes.start(["cat"], keep=held.keep)
    descriptor = os.open(workshop.repository.folder / "lock", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.communicate(b"")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_the_index_lock_of_a_person_is_busy_and_stays(workshop: Workshop, root: Path) -> None:
    lock = root / ".git" / "index.lock"
    lock.write_text("a commit with an open editor")
    error = _refused(workshop, ErrorCode.BUSY)
    assert error.details["path"] == str(lock)
    assert lock.read_text() == "a commit with an open editor"
    lock.unlink()
    assert workshop.run(add("firefox")).commit


def test_an_index_lock_of_our_own_is_released(workshop: Workshop, root: Path) -> None:
    workshop.run(add("ripgrep"))
    os.link(root / ".git" / "glix" / "token", root / ".git" / "index.lock")
    assert workshop.run(add("firefox")).warnings == ()
    assert not (root / ".git" / "index.lock").exists()


def test_the_ref_lock_of_a_person_is_busy_and_stays(workshop: Workshop, root: Path) -> None:
    (root / MAIN_LOCK).touch()
    error = _refused(workshop, ErrorCode.BUSY)
    assert error.details["path"] == str(root / MAIN_LOCK)
    _refused(workshop, ErrorCode.BUSY)
    assert (root / MAIN_LOCK).exists()
    (root / MAIN_LOCK).unlink()
    assert workshop.run(add("firefox")).commit


def test_a_ref_lock_that_a_person_takes_after_a_failure_of_ours_stays(workshop: Workshop, root: Path) -> None:
    (root / MAIN_LOCK).touch()
    _refused(workshop, ErrorCode.BUSY)
    (root / MAIN_LOCK).unlink()
    (root / MAIN_LOCK).touch()
    _refused(workshop, ErrorCode.BUSY)
    assert (root / MAIN_LOCK).exists()


def test_ref_locks_of_a_killed_process_are_released(workshop: Workshop, root: Path) -> None:
    workshop.run(add("ripgrep"))
    (root / ".git" / "glix" / "moving").write_text("{}")
    for name in (
        MAIN_LOCK,
        Path(".git/HEAD.lock"),
        Path(".git/refs/glix/published.lock"),
        Path(".git/refs/glix/tx.lock"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert workshop.run(add("firefox")).warnings == ()
    assert list((root / ".git").rglob("*.lock")) == []


def test_locks_of_a_deletion_that_was_killed_are_released_and_only_those(workshop: Workshop, root: Path) -> None:
    workshop.run(add("ripgrep"))
    git(root, "tag", "glix/gen/laptop/1")
    tag = "refs/tags/glix/gen/laptop/1"
    note = {"expected": {}, "deleted": [tag]}
    (root / ".git" / "glix" / "moving").write_text(json.dumps(note))
    left = [root / ".git" / f"{name}.lock" for name in (tag, "packed-refs")]
    others = root / ".git" / "refs" / "tags" / "mine.lock"
    for path in (*left, others):
        path.touch()
    with workshop.repository.locked() as held:
        assert not any(path.exists() for path in left)
        assert others.exists()
        assert workshop.repository.refs.delete(held, {tag: git(root, "rev-parse", "HEAD")})
    assert git(root, "tag", "--list") == ""


def test_a_lock_of_a_killed_process_is_known_whatever_the_clock_says(workshop: Workshop, root: Path) -> None:
    workshop.run(add("ripgrep"))
    (root / MAIN_LOCK).touch()  # by its time it came before the note, as when the clock was set back in between
    (root / ".git" / "glix" / "moving").write_text(json.dumps({"expected": {}, "deleted": [], "foreign": {}}))
    assert workshop.run(add("firefox")).warnings == ()
    assert not (root / MAIN_LOCK).exists()


def test_a_ref_that_somebody_locks_is_not_deleted(workshop: Workshop, root: Path) -> None:
    git(root, "tag", "glix/gen/laptop/1")
    lock = root / ".git" / "packed-refs.lock"
    lock.touch()
    with workshop.repository.locked() as held:
        assert not workshop.repository.refs.delete(
            held, {"refs/tags/glix/gen/laptop/1": git(root, "rev-parse", "HEAD")}
        )
    with workshop.repository.locked():
        assert lock.exists()


def test_a_git_that_is_killed_after_the_commit_point_has_committed(root: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    real = os.environ["PATH"]
    (programs / "git").write_text(
        "#!/bin/sh\n"
        f"PATH={real}\n"
        'case "$*" in\n'
        "*update-ref*) input=$(cat)\n"
        '  printf "%s\\n" "$input" | git "$@" || exit\n'
        f'  case "$input" in *refs/heads/main*) touch {root}/{MAIN_LOCK} {root}/.git/HEAD.lock; kill -9 $$;; esac;;\n'
        '*) exec git "$@";;\n'
        "esac\n"
    )
    (programs / "git").chmod(0o755)
    workshop = Workshop(root, tmp_path / "state")
    workshop.processes.environment["PATH"] = f"{programs}:{real}"
    result = workshop.run(add("firefox"))
    assert result.commit == git(root, "rev-parse", "HEAD")
    assert result.warnings == ()
    assert list((root / ".git").rglob("*.lock")) == []
    assert "[packages.firefox]" in _shown(root)
    workshop.close()


# -- recovery --------------------------------------------------------------------------------------------------------


def test_recovery_publishes_what_was_committed(interrupted: Workshop, fresh: Workshop, root: Path) -> None:
    result = interrupted.run(add("firefox"))
    assert result.warnings
    assert "firefox" not in (root / MANIFEST).read_text()
    for _ in range(2):
        fresh.recover()
        assert "[packages.firefox]" in _shown(root)
        assert git(root, "status", "--porcelain") == ""
        assert _noted(root) == result.commit


def test_the_next_mutation_recovers_first(interrupted: Workshop, fresh: Workshop, root: Path) -> None:
    interrupted.run(add("firefox"))
    assert fresh.run(add("ripgrep")).warnings == ()
    assert {"[packages.firefox]", "[packages.ripgrep]"} <= set(_shown(root).splitlines())


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[tuple[Bell, int]]:
    """The bell of an export, and the end at which it is heard."""
    os.mkfifo(tmp_path / "bell")
    ear = os.open(tmp_path / "bell", os.O_RDWR | os.O_NONBLOCK)
    yield Bell(tmp_path / "bell"), ear
    os.close(ear)


def _heard(ear: int) -> int:
    try:
        return len(os.read(ear, 4096))
    except BlockingIOError:
        return 0


def test_every_move_of_the_branch_is_rung_and_a_repository_at_rest_is_silent(
    root: Path, tmp_path: Path, bell: tuple[Bell, int]
) -> None:
    rings, ear = bell
    workshop = Workshop(root, tmp_path / "state", options={"needed_bytes": 0, "needed_inodes": 0, "bell": rings})
    workshop.recover()
    _heard(ear)
    for name in ("firefox", "git"):
        workshop.run(add(name))
        assert _heard(ear) == 1
    workshop.recover()
    assert _heard(ear) == 0
    git(root, "commit", "--quiet", "--allow-empty", "--message=Somebody else")
    workshop.recover()
    assert _heard(ear) == 1
    workshop.close()


def test_a_move_that_an_interrupted_process_did_not_ring_for_is_rung_by_the_next(
    interrupted: Workshop, root: Path, tmp_path: Path, bell: tuple[Bell, int]
) -> None:
    rings, ear = bell
    interrupted.run(add("firefox"))
    (root / ".git/glix/published").write_text(git(root, "rev-parse", "HEAD"))  # it got as far as this
    fresh = Workshop(root, tmp_path / "state", options={"needed_bytes": 0, "needed_inodes": 0, "bell": rings})
    fresh.recover()
    assert _heard(ear) == 1
    fresh.recover()
    assert _heard(ear) == 0
    fresh.close()


def test_recovery_merges_what_was_edited_meanwhile(interrupted: Workshop, fresh: Workshop, root: Path) -> None:
    interrupted.run(add("firefox"))
    text = (root / MANIFEST).read_text()
    (root / MANIFEST).write_text(f"# mine\n{text}")
    fresh.recover()
    edited = (root / MANIFEST).read_text()
    assert edited.startswith("# mine\n")
    assert "[packages.firefox]" in edited


def test_an_adopted_edit_is_published_after_an_interruption(interrupted: Workshop, fresh: Workshop, root: Path) -> None:
    (root / MANIFEST).write_text("# mine\n" + (root / MANIFEST).read_text())
    interrupted.run(add("firefox"))
    fresh.recover()
    text = _shown(root)
    assert text.startswith("# mine\n")
    assert "[packages.firefox]" in text
    assert git(root, "status", "--porcelain") == ""


def test_what_a_person_committed_is_not_published_over_their_files(workshop: Workshop, root: Path) -> None:
    workshop.run(add("ripgrep"))
    (root / "notes").write_text("committed\n")
    commit_all(root)
    (root / "notes").write_text("edited\n")
    workshop.recover()
    assert (root / "notes").read_text() == "edited\n"
    assert _noted(root) == git(root, "rev-parse", "HEAD")


def test_scratch_files_and_crash_reports_go(workshop: Workshop, root: Path) -> None:
    scratch = workshop.repository.scratch
    (scratch / "merge-base").write_text("x")
    (scratch / "folder").mkdir()
    (scratch / "folder" / "file").write_text("x")
    (root / ".git" / "fast_import_crash_123").write_text("x")
    workshop.recover()
    assert list(scratch.iterdir()) == []
    assert not (root / ".git" / "fast_import_crash_123").exists()


# -- the index -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_an_index_that_is_whole_stays_as_it_is(tmp_path: Path, object_format: str) -> None:
    root = tmp_path / "repository"
    make_plain_repository(root, object_format=object_format)
    (root / "notes").write_text("staged\n")
    git(root, "add", "notes")
    index = (root / ".git" / "index").read_bytes()
    workshop = Workshop(root, tmp_path / "state")
    workshop.recover()
    assert (root / ".git" / "index").read_bytes() == index
    assert workshop.run(add("firefox")).warnings == ()
    assert git(root, "status", "--porcelain") == "A  notes"
    workshop.close()


@pytest.mark.parametrize("damage", [b"", b"DIRC and nothing more", b"no index\n" * 100])
def test_a_damaged_index_is_written_anew_when_a_daemon_starts(workshop: Workshop, root: Path, damage: bytes) -> None:
    (root / ".git" / "index").write_bytes(damage)
    workshop.recover()
    assert git(root, "status", "--porcelain") == ""


@pytest.mark.parametrize("damage", [b"torn", None], ids=["torn", "gone"])
def test_an_index_that_is_lost_while_we_run_is_written_anew(
    workshop: Workshop, root: Path, damage: bytes | None
) -> None:
    index = root / ".git" / "index"
    if damage is None:
        index.unlink()
    else:
        index.write_bytes(damage)
    assert workshop.run(add("firefox")).warnings == ()
    assert git(root, "status", "--porcelain") == ""
    assert "[packages.firefox]" in _shown(root)


class Meanwhile(Repository):
    """One whose index a person changes after it was staged ahead of the commit point, and before the publication."""

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """Let the person have their turn, then publish; what was staged ahead is used where nobody came in between."""
        ahead = held.staging
        assert ahead is not None
        if not self.turn(self.root):
            published = super().publish(held, commit, changes)
            assert held.staging is ahead
            return published
        published = super().publish(held, commit, changes)
        assert held.staging is not ahead
        return published

    @staticmethod
    def turn(root: Path) -> bool:
        """What the person does; whether that changed the index."""
        return False


class Adding(Meanwhile):
    """The person stages a file."""

    @staticmethod
    def turn(root: Path) -> bool:
        """Stage it."""
        git(root, "add", "notes")
        return True


class Tearing(Meanwhile):
    """A disk tears the index."""

    @staticmethod
    def turn(root: Path) -> bool:
        """Tear it."""
        (root / ".git" / "index").write_bytes(b"torn")
        return True


@pytest.mark.parametrize(
    ("make", "status"),
    [(Meanwhile, "?? notes"), (Adding, "A  notes"), (Tearing, "?? notes")],
    ids=["no", "add", "tear"],
)
def test_what_is_staged_ahead_is_used_only_where_nobody_changed_the_index(
    root: Path, tmp_path: Path, make: type[Meanwhile], status: str
) -> None:
    (root / "notes").write_text("notes\n")
    workshop = Workshop(root, tmp_path / "state", make=make)
    assert workshop.run(add("firefox")).warnings == ()
    assert git(root, "status", "--porcelain") == status
    assert "[packages.firefox]" in _shown(root)
    assert not (root / ".git" / "index.lock").exists()
    workshop.close()


def test_the_log_of_a_ref_names_glixd_whoever_runs_it(workshop: Workshop, root: Path) -> None:
    workshop.run(add("firefox"))
    assert git(root, "log", "--walk-reflogs", "-1", "--format=%gn <%ge>: %gs") == "glixd <glixd@localhost>: glixd"


def test_what_a_person_staged_stays_staged_and_is_not_committed(workshop: Workshop, root: Path) -> None:
    (root / "staged").write_text("staged\n")
    (root / "untracked").write_text("untracked\n")
    default = root / "hosts" / HOST / "default.nix"
    default.write_text(default.read_text() + "# edited\n")
    git(root, "add", "staged")
    before = git(root, "status", "--porcelain")
    result = workshop.run(add("firefox"))
    assert git(root, "status", "--porcelain") == before
    assert git(root, "show", "--format=", "--name-only", "HEAD") == MANIFEST
    assert result.warnings == ()


# -- branches --------------------------------------------------------------------------------------------------------


def test_with_head_elsewhere_it_commits_and_says_that_it_does_not_publish(workshop: Workshop, root: Path) -> None:
    main = git(root, "rev-parse", "main")
    git(root, "checkout", "--quiet", "-b", "side")
    text = (root / MANIFEST).read_text()
    result = workshop.run(add("firefox"))
    assert any("not checked out" in warning for warning in result.warnings)
    assert git(root, "rev-parse", "main") == result.commit != main
    assert git(root, "rev-parse", "HEAD") == main
    assert (root / MANIFEST).read_text() == text
    assert git(root, "status", "--porcelain") == ""
    git(root, "checkout", "--quiet", "main")
    workshop.recover()
    assert "[packages.firefox]" in _shown(root)
    assert git(root, "status", "--porcelain") == ""


def test_the_branch_of_the_first_contact_is_kept(workshop: Workshop, root: Path, tmp_path: Path) -> None:
    assert workshop.repository.branch == "refs/heads/main"
    git(root, "checkout", "--quiet", "-b", "side")
    again = Workshop(root, tmp_path / "state")
    assert again.repository.branch == "refs/heads/main"
    again.close()


def test_a_detached_head_is_refused_at_first_contact_and_a_setting_helps(root: Path, tmp_path: Path) -> None:
    git(root, "checkout", "--quiet", "--detach")
    workshop = Workshop(root, tmp_path / "state")
    with pytest.raises(Refused) as caught:
        workshop.run(add("firefox"))
    assert "detached" in caught.value.message
    workshop.close()
    told = Workshop(root, tmp_path / "state", options={"branch": "main", "needed_bytes": 0, "needed_inodes": 0})
    result = told.run(add("firefox"))
    assert git(root, "rev-parse", "main") == result.commit
    assert result.warnings
    told.close()


def test_a_commit_that_a_person_makes_meanwhile_is_kept(workshop: Workshop, root: Path) -> None:
    made: list[str] = []

    def step(title: str) -> None:
        if title == "writing the commit" and not made:
            (root / "theirs").write_text("theirs\n")
            git(root, "add", "theirs")
            git(root, "commit", "--quiet", "--message=Theirs")
            made.append(git(root, "rev-parse", "HEAD"))

    result = workshop.run(add("firefox"), step=step)
    assert git(root, "rev-parse", "HEAD") == result.commit
    assert git(root, "rev-parse", "HEAD~1") == made[0]
    assert (root / "theirs").exists()
    assert git(root, "status", "--porcelain") == ""


def test_a_branch_that_moves_again_and_again_is_a_conflict(workshop: Workshop, root: Path) -> None:
    def step(title: str) -> None:
        if title == "writing the commit":
            git(root, "commit", "--quiet", "--allow-empty", "--message=Theirs")

    with pytest.raises(Refused) as caught:
        workshop.run(add("firefox"), step=step)
    assert caught.value.code is ErrorCode.CONFLICT
    assert git(root, "log", "--format=%s").split() == ["Theirs"] * 3 + ["By", "hand"]
    assert "firefox" not in (root / MANIFEST).read_text()


# -- room, rights, cancelling ----------------------------------------------------------------------------------------


def test_too_little_room_is_refused_with_nothing_changed(root: Path, tmp_path: Path) -> None:
    for options in ({"needed_bytes": 1 << 60}, {"needed_inodes": 1 << 60}):
        workshop = Workshop(root, tmp_path / "state", options=options)
        _refused(workshop, ErrorCode.NO_SPACE)
        workshop.close()
    assert git(root, "status", "--porcelain") == ""


def test_work_is_cancelled_up_to_the_commit_point_and_not_after_it(workshop: Workshop, root: Path) -> None:
    cancellation = Cancellation()

    def cancel(title: str) -> None:
        if title == "writing the commit":
            assert cancellation.request()

    _refused(workshop, ErrorCode.CANCELLED, cancellation=cancellation, step=cancel)
    assert git(root, "status", "--porcelain") == ""
    late = Cancellation()
    heard: list[bool] = []
    result = workshop.run(add("firefox"), cancellation=late, committed=lambda _: heard.append(late.request()))
    assert heard == [False]
    assert result.commit == git(root, "rev-parse", "HEAD")


def test_a_repository_in_the_other_object_format_works_the_same(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    make_plain_repository(root, object_format="sha256")
    workshop = Workshop(root, tmp_path / "state")
    (root / MANIFEST).write_text("# mine\n" + (root / MANIFEST).read_text())
    result = workshop.run(add("firefox"))
    assert len(result.commit or "") == 64
    assert _shown(root).startswith("# mine\n")
    hermetic.git(root, "fsck", "--strict")
    workshop.close()


def test_old_manifests_are_not_kept_in_memory(workshop: Workshop) -> None:
    """A daemon lives long: what one host said long ago must not stay for as long."""
    repository = workshop.repository
    blobs = []
    for number in range(MANIFESTS + 4):
        workshop.run(add(f"package-{number}"))
        entry = repository.snapshot().hosts[HOST]
        blobs.append((entry.oid, repository.contents.manifest_of(entry.oid, MANIFEST)))
    kept = [oid for oid, manifest in reversed(blobs) if repository.contents.manifest_of(oid, MANIFEST) is manifest]
    assert blobs[-1][0] == kept[0]
    assert len(kept) <= MANIFESTS
