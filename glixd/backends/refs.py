# SPDX-License-Identifier: GPL-3.0-or-later
"""The refs that glixd moves: its branch, its tags, and those under refs/glix, each durably and by git's own compare-and-swap.

A git of ours that was killed leaves locks; a note tells them from those of people (see `moving`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.git import Git, RefUpdate
from glixd.backends.gitindex import busy
from glixd.backends.held import Held
from glixd.backends.moving import Moving
from glixd.errors import Failed, Refused
from glixd.log import get_logger
from glixd.protocol import ErrorCode

log = get_logger()

SCRATCH_REF: Final = "refs/glix/tx"
"""A commit that is looked at before its commit point."""
FORMER_REF: Final = "refs/glix/published"
"""Where earlier versions noted what the work tree shows."""

Mover = Callable[[list[RefUpdate]], bool]
"""A git that waits to be told which refs to move, and says whether it did."""


class BranchMoved(Refused):
    """Somebody committed while a change was prepared; the change starts again from there."""


class Refs:
    """The refs of one repository; `folder` is where glixd keeps what is its own, and `needed` what has to be free for a change."""

    def __init__(self, git: Git, folder: Path, branch: str | None, needed: tuple[int, int]) -> None:
        self._git = git
        self._folder = folder
        self._branch = branch
        self._needed = needed
        self.moving = Moving(folder / "moving", git.directory)

    @cached_property
    def branch(self) -> str:
        """The branch that glixd moves: the setting, else the one recorded at first contact, else HEAD's then."""
        if self._branch:
            return f"refs/heads/{self._branch}"
        note = self._folder / "branch"
        with contextlib.suppress(FileNotFoundError):
            if recorded := note.read_text().strip():
                return recorded
        head = self._git.head_ref()
        if head is None:
            raise Refused(
                f"HEAD of {self._git.root} is detached, so there is no branch to keep the manifests on.",
                hint="Check a branch out, or set `branch` in the configuration.",
            )
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            note.write_text(head + "\n")
        return head

    @property
    def shows_branch(self) -> bool:
        """Whether HEAD is on the branch that glixd moves."""
        return self._git.head_ref() == self.branch

    def show(self, held: Held, commit: str, ref: str = SCRATCH_REF) -> None:
        """Let other programs see a commit before its commit point, under a ref of ours; raises NoSpace or ReadOnly."""
        self._settle(held.expected)
        if not self._git.update_refs([RefUpdate(ref, commit, "")], keep=held.keep):
            raise Failed(f"git could not set {ref}.", code=ErrorCode.READ_ONLY)

    def hide(self) -> None:
        """The commit that was shown is seen no more."""
        self._git.delete_ref(SCRATCH_REF)

    def move_branch(self, held: Held, mover: Mover, commit: str, base: str | None) -> None:
        """Move the branch from `base` to `commit`, durably; raises BranchMoved, Busy or ReadOnly, and then nothing moved."""
        self._settle(held.expected)
        if self._moved(mover, commit, base):
            self.sync([self.branch])
            return
        now = self._git.ref(self.branch)
        if now == commit:
            return
        if now != base:
            raise BranchMoved(f"The branch {self.branch} moved while the change was prepared.", hint="Try again.")
        self.moving.clear()  # git ended by itself: a lock that is there is somebody else's
        for lock in self.moving.locks("HEAD", self.branch):
            if lock.exists():
                raise busy(lock)
        files.explain_full(self._git.root, *self._needed)
        raise Failed(
            f"git could not move {self.branch}.", code=ErrorCode.READ_ONLY, hint="Run git fsck in the repository."
        )

    def set(self, held: Held, ref: str, oid: str) -> bool:
        """Let a ref name an object that was made, durably; False where it is locked, and then it names what it named."""
        with self._git.moving(keep=held.keep) as move:
            self._settle({}, [ref])
            done = move([RefUpdate(ref, oid, "")])
        if done:
            names = ref.split("/")
            self.sync("/".join(names[:count]) for count in range(len(names), 1, -1))  # git may have made folders
        self.moving.clear()
        return done

    def delete(self, held: Held, refs: Mapping[str, str]) -> bool:
        """Delete refs that name these objects; False when one does not, or is locked, and then all are still there."""
        with files.translating(self._git.root):
            self.moving.write(self.branch, {}, refs)
        gone = [RefUpdate(ref, "0" * len(oid), oid) for ref, oid in refs.items()]
        done = self._git.update_refs(gone, keep=held.keep)
        if done:
            self.sync([*refs, "packed-refs"])
        self.moving.clear()
        return done

    def sync(self, refs: Iterable[str]) -> None:
        """Wait until refs moved or gone are so on the disk; git waits for what it writes, and not for the name it gives it."""
        try:
            for folder in {self._folder_of(ref) for ref in refs}:
                files.sync_folder(folder)
        except OSError as error:
            log.warning("refs moved, and that may not be on the disk yet", reason=str(error))

    def release(self) -> None:
        """Remove the locks of a git of ours that was killed; those of refs/glix are always ours."""
        for name in (SCRATCH_REF, FORMER_REF):
            (self._git.directory / f"{name}.lock").unlink(missing_ok=True)
        self.moving.release(self.branch)

    def _settle(self, expected: Mapping[str, str | None], others: Iterable[str] = ()) -> None:
        """Note that the branch moves, or these other refs, and write what was made, durably."""
        with files.translating(self._git.root):
            self.moving.write(self.branch, expected, others)
            self._git.pending.settle()

    def _moved(self, mover: Mover, commit: str, base: str | None) -> bool:
        """Whether git moved the branch; a git that was killed may have done so, and left its locks."""
        try:
            return mover([RefUpdate(self.branch, commit, base)])
        except Failed:
            self.release()
            if self._git.ref(self.branch) == commit:
                return True
            raise

    def _folder_of(self, ref: str) -> Path:
        """The folder of a ref; git takes it away with the last one in it, and a store of another format has none."""
        folder = (self._git.directory / ref).parent
        while not folder.is_dir():
            folder = folder.parent
        return folder
