# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading modules with little: without what a daemon never uses, and without looking for garbage among what stays.

`structlog` loads all of `rich` for tracebacks in colours, and `asyncio` loads OpenSSL for connections that are none of ours.
The two were 5 of 52 MiB, and a fifth of the time until the daemon serves. The collector looked through what was just loaded
130 times, 20 of 310 ms; and later each of its whole rounds through fifty thousand objects stopped everybody for 20 ms.
`hashlib` loads OpenSSL too, 3.5 of 43 MiB, and `shutil` two kinds of compression for archives, 0.3 MiB.
`pydantic` looks through all that is installed for plugins, of which there are none here, with a module that loads forty others.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

PLUGINS: Final = "pydantic.plugin._loader"
"""What pydantic asks for plugins. Where a later one asks something else, that is loaded as ever."""

NEVER_USED: Final = ("rich", "ssl", "bz2", "lzma")


def never_used() -> tuple[str, ...]:
    """What libraries load that work without, and that the daemon uses never, or when it pays: `glixd.hashes` loads OpenSSL."""
    try:
        import _sha1  # type: ignore[import-not-found] # noqa: F401 # missing where it was built to hash with OpenSSL alone
    except ImportError:
        return NEVER_USED
    return (*NEVER_USED, "_hashlib")


def without_plugins() -> None:
    """Let pydantic have no plugins and not look for any: 12 of 230 ms, and no code of others in the daemon."""
    nothing = ModuleType(PLUGINS)
    vars(nothing)["get_plugins"] = tuple
    sys.modules.setdefault(PLUGINS, nothing)


@contextmanager
def loading(*, without: tuple[str, ...] = ()) -> Iterator[None]:
    """Load what is imported within; some modules are missing to it, except where they are loaded already.

    What is there afterwards stays for good, as far as the collector is concerned.
    """
    hidden = [name for name in without if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # as the language says: an import of it fails then
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
        for name in hidden:
            del sys.modules[name]
