# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl adopt`: commit what people edited in the work tree."""

from __future__ import annotations

from glixctl.commands._common import given, mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "adopt"
SUMMARY = "commit what was edited by hand in the repository"
EXAMPLES = (
    ("adopt", "commit the edits of managed files"),
    ('adopt --all --message "Use a newer kernel"', "commit the edits of every file that git tracks"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """What, and why."""
    parser.add_argument("--all", action="store_true", dest="everything", help="every file that git tracks")
    parser.add_argument("--message", "-m", metavar="TEXT", help="what the edits are about")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Adopt."""
    return mutate(options, client, "Adopt", given(everything=options.everything, message=options.message))
