# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl remove`: take packages out of the manifest of a host."""

from __future__ import annotations

from glixctl.commands._common import mutate, mutation_flags, names_argument

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "remove"
SUMMARY = "remove packages from a host"
EXAMPLES = (
    ("remove firefox", "one package of this machine"),
    ("remove firefox git --host pi", "two packages of another host"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """The packages."""
    names_argument(parser)
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Remove."""
    return mutate(options, client, "Remove", {"names": options.names})
