# SPDX-License-Identifier: GPL-3.0-or-later
"""What the systems and homes of commits were built to: a commit says all that an evaluation depends on, so it holds for good.

The activator reads there what this user made of a commit, and compares what it is to switch to; see glixd/activator/system.py.
Nobody else writes there.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from glixd.evaluator.jobs import Job

MOST: Final = 64
"""Builds that are remembered, the newest."""


class Memory:
    """A folder with a file for each build."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def learn(self, job: Job, output: str) -> None:
        """Remember what a build said; a memory that can't be written is none."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            path = json.loads(output)[0]["outputs"]["out"]
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fresh = self._file(job).with_suffix(f".{os.getpid()}")
            fresh.write_text(path)
            fresh.replace(self._file(job))
            for old in sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime)[:-MOST]:
                old.unlink(missing_ok=True)

    def _file(self, job: Job) -> Path:
        return self._folder / f"{job.commit}-{job.root}"
