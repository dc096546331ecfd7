# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl regen`: rewrite the managed regions from the manifests."""

from __future__ import annotations

from glixctl.commands._common import mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "regen"
SUMMARY = "rewrite the managed regions from the manifests"
EXAMPLES = (("regen", "write the managed regions of flake.nix again"),)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """Nothing of its own."""
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Regenerate."""
    return mutate(options, client, "Regenerate", {})
