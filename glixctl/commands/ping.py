# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl ping`: see whether the daemon answers."""

from __future__ import annotations

from glixctl import output
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "ping"
SUMMARY = "see whether the daemon answers"
EXAMPLES = (("ping", "one line when the daemon answers, a reason when it does not"),)
ANSWER = "PingResult"


def arguments(parser: ArgumentParser) -> None:
    """Nothing of its own."""


def run(options: Namespace, client: Client) -> int:
    """Ping."""
    answer = client.call("Ping")
    if options.json:
        output.document(answer)
    elif not options.quiet:
        output.line(f"glixd {output.escape(answer['version'])} ({output.escape(answer['commit'])}) answers")
    return Exit.DONE
