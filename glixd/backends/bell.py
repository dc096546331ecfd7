# SPDX-License-Identifier: GPL-3.0-or-later
"""The bell that tells the export of the system that the branch has moved: a FIFO of which systemd holds the other end.

What is written stays there until the export takes it out, so that a change during a pass starts another pass. Nothing here
waits, and nothing here is a failure: where nobody keeps a copy, nobody listens.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from glixd.log import get_logger

log = get_logger()

STROKE: Final = b"\n"
_NOBODY: Final = (errno.ENOENT, errno.ENXIO)
"""There is no FIFO, or nobody holds its other end."""
_FULL: Final = (errno.EAGAIN,)
"""Nobody has listened for thousands of changes; the next pass will, and one stroke is as good as many."""


class Bell:
    """One FIFO; without one, ringing does nothing."""

    def __init__(self, fifo: Path | None = None, revision: Path | None = None) -> None:
        self._fifo = fifo
        self._revision = revision

    def ring_unless(self, newest: str | None) -> None:
        """Ring where the copy says that it is another commit, whatever the reason is: an old one, or a pass that failed."""
        try:
            copied = self._revision.read_text().strip() if self._revision else None
        except OSError:
            copied = None
        if newest is not None and newest != copied:
            self.ring()

    def ring(self) -> None:
        """Have the copy brought up to date soon; from any thread."""
        if self._fifo is None:
            return
        try:
            descriptor = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(descriptor, STROKE)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in (*_NOBODY, *_FULL):
                log.warning("the copy of the repository may lag behind", fifo=str(self._fifo), reason=str(error))
