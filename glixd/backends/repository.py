# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository of manifests: its lock, the commit point, publishing and recovery.

Everything that glixd keeps of its own stands in `.git/glix`: the lock, a token whose inode marks an `index.lock` as ours,
a note that refs are being moved, and scratch files. Nothing there is needed to read the repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.ahead import Ahead, Before
from glixd.backends.bell import Bell
from glixd.backends.git import Git
from glixd.backends.gitindex import busy
from glixd.backends.held import Held
from glixd.backends.objects import Commit
from glixd.backends.process import Cancellation, Processes
from glixd.backends.publishing import NO_CHANGES, Changes, Published, Publisher
from glixd.backends.refs import Refs
from glixd.backends.snapshot import Contents, Snapshot, decoded
from glixd.errors import GlixError, NotFound
from glixd.log import get_logger
from glixd.protocol import ErrorCode

log = get_logger()

BUSY_AFTER: Final = 10.0
"""Seconds to wait for another process that holds the repository."""


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
        self.needed = (needed_bytes, needed_inodes)
        """The bytes and inodes that have to be free for a change."""
        self.refs = Refs(self.git, self.folder, branch, self.needed)
        self._publisher = Publisher(self.git, self.folder, self.scratch, self.refs)
        self.worktree = self._publisher.worktree
        self.index = self._publisher.index
        self.contents = Contents(root, self.git)
        self._bell = bell or Bell()

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a repository at all."""
        return self.git.directory.is_dir()

    @property
    def branch(self) -> str:
        """The branch that glixd moves."""
        return self.refs.branch

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
    def is_published(self) -> bool:
        """Whether the work tree was brought to the newest commit; what people commit is there already."""
        published, newest = self._publisher.shown(), self.git.ref(self.branch)
        if published is None or newest is None or published == newest:
            return True
        return not self._made_since(published, newest)

    def shows_branch(self) -> bool:
        """Whether HEAD is on the branch that glixd moves."""
        return self.refs.shows_branch

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
                files.require_space(self.root, *self.needed)
            try:
                yield held
            finally:
                held.unstage()
        finally:
            os.close(descriptor)

    def make(self, commit: Commit) -> str:
        """Make a commit that nobody but us can see yet; the commit point writes it."""
        return self.git.make_commit(commit)

    def commit_point(
        self, held: Held, commit: str, base: str | None, changes: Changes = NO_CHANGES, before: Before | None = None
    ) -> None:
        """Move the branch from `base` to `commit`, durably; raises BranchMoved, Busy or ReadOnly, and then nothing moved.

        The git that moves it, and one that stages `changes` for the publication, start while the objects are written, or
        while `before` is done: each takes 3 ms.
        """
        held.unstage()
        with contextlib.ExitStack() as stack:
            ahead = Ahead(self.git, self._publisher, held, commit, changes, stack)
            if before:
                before(ahead)
            self.refs.move_branch(held, ahead.mover(), commit, base)

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """Bring the files of `changes` to `commit`, in the work tree and the index; after a commit point nothing here is a failure."""
        self.announce()
        try:
            result = self._publisher.publish(held, commit, changes)
        except (OSError, GlixError) as error:
            log.warning("publishing is pending", commit=commit, reason=str(error))
            return Published(pending=str(error))
        if result.pending is None:
            self.refs.moving.clear()
        return result

    def recover(self, held: Held) -> None:
        """Finish or undo what an earlier process left; idempotent, and quick when there is nothing to do."""
        self.worktree.rescue()
        self._clean_scratch()
        self.index.release()
        self.refs.release()
        if not self.exists:
            return
        if self.index.is_damaged:
            self.index.mend(held.keep)
        main, published = self.git.ref(self.branch), self._publisher.shown()
        if main is not None and main != published:
            self.announce()
            self._finish(held, published, main)
        elif self.refs.moving.exists:
            self.announce()  # the note stands until it was told that the branch moved
            self.refs.moving.clear()

    def _finish(self, held: Held, published: str | None, main: str) -> None:
        """Publish what an earlier process committed; what people committed is in their work tree already."""
        if published is None or not self._made_since(published, main):
            self._publisher.show(main)
            return
        held.expected = self.refs.moving.expected()
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
