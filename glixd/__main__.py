# SPDX-License-Identifier: GPL-3.0-or-later
"""The command glixd: arguments → settings → the daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from glixd import lean

with lean.loading(without=lean.never_used()):
    lean.without_plugins()
    import asyncio
    import shutil  # noqa: F401 # argparse would load it, with what archives are compressed with

    from glixd import log, memory, settings
    from glixd.errors import GlixError

from glixd.protocol import COMMIT, ERRORS, VERSION, ErrorCode

TAKEN: Final = 75
"""Exit code when another daemon has the repository."""

SWITCH: Final = 0.0005
"""Seconds that a thread may compute while another one wants to. An answer passes from thread to thread three times, so that
with the 5 ms that are usual the large messages of one caller cost everybody else 15 ms and more."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the daemon; ends the process with an exit code of the error table."""
    sys.exit(run(_parser().parse_args(argv)))


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon until it ends, and say how: a sentence on standard error, an exit code."""
    given = vars(arguments)
    ready_fd = given.pop("ready_fd")
    if ready_fd is not None:
        _close_inherited(ready_fd)
    try:
        with lean.loading():
            from glixd.daemon import Daemon

        memory.keep_little()
        sys.setswitchinterval(SWITCH)
        chosen = settings.load(given, os.environ)
        log.choose(chosen.log)
        asyncio.run(Daemon(chosen, dict(os.environ)).run(ready_fd))
    except GlixError as error:
        print(f"glixd: {error.message}" + (f" {error.hint}" if error.hint else ""), file=sys.stderr)  # noqa: T201
        return TAKEN if error.code is ErrorCode.BUSY else ERRORS[error.code].exit_code
    except OSError as error:
        print(f"glixd: {error.filename or 'the system'}: {error.strerror}.", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _close_inherited(kept: int) -> None:
    """Let go of what the program that started us on demand had open: a pipe that it waits for must not live as long as we."""
    highest = max((int(name) for name in os.listdir("/proc/self/fd")), default=kept)
    os.closerange(3, kept)
    os.closerange(max(kept, 2) + 1, highest + 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glixd", description="The package daemon of NixOS.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"glixd {VERSION} ({COMMIT})")
    parser.add_argument("--mode", choices=list(settings.Mode), help="user (the default) or system")
    parser.add_argument("--repository", metavar="DIR", help="the folder of the repository")
    parser.add_argument("--state", metavar="DIR", help="where the history of transactions and caches are kept")
    parser.add_argument("--socket", metavar="PATH", help="the Unix socket to serve JSON-RPC on")
    parser.add_argument("--bus", metavar="BUS", help="session, system, none, or the address of a bus")
    parser.add_argument("--host", metavar="HOST", help="the host that is meant where none is named")
    parser.add_argument("--idle-exit", metavar="SECONDS", help="end after so long without work; 0 means never")
    parser.add_argument("--log", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument("--config", metavar="FILE", help="the configuration file")
    parser.add_argument("--ready-fd", metavar="N", type=int, help="a descriptor to write a byte to when ready")
    return parser


if __name__ == "__main__":
    main()
