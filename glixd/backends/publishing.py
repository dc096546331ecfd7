# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing: the work tree and the index are brought to a commit, and a note says which one they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.git import Git, Staged
from glixd.backends.gitindex import GitIndex
from glixd.backends.held import Held
from glixd.backends.objects import Entry
from glixd.backends.refs import FORMER_REF, Refs
from glixd.backends.worktree import WorkTree
from glixd.values import dataclass

Changes = Mapping[str, tuple[Entry | None, Entry | None]]
"""Each file that a commit changes, with what was there and what is there now."""
NO_CHANGES: Final[Changes] = {}


@dataclass(frozen=True, slots=True)
class Published:
    """How publishing went."""

    pending: str | None = None
    """Why the work tree does not show the commit yet."""
    diverged: tuple[str, ...] = ()


class Publisher:
    """What one repository shows; `folder` is where glixd keeps what is its own, and `scratch` goes with every lock."""

    def __init__(self, git: Git, folder: Path, scratch: Path, refs: Refs) -> None:
        self._git = git
        self._note = folder / "published"
        self._fresh = scratch / "published"
        self._refs = refs
        self._noted: str | None = None
        """Of which commit there may be a note that is not in its place yet."""
        self.worktree = WorkTree(git, scratch)
        self.index = GitIndex(git, folder, scratch)

    def stage(self, held: Held, changes: Changes) -> None:
        """Stage files ahead, in a copy of the index, which becomes the index if nobody else changes that one before."""
        if changes and held.staging is None and self._refs.shows_branch:
            held.stage(self.index.staging(_staged(changes), keep=held.keep))

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """Bring the files of `changes` to `commit`; raises OSError or GlixError where that has to be done once more."""
        diverged: list[str] = []
        shows = self._refs.shows_branch
        if shows:
            with self.index.locked():
                staging = held.staging
                if staging is None or not staging.fits(_staged(changes)):
                    staging = held.stage(self.index.staging(_staged(changes), keep=held.keep))
                diverged = self.worktree.publish(changes, held.expected)
                self.note(commit)
                staging.take_place()
        self.show(commit)
        if not (shows and self._refs.shows_branch):
            return Published(pending=f"{self._refs.branch} is not checked out; the work tree shows another branch")
        return Published(diverged=tuple(diverged))

    def shown(self) -> str | None:
        """The commit that the work tree was last brought to."""
        try:
            return self._note.read_text().strip() or None
        except FileNotFoundError:
            return self._git.ref(FORMER_REF)

    def show(self, commit: str) -> None:
        """Note what the work tree shows. The rename need not be durable: with an older note it is published once more."""
        self.note(commit)
        self._fresh.replace(self._note)

    def note(self, commit: str) -> None:
        """Write the note of what the work tree will show, durably, and not into its place yet."""
        if self._noted == commit and self._fresh.exists():
            return
        self._noted = None
        files.write_durably(self._fresh, f"{commit}\n".encode(), 0o600)
        self._noted = commit


def _staged(changes: Changes) -> Staged:
    return {path: new for path, (_, new) in changes.items()}
