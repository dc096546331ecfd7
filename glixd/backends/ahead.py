# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done for a commit ahead of its commit point: nothing of it shows, and all of it is thrown away where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from glixd.backends import files
from glixd.backends.git import Git
from glixd.backends.held import Held
from glixd.backends.publishing import Changes, Publisher
from glixd.backends.refs import Mover
from glixd.errors import GlixError


class Ahead:
    """One commit, whose commit point may wait for something that takes long; the git that it starts ends with `stack`."""

    def __init__(
        self, git: Git, publisher: Publisher, held: Held, commit: str, changes: Changes, stack: contextlib.ExitStack
    ) -> None:
        self._git = git
        self._publisher = publisher
        self._held = held
        self._commit = commit
        self._changes = changes
        self._stack = stack
        self._mover: Mover | None = None

    def write(self) -> None:
        """Have its objects on the disk; raises NoSpace or ReadOnly, and then there will be no commit point."""
        with files.translating(self._git.root):
            self._git.pending.write()

    def make_ready(self) -> None:
        """Start the gits that move the branch and stage the files, and write the note of what the work tree will show.

        What fails here is done, and told of, in its place.
        """
        with contextlib.suppress(OSError, GlixError):
            self.mover()
            self._publisher.note(self._commit)

    def mover(self) -> Mover:
        """The git that moves the branch, while another one stages the files."""
        if self._mover is None:
            self._mover = self._stack.enter_context(self._git.moving(keep=self._held.keep))
            with contextlib.suppress(OSError, GlixError):
                self._publisher.stage(self._held, self._changes)
        return self._mover


Before = Callable[[Ahead], object]
"""What comes before a commit point, however long it takes; what it raises is why there is none."""
