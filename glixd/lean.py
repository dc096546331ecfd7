# SPDX-License-Identifier: GPL-3.0-or-later
"""What libraries load where it is there, and a daemon never uses: hidden from them while they are loaded.

`structlog` loads all of `rich` for tracebacks in colours, and `asyncio` loads OpenSSL for connections that are none of ours.
The two were 5 of 52 MiB, and a fifth of the time until the daemon serves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*modules: str) -> Iterator[None]:
    """Let these modules be missing to whatever is loaded within, except where they are loaded already."""
    hidden = [name for name in modules if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # as the language says: an import of it fails then
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
