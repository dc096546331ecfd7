# SPDX-License-Identifier: GPL-3.0-or-later
"""The command glixd-export: arguments → passes over the copy, until it is what the branch is.

systemd starts it at every boot and when the daemon rings: a byte in a FIFO, of which this program is handed the other end.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from glixd.export.copy import Copy, NotExported, Source

SETTINGS: Final = Path("/etc/glixd/config.toml")
"""Where the administrator says where the repository is, to the daemon too."""
FIFO: Final = 3
"""The descriptor that systemd hands over."""
MUCH: Final = 65536


def main(argv: Sequence[str] | None = None) -> None:
    """Bring the copy up to date; ends the process, with 1 and a sentence where that was refused."""
    parser = argparse.ArgumentParser(prog="glixd-export", description=__doc__, allow_abbrev=False)
    parser.add_argument("--repository", type=Path, metavar="DIR")
    parser.add_argument("--copy", type=Path, default=Path("/etc/glixos"), metavar="DIR")
    parser.add_argument("--history", type=Path, default=Path("/var/lib/glixd-export/history.git"), metavar="DIR")
    parser.add_argument("--branch", metavar="NAME")
    parser.add_argument("--user", default="glixd", metavar="NAME", help="whom the repository belongs to")
    given = parser.parse_args(argv)
    _silence()
    try:
        repository, branch = _source(given)
        owner = pwd.getpwnam(given.user) if os.geteuid() == 0 else None
        copy = Copy(given.copy, given.history, branch)
        source = Source(repository, branch, owner)
        while (revision := copy.follow(source)) != source.revision():
            pass
    except (NotExported, KeyError, OSError) as error:
        print(f"glixd-export: {error}", file=sys.stderr)  # noqa: T201 - standard error is the journal
        sys.exit(1)
    print(f"{given.copy} is {revision or 'empty'}", file=sys.stderr)  # noqa: T201
    sys.exit(0)


def _source(given: argparse.Namespace) -> tuple[Path, str]:
    """The repository and its branch: what the command line says before what the settings say; raises NotExported."""
    settings = {"repository": "/var/lib/glixd/repo", "branch": "main"}
    try:
        settings |= tomllib.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise NotExported(f"{SETTINGS} has to be corrected: {error}") from error
    settings |= {name: value for name, value in vars(given).items() if name in settings and value is not None}
    for name in ("repository", "branch"):
        if not isinstance(settings[name], str | Path):
            raise NotExported(f"{SETTINGS} has to be corrected: {name} is no text")
    return Path(settings["repository"]), str(settings["branch"])


def _silence() -> None:
    """Take what was rung before the branch is read: whatever is rung from here on starts another pass."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return
    os.set_blocking(FIFO, False)
    try:
        while os.read(FIFO, MUCH):
            pass
    except BlockingIOError:
        pass


if __name__ == "__main__":
    main()
