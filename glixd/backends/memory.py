# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of this process, where the C library would rather keep it.

glibc gives each thread a pool of its own and keeps what was freed there. A daemon has a score of threads and few of them
at work at once, so its pools fill up with holes: after ten thousand changes half of its memory was holes.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

M_ARENA_MAX: Final = -8
POOLS: Final = 2
"""Pools that all threads share. They seldom wait for each other there: the interpreter lets one of them run at a time."""

_libc = ctypes.CDLL(None)


def share_pools() -> None:
    """Let all threads share few pools; to be called before there are threads. Nothing where the C library is another one."""
    with suppress(AttributeError):
        _libc.mallopt(M_ARENA_MAX, POOLS)


def give_back() -> None:
    """Give back to the machine what was freed; nothing where the C library is another one."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)
