# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory goes back to the system when it is free, so that a flood leaves no mark on a daemon that lives for months.

glibc keeps what was freed once a program has used large blocks, up to 64 MiB, and gives each thread a heap of its own. A daemon has
a score of threads and few of them at work at once, so its heaps fill up with holes: after ten thousand changes half of its memory
was holes. Threads seldom wait for each other at a heap that they share: the interpreter lets one of them run at a time.
"""

from __future__ import annotations

import ctypes
from typing import Final

_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
_ARENA_MAX: Final = -8
"""Names of mallopt(3); setting a threshold stops glibc from raising it."""


def keep_little() -> None:
    """Let large blocks go back at once, and share few heaps among the threads; where there is no mallopt, do nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 128 * 1024)
        mallopt(_TRIM_THRESHOLD, 256 * 1024)
        mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Give back what was freed in the heaps; where there is no malloc_trim, do nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
