# SPDX-License-Identifier: GPL-3.0-or-later
"""The note that refs are about to move: by it the locks that a killed git of ours left are told from those of people.

It says which refs besides the branch are meant, and what adopted files look like. For the branch alone it need not be durable:
its name is enough. Else it is, since a disk may keep the locks that git made, or the commit with an edit in it, and lose what
the note says: then a lock would stay, and the adopted edit would be taken for a later one that conflicts with the change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from glixd.backends import files
from glixd.log import get_logger

log = get_logger()

SETTLE: Final = 1.0
"""Seconds for which a lock file of ours must stand unchanged before it counts as left behind."""
PACKED: Final = "packed-refs"
"""What git locks too when it deletes a ref."""


class Moving:
    """The note of one repository."""

    def __init__(self, note: Path, directory: Path) -> None:
        self._note = note
        self._directory = directory

    def write(self, branch: str, expected: Mapping[str, str | None], deleted: Iterable[str] = ()) -> None:
        """Note that the branch moves, or that these refs are set or deleted; and which of their locks somebody else has now."""
        names = list(deleted)
        foreign = {str(lock): number for lock in self._ours(branch, names) if (number := _inode(lock))}
        note = {"expected": dict(expected), "deleted": names, "foreign": foreign}
        if names or expected:
            files.write_durably(self._note, json.dumps(note).encode())
            files.sync_folder(self._note.parent)
        else:
            self._note.write_text(json.dumps(note))

    def clear(self) -> None:
        """Nothing is under way: the locks of refs that come now are none of ours."""
        self._note.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        """Whether something was under way."""
        return self._note.exists()

    def expected(self) -> dict[str, str | None]:
        """The blob that each adopted file was."""
        found = self._read().get("expected")
        return found if isinstance(found, dict) else {}

    def release(self, branch: str) -> None:
        """Remove the locks that came after the note and that no living git keeps; no clock is asked, since clocks jump."""
        if not self.exists:
            return
        note = self._read()
        deleted, foreign = note.get("deleted"), note.get("foreign")
        names = [str(name) for name in deleted] if isinstance(deleted, list) else []
        there = foreign if isinstance(foreign, dict) else {}
        for lock in self._ours(branch, names):
            if _left_behind(lock, there.get(str(lock))):
                log.warning("removed a lock that an interrupted transaction left", path=str(lock))
                lock.unlink(missing_ok=True)

    def locks(self, *names: str) -> list[Path]:
        """Where git locks these refs."""
        return [self._directory / f"{name}.lock" for name in names]

    def _ours(self, branch: str, deleted: list[str]) -> list[Path]:
        return self.locks("HEAD", branch, *deleted, *([PACKED] if deleted else []))

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._note.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _inode(lock: Path) -> int | None:
    try:
        return lock.stat().st_ino
    except FileNotFoundError:
        return None


def _left_behind(lock: Path, foreign: int | None) -> bool:
    """Whether a lock is not the foreign one and stands unchanged for a while: no git that is alive keeps one so long."""
    deadline = time.monotonic() + SETTLE
    first = _inode(lock)
    if first is None or first == foreign:
        return False
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if _inode(lock) != first:
            return False
    return True
