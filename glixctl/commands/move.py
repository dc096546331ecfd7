# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl move`: move packages between the system of a host and the homes on it."""

from __future__ import annotations

from glixctl.commands._common import given, mutate, mutation_flags, names_argument

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "move"
SUMMARY = "move packages to the system of a host, or to a home"
EXAMPLES = (
    ("move firefox --scope home", "to the home of the primary user"),
    ("move firefox git --user bob", "two packages to another home"),
    ("move firefox --scope system", "back to the system"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """The packages and where they go."""
    names_argument(parser)
    parser.add_argument("--scope", choices=("system", "home"), help="where to; by default the system")
    parser.add_argument("--user", metavar="USER", help="whose home; means --scope home")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Move."""
    return mutate(options, client, "Move", {"names": options.names, **given(scope=options.scope, user=options.user)})
