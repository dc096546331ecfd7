# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon may load until it serves: the time and the memory of its start are those of what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOADED = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
import glixd.__main__
from glixd import lean
with lean.loading():
    import glixd.daemon
print(*sys.modules)
"""
NOT_NEEDED = {
    "_hashlib",
    "dbus_fast",
    "dbus_next",
    "bz2",
    "csv",
    "email",
    "email.message",
    "http",
    "importlib.metadata",
    "lzma",
    "multiprocessing",
    "rich",
    "ssl",
    "structlog",
    "tomlkit",
    "urllib.request",
    "zipfile",
}


def test_the_daemon_loads_nothing_before_it_serves_that_an_answer_does_not_need() -> None:
    told = subprocess.run([sys.executable, "-I", "-c", LOADED], capture_output=True, text=True, check=True).stdout
    loaded = set(told.split())
    assert {"glixd.daemon", "pydantic.main"} <= loaded
    assert loaded & NOT_NEEDED == set()
