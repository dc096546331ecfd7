# SPDX-License-Identifier: GPL-3.0-or-later
"""The note that refs are about to move: by it the locks that a killed git of ours left are told from those of people.

It says which refs besides the branch are meant, and what adopted files look like. It is not durable, since the locks of refs
are not either.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

SETTLE: Final = 1.0
"""Seconds for which a lock file of ours must stand unchanged before it counts as left behind."""
PACKED: Final = "packed-refs"
"""What git locks too when it deletes a ref."""


class Moving:
    """The note of one repository."""

    def __init__(self, note: Path, directory: Path) -> None:
        self._note = note
        self._directory = directory

    def write(self, expected: Mapping[str, str | None], deleted: Iterable[str] = ()) -> None:
        """Note that the branch moves, or that these refs are deleted."""
        self._note.write_text(json.dumps({"expected": dict(expected), "deleted": list(deleted)}))

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
        """Remove the locks that came after the note and that no living git keeps."""
        try:
            since = self._note.stat().st_ctime_ns
        except FileNotFoundError:
            return
        deleted = self._read().get("deleted")
        names = [str(name) for name in deleted] if isinstance(deleted, list) else []
        for lock in self.locks("HEAD", branch, *names, *([PACKED] if names else [])):
            if _left_behind(lock, since):
                log.warning("removed a lock that an interrupted transaction left", path=str(lock))
                lock.unlink(missing_ok=True)

    def locks(self, *names: str) -> list[Path]:
        """Where git locks these refs."""
        return [self._directory / f"{name}.lock" for name in names]

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._note.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _left_behind(lock: Path, since: int) -> bool:
    """Whether a lock file came after `since` and stands unchanged for a while: no git that is alive keeps one so long."""
    deadline = time.monotonic() + SETTLE
    try:
        first = lock.stat()
        if first.st_ctime_ns < since:
            return False
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if lock.stat().st_ino != first.st_ino:
                return False
    except FileNotFoundError:
        return False
    return True
