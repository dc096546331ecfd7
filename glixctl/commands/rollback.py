# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl rollback`: undo changes that were made through glixd."""

from __future__ import annotations

from glixctl.commands._common import count, given, mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "rollback"
SUMMARY = "undo the last changes"
ABOUT = (
    "Undoes changes that were made through glixd, the newest first, as one commit; what people committed themselves stays.",
    "A rollback is never undone by a rollback: three of them go three steps back.",
)
EXAMPLES = (
    ("rollback", "undo the last change"),
    ("rollback --steps 3 --dry-run", "see what undoing three changes would do"),
    ("rollback --to 1a2b3c4", "undo everything after a commit"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """How far."""
    parser.add_argument("--steps", type=count, metavar="N", help="how many changes; by default one")
    parser.add_argument("--to", metavar="COMMIT", help="undo every change after this commit")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Rollback."""
    return mutate(options, client, "Rollback", given(steps=options.steps, to_commit=options.to))
