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
for size in (1 << 20, 4 << 20, 30 << 20):
    blocks = [bytearray(size) for _ in range(64 // (size >> 20) or 1)]
    pinned = bytearray(4096)
    del blocks
print(held() - before)
"""


def test_large_blocks_go_back_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", HOLDS, "little"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4096
