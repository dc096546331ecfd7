# SPDX-License-Identifier: GPL-3.0-or-later
"""What is free goes back to the system."""

from __future__ import annotations

import subprocess
import sys

HOLDS = """
import os, sys
from glixd import memory
if sys.argv[1] == "little":
    memory.keep_little()
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
before = held()
large = bytearray(12 << 20)
del large
kept = []
for _ in range(6):
    large = bytearray(b"x") * (8 << 20)
    kept.append(bytearray(8192))
    del large
    kept.append(bytearray(16384))
large = [bytearray(b"x") * (6 << 20) for _ in range(6)]
kept.append(bytearray(70000))
del large
print(held() - before)
"""
"""What a process still holds, in KiB, after it has used large blocks beside small ones that stay."""


def holds(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", HOLDS, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_blocks_go_back_at_once_and_would_not_by_themselves() -> None:
    assert holds("little") < 3000 < holds("much")
