# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository of manifests: its lock, the commit point, publishing and recovery.

Everything that glixd keeps of its own stands in `.git/glix`: the lock, a token whose inode marks an `index.lock` as ours,
a note that refs are being moved, and scratch files. Nothing there is needed to read the repository.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.bell import Bell
from glixd.backends.git import Git, RefUpdate
from glixd.backends.gitindex import GitIndex, Staged, Staging, busy
from glixd.backends.moving import Moving
from glixd.backends.objects import Commit, Entry
from glixd.backends.process import Cancellation, Processes
from glixd.backends.snapshot import Contents, Snapshot, decoded
from glixd.backends.worktree import WorkTree, blob_name
from glixd.errors import Failed, GlixError, NotFound, Refused
from glixd.log import get_logger
from glixd.protocol import ErrorCode
from glixd.values import dataclass

log = get_logger()

SCRATCH_REF: Final = "refs/glix/tx"
"""A commit that is looked at before its commit point."""
FORMER_REF: Final = "refs/glix/published"
"""Where earlier versions noted what the work tree shows."""
BUSY_AFTER: Final = 10.0
"""Seconds to wait for another process that holds the repository."""

Changes = Mapping[str, tuple[Entry | None, Entry | None]]
"""Each file that a commit changes, with what was there and what is there now."""
NONE: Final[Changes] = {}


Mover = Callable[[list[RefUpdate]], bool]
"""A git that waits to be told which refs to move, and says whether it did."""


class Ahead:
    """What can be done for a commit whose commit point waits for something that takes long; what it starts ends with `stack`."""

    def __init__(
        self, repository: Repository, held: Held, commit: str, changes: Changes, stack: contextlib.ExitStack
    ) -> None:
        self._repository = repository
        self._held = held
        self._commit = commit
        self._changes = changes
        self._stack = stack
        self._mover: Mover | None = None

    def write(self) -> None:
        """Have its objects on the disk; raises NoSpace or ReadOnly, and then there will be no commit point."""
        with files.translating(self._repository.root):
            self._repository.git.pending.write()

    def make_ready(self) -> None:
        """Start the git that moves the branch, stage the files, and write the note of what the work tree will show.

        Nothing of that shows by itself; what fails here is done, and told of, in its place.
        """
        with contextlib.suppress(OSError, GlixError):
            self.mover()
            self.stage()
            self._repository.note(self._commit)

    def stage(self) -> None:
        """Stage the files in a copy of the index, which becomes the index if nobody else changes that one before."""
        if self._changes and self._held.staging is None and self._repository.shows_branch():
            self._held.stage(self._repository.index.staging(_staged(self._changes), keep=self._held.keep))

    def mover(self) -> Mover:
        """The git that moves the branch."""
        if self._mover is None:
            self._mover = self._stack.enter_context(self._repository.git.moving(keep=self._held.keep))
        return self._mover


Before = Callable[[Ahead], object]
"""What comes before a commit point, however long it takes; what it raises is why there is none."""


class BranchMoved(Refused):
    """Somebody committed while a change was prepared; the change starts again from there."""


@dataclasses.dataclass(slots=True)
class Held:
    """The repository while it is locked: hand `keep` to every child that writes."""

    descriptor: int
    expected: dict[str, str | None] = field(default_factory=dict)
    staging: Staging | None = None
    """What is staged already, ahead of a commit point, for the publication that follows it."""
    _ahead: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def keep(self) -> tuple[int, ...]:
        """The descriptors that children inherit, so that the lock outlives us until they are gone."""
        return (self.descriptor,)

    def stage(self, staging: contextlib.AbstractContextManager[Staging]) -> Staging:
        """Begin to stage what will be published, and nothing else any more."""
        self.unstage()
        self.staging = self._ahead.enter_context(staging)
        return self.staging

    def unstage(self) -> None:
        """End what was begun, used or not."""
        self.staging = None
        self._ahead.close()


@dataclass(frozen=True, slots=True)
class Published:
    """How publishing went."""

    pending: str | None = None
    """Why the work tree does not show the commit yet."""
    diverged: tuple[str, ...] = ()


class Repository:
    """One git repository that glixd owns. Reading is safe from any thread; writing happens under `locked()`."""

    def __init__(
        self,
        root: Path,
        processes: Processes,
        *,
        branch: str | None = None,
        bell: Bell | None = None,
        needed_bytes: int = files.NEEDED_BYTES,
        needed_inodes: int = files.NEEDED_INODES,
    ) -> None:
        self.root = root
        self.git = Git(root, processes)
        self.folder = self.git.directory / "glix"
        self.scratch = self.folder / "tmp"
        self._moving = Moving(self.folder / "moving", self.git.directory)
        self._noted: str | None = None
        """Of which commit there may be a note that is not in its place yet."""
        self.worktree = WorkTree(self.git, self.scratch)
        self._branch = branch
        self._bell = bell or Bell()
        self._needed = (needed_bytes, needed_inodes)
        self.contents = Contents(root, self.git)
        self.index = GitIndex(self.git, self.folder, self.scratch)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a repository at all."""
        return self.git.directory.is_dir()

    @cached_property
    def branch(self) -> str:
        """The branch that glixd moves: the setting, else the one recorded at first contact, else HEAD's then."""
        if self._branch:
            return f"refs/heads/{self._branch}"
        note = self.folder / "branch"
        with contextlib.suppress(FileNotFoundError):
            if recorded := note.read_text().strip():
                return recorded
        head = self.git.head_ref()
        if head is None:
            raise Refused(
                f"HEAD of {self.root} is detached, so there is no branch to keep the manifests on.",
                hint="Check a branch out, or set `branch` in the configuration.",
            )
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            note.write_text(head + "\n")
        return head

    def snapshot(self) -> Snapshot:
        """What the branch says now; raises NoRepository."""
        if not self.exists:
            raise NotFound(
                f"There is no repository at {self.root}.",
                code=ErrorCode.NO_REPOSITORY,
                hint="Run: glixctl init",
                details={"path": str(self.root)},
            )
        commit = self.git.ref(self.branch)
        if commit is None:
            raise NotFound(
                f"The repository {self.root} has no commit on {self.branch}.",
                code=ErrorCode.NO_REPOSITORY,
                hint="Run: glixctl init",
                details={"path": str(self.root)},
            )
        return Snapshot(self.contents, commit)

    def at(self, commit: str) -> Snapshot:
        """What that commit says."""
        return Snapshot(self.contents, commit)

    def edits(self, snapshot: Snapshot, *, everything: bool = False) -> dict[str, bytes | None]:
        """What people edited: path → the bytes it has now, None where it is gone.

        Of the managed files, or of every file that git tracks. Nothing while HEAD is elsewhere.
        """
        if not self.shows_branch():
            return {}
        managed = snapshot.managed
        if everything:
            changed = self.git.modified(snapshot.commit)
            managed = {**managed, **{path: entry for path, entry in changed.items() if entry.is_regular}}
        return self.worktree.edits(managed)

    def edited_texts(self, snapshot: Snapshot) -> dict[str, str]:
        """The managed files that people edited, as text."""
        return {path: decoded(data, path) for path, data in self.edits(snapshot).items() if data is not None}

    @property
    def needed(self) -> tuple[int, int]:
        """The bytes and inodes that have to be free for a change."""
        return self._needed

    @property
    def is_published(self) -> bool:
        """Whether the work tree was brought to the newest commit; what people commit is there already."""
        published, newest = self._shown(), self.git.ref(self.branch)
        if published is None or newest is None or published == newest:
            return True
        return not self._made_since(published, newest)

    def shows_branch(self) -> bool:
        """Whether HEAD is on the branch that glixd moves."""
        return self.git.head_ref() == self.branch

    # -- writing -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, cancellation: Cancellation | None = None) -> Iterator[Held]:
        """Hold the repository, recovered and with room to write; raises Busy, NoSpace or ReadOnly."""
        with files.translating(self.root):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(descriptor, cancellation)
            held = Held(descriptor)
            self.git.pending.forget()
            with files.translating(self.root):
                self.recover(held)
                self.index.await_unlocked()
                files.require_space(self.root, *self._needed)
            try:
                yield held
            finally:
                held.unstage()
        finally:
            os.close(descriptor)

    def make(self, commit: Commit) -> str:
        """Make a commit that nobody but us can see yet; the commit point writes it."""
        return self.git.make_commit(commit)

    def show(self, held: Held, commit: str, ref: str = SCRATCH_REF) -> None:
        """Let other programs see a commit before its commit point, under a ref of ours; raises NoSpace or ReadOnly."""
        self._settle(held)
        if not self.git.update_refs([RefUpdate(ref, commit, "")], keep=held.keep):
            raise Failed(f"git could not set {ref}.", code=ErrorCode.READ_ONLY)

    def commit_point(
        self, held: Held, commit: str, base: str | None, changes: Changes = NONE, before: Before | None = None
    ) -> None:
        """Move the branch from `base` to `commit`, durably; raises Conflict, Busy or ReadOnly, and then nothing moved.

        The git that moves it, and one that stages `changes` for the publication, start while the objects are written, or
        while `before` is done: each takes 3 ms.
        """
        held.unstage()
        with contextlib.ExitStack() as stack:
            ahead = Ahead(self, held, commit, changes, stack)
            if before:
                before(ahead)
            move = ahead.mover()
            with contextlib.suppress(OSError, GlixError):  # then it is done, and told of, in its place
                ahead.stage()
            self._settle(held)
            moved = self._moved(move, commit, base)
        if moved:
            self._sync_refs([self.branch])
            return
        now = self.git.ref(self.branch)
        if now == commit:
            return
        if now != base:
            raise BranchMoved(f"The branch {self.branch} moved while the change was prepared.", hint="Try again.")
        self._moving.clear()  # git ended by itself: a lock that is there is somebody else's
        for lock in self._moving.locks("HEAD", self.branch):
            if lock.exists():
                raise busy(lock)
        files.explain_full(self.root, *self._needed)
        raise Failed(
            f"git could not move {self.branch}.", code=ErrorCode.READ_ONLY, hint="Run git fsck in the repository."
        )

    def _sync_refs(self, refs: Iterable[str]) -> None:
        """Wait until refs moved or gone are so on the disk; git waits for what it writes, and not for the name it gives it."""
        try:
            for folder in {self._folder_of(ref) for ref in refs}:
                files.sync_folder(folder)
        except OSError as error:
            log.warning("refs moved, and that may not be on the disk yet", reason=str(error))

    def _folder_of(self, ref: str) -> Path:
        """The folder of a ref; git takes it away with the last one in it, and a store of another format has none."""
        folder = (self.git.directory / ref).parent
        while not folder.is_dir():
            folder = folder.parent
        return folder

    def _settle(self, held: Held) -> None:
        """Write what was made, durably."""
        with files.translating(self.root):
            self._moving.write(self.branch, held.expected)
            self.git.pending.settle()

    def _moved(self, move: Mover, commit: str, base: str | None) -> bool:
        """Whether git moved the branch; a git that was killed may have done so, and left its locks."""
        try:
            return move([RefUpdate(self.branch, commit, base)])
        except Failed:
            self._release_refs()
            if self.git.ref(self.branch) == commit:
                return True
            raise

    def set_ref(self, held: Held, ref: str, oid: str) -> bool:
        """Let a ref name an object that was made, durably; False where it is locked, and then it names what it named."""
        with self.git.moving(keep=held.keep) as move:
            with files.translating(self.root):
                self._moving.write(self.branch, {}, [ref])
                self.git.pending.settle()
            done = move([RefUpdate(ref, oid, "")])
        if done:
            names = ref.split("/")
            self._sync_refs("/".join(names[:count]) for count in range(len(names), 1, -1))  # git may have made folders
        self._moving.clear()
        return done

    def delete_refs(self, held: Held, refs: Mapping[str, str]) -> bool:
        """Delete refs that name these objects; False when one does not, or is locked, and then all are still there."""
        with files.translating(self.root):
            self._moving.write(self.branch, {}, refs)
        gone = [RefUpdate(ref, "0" * len(oid), oid) for ref, oid in refs.items()]
        done = self.git.update_refs(gone, keep=held.keep)
        if done:
            self._sync_refs([*refs, "packed-refs"])
        self._moving.clear()
        return done

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """Bring the files of `changes` to `commit`, in the work tree and the index; after a commit point nothing here is a failure."""
        self.announce()
        try:
            result = self._publish(held, commit, changes)
        except (OSError, GlixError) as error:
            log.warning("publishing is pending", commit=commit, reason=str(error))
            return Published(pending=str(error))
        if result.pending is None:
            self._moving.clear()
        return result

    def recover(self, held: Held) -> None:
        """Finish or undo what an earlier process left; idempotent, and quick when there is nothing to do."""
        self.worktree.rescue()
        self._clean_scratch()
        self.index.release()
        self._release_refs()
        if not self.exists:
            return
        if self.index.is_damaged:
            self.index.mend(held.keep)
        main, published = self.git.ref(self.branch), self._shown()
        if main is not None and main != published:
            self.announce()
            self._finish(held, published, main)
        elif self._moving.exists:
            self.announce()  # the note stands until it was told that the branch moved
            self._moving.clear()

    def _finish(self, held: Held, published: str | None, main: str) -> None:
        """Publish what an earlier process committed; what people committed is in their work tree already."""
        if published is None or not self._made_since(published, main):
            self._note_shown(main)
            return
        held.expected = self._moving.expected()
        changes = self.git.changed_paths(published, main)
        touched = self._touched(published, main)
        ours = {path: change for path, change in changes.items() if path in touched}
        result = self.publish(held, main, ours)
        held.expected = {}
        log.info("published what an earlier process had committed", commit=main, pending=result.pending)

    def announce(self) -> None:
        """Tell whoever keeps a copy that the branch is, or may be, elsewhere."""
        self._bell.ring()

    def announce_unless_known(self) -> None:
        """The same, where the copy is not what the branch is."""
        self._bell.ring_unless(self.git.ref(self.branch))

    def check_index(self) -> None:
        """Recover, where the index can't be read: nothing that asks git about the work tree works without it."""
        if self.index.is_damaged:
            with self.locked():
                pass

    def close(self) -> None:
        """End what runs for this repository."""
        self.git.close()

    # -- helpers -------------------------------------------------------------------------------------------------

    def _take(self, descriptor: int, cancellation: Cancellation | None) -> None:
        deadline = time.monotonic() + BUSY_AFTER
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if cancellation:
                    cancellation.check()
                if time.monotonic() > deadline:
                    raise busy(self.folder / "lock") from None
                time.sleep(0.02)
            else:
                return

    def _publish(self, held: Held, commit: str, changes: Changes) -> Published:
        diverged: list[str] = []
        shows = self.shows_branch()
        if shows:
            with self.index.locked():
                staging = held.staging
                if staging is None or not staging.fits(_staged(changes)):
                    staging = held.stage(self.index.staging(_staged(changes), keep=held.keep))
                diverged = self.worktree.publish(changes, held.expected)
                note = self.note(commit)
                staging.take_place()
        else:
            note = self.note(commit)
        note.replace(self.folder / "published")
        if not (shows and self.shows_branch()):
            return Published(pending=f"{self.branch} is not checked out; the work tree shows another branch")
        return Published(diverged=tuple(diverged))

    def _shown(self) -> str | None:
        """The commit that the work tree was last brought to."""
        try:
            return (self.folder / "published").read_text().strip() or None
        except FileNotFoundError:
            return self.git.ref(FORMER_REF)

    def _note_shown(self, commit: str) -> None:
        """Note what the work tree shows. The rename need not be durable: with an older note it is published once more."""
        self.note(commit).replace(self.folder / "published")

    def note(self, commit: str) -> Path:
        """The note of what the work tree will show, durable, and not in its place yet."""
        fresh = self.scratch / "published"
        if self._noted == commit and fresh.exists():
            return fresh
        self._noted = None
        files.write_durably(fresh, f"{commit}\n".encode(), 0o600)
        self._noted = commit
        return fresh

    def _made_since(self, old: str, new: str) -> bool:
        """Whether a commit of ours stands between two commits; what people commit is in their work tree already."""
        if not self.git.is_ancestor(old, new):
            return False
        return any(entry.transaction for entry in self.git.log(f"{old}..{new}", limit=1000))

    def _touched(self, old: str | None, new: str) -> set[str]:
        """The files that commits of ours changed between two commits; what people commit is in their work tree already."""
        entries = self.git.log(f"{old}..{new}", limit=1000)
        ours = [entry.oid for entry in entries if entry.transaction]
        return {path for oid in ours for path in self.git.changed_paths(f"{oid}~1", oid)}

    def _release_refs(self) -> None:
        """Remove the ref locks of a git of ours that was killed; those of refs/glix are always ours."""
        for name in (SCRATCH_REF, FORMER_REF):
            (self.git.directory / f"{name}.lock").unlink(missing_ok=True)
        self._moving.release(self.branch)

    def _clean_scratch(self) -> None:
        """Empty the scratch folder; the folder itself stays, since a disk that is full has no room for a new one."""
        self.scratch.mkdir(mode=0o700, exist_ok=True)
        for left in self.scratch.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        for crash in self.git.directory.glob("fast_import_crash_*"):
            crash.unlink(missing_ok=True)


def _staged(changes: Changes) -> Staged:
    return {path: new for path, (_, new) in changes.items()}


def adopted_blob(data: bytes | None, like: str) -> str | None:
    """The name of the blob that an adopted edit is; None for a file that is gone."""
    return None if data is None else blob_name(data, like)
