# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl enable`: switch packages of a host on."""

from __future__ import annotations

from glixctl.commands._common import consent_flags, consents, mutate, mutation_flags, names_argument

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "enable"
SUMMARY = "enable packages of a host"
EXAMPLES = (("enable firefox", "switch a disabled package on again"),)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """The packages."""
    names_argument(parser)
    consent_flags(parser)
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Enable."""
    return mutate(options, client, "Enable", {"names": options.names, **consents(options)})
