# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl update`: lock inputs at their newest revision."""

from __future__ import annotations

from glixctl.commands._common import given, mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "update"
SUMMARY = "lock inputs at their newest revision"
ABOUT = ("An input is named as `glixctl info` shows it, or by a package that comes from it; none means all inputs.",)
EXAMPLES = (
    ("update", "every input"),
    ("update nixpkgs", "the package set of all machines"),
    ("update greeting --dry-run", "see what would change for one package"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """The inputs."""
    parser.add_argument(
        "--unattended", action="store_true", help="as the settings say: only what builds, then stage or switch"
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="an input, or a package that comes from one")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Update."""
    return mutate(options, client, "Update", given(inputs=options.inputs or None, unattended=options.unattended))
