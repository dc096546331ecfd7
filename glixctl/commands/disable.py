# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl disable`: switch packages of a host off and keep their entries."""

from __future__ import annotations

from glixctl.commands._common import mutate, mutation_flags, names_argument

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "disable"
SUMMARY = "disable packages of a host and keep their entries"
EXAMPLES = (("disable firefox", "switch a package off and keep its entry"),)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """The packages."""
    names_argument(parser)
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Disable."""
    return mutate(options, client, "Disable", {"names": options.names})
