# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl rollback`: undo changes that were made through glixd."""

from __future__ import annotations

from glixctl.commands._common import count, generation, given, mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "rollback"
SUMMARY = "undo the last changes"
ABOUT = (
    "Undoes changes that were made through glixd, the newest first, as one commit; what people committed themselves stays.",
    "A rollback is never undone by a rollback: three of them go three steps back.",
    "A number is a generation: its manifest comes back in one commit and its system is switched to, both or neither.",
)
EXAMPLES = (
    ("rollback", "undo the last change"),
    ("rollback --steps 3 --dry-run", "see what undoing three changes would do"),
    ("rollback --to 1a2b3c4", "undo everything after a commit"),
    ("rollback --to 12", "go back to generation 12: its manifest, and the system as it was built then"),
)
ANSWER = "Transaction"
PARAMETERS = (("to_commit", "to"), ("to_generation", "to"))


def arguments(parser: ArgumentParser) -> None:
    """How far."""
    parser.add_argument("--steps", type=count, metavar="N", help="how many changes; by default one")
    parser.add_argument(
        "--to", metavar="COMMIT|GENERATION", help="undo all after this commit, or go back to a generation"
    )
    parser.add_argument("--boot", action="store_true", help="with a generation: switch at the next boot and not now")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Rollback."""
    number = generation(options.to)
    to = {"to_commit": options.to} if number is None else {"to_generation": number}
    return mutate(options, client, "Rollback", given(steps=options.steps, boot=options.boot, **to))
