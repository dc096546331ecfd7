# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl clone`: a working clone of the repository, to edit with any editor."""

from __future__ import annotations

import os

from glixctl import output
from glixctl.errors import UsageError
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "clone"
SUMMARY = "make a working clone of the repository"
ABOUT = ("It needs no right to the repository itself. Commit in it as in any clone, then run glixctl push.",)
EXAMPLES = (("clone ~/system", "a clone in a new folder"),)
ANSWER = ""


def arguments(parser: ArgumentParser) -> None:
    """Where."""
    parser.add_argument("folder", metavar="FOLDER", help="a folder that is not there yet, or is empty")


def run(options: Namespace, client: Client) -> int:
    """Clone."""
    from glixctl import clone  # which runs git

    folder = os.path.abspath(options.folder)
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise UsageError(f"{folder} is there already and is not empty.", "Choose another folder.")
    made = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        clone.git(folder, "init", "--quiet", "--initial-branch=glixd-empty")
        branch = clone.fetch(client, folder)
        clone.git(folder, "checkout", "--quiet", "--no-track", "-b", branch, f"{clone.TRACKING}/{branch}")
    except BaseException:
        if made:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
        raise
    if options.json:
        output.document({"folder": folder, "branch": branch, "commit": clone.git(folder, "rev-parse", "HEAD")})
    elif not options.quiet:
        output.line(f"cloned to {output.escape(folder)}; edit and commit there, then run: glixctl push")
    return Exit.DONE
