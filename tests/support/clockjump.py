# SPDX-License-Identifier: GPL-3.0-or-later
"""A clock that a test moves while a daemon runs; see clockjump.c."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("clockjump.c")
YEAR: Final = 365 * 86400


class Clock:
    """The time of day of the programs that get its environment."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        self._library = folder / "clockjump.so"
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        subprocess.run(["cc", *flags, "-o", os.fspath(self._library), os.fspath(SOURCE), "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to live by this clock."""
        return {"LD_PRELOAD": os.fspath(self._library), "GLIX_CLOCK": os.fspath(self._file)}

    def set(self, seconds: int) -> None:
        """Move the clock so far from the real one, in one step."""
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
