# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl version`: the version of this client; no daemon is asked."""

from __future__ import annotations

from glixctl import output
from glixd.protocol import COMMIT, VERSION, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "version"
SUMMARY = "print the version of this client"
EXAMPLES = (("version", "the version and the commit of this client"),)
ANSWER = "PingResult"


def arguments(parser: ArgumentParser) -> None:
    """Nothing of its own."""


def run(options: Namespace, client: Client) -> int:
    """Print the two constants."""
    if options.json:
        output.document({"version": VERSION, "commit": COMMIT})
    else:
        output.line(f"glixctl {VERSION} ({COMMIT})")
    return Exit.DONE
