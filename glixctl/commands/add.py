# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl add`: put packages into the manifest of a host."""

from __future__ import annotations

from glixctl.commands._common import given, mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "add"
SUMMARY = "add packages to a host"
EXAMPLES = (
    ("add firefox", "the package firefox of the host's own nixpkgs"),
    ("add firefox git --scope home", "two packages in one change, for your own home"),
    ("add github:owner/repo --pin v1.2", "a flake, kept on one tag"),
    ("add firefox --dry-run", "what would be done, as a diff"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """References, and how they go into the manifest."""
    parser.add_argument("refs", nargs="+", metavar="REF", help="a name or a flake reference")
    mutation_flags(parser)
    parser.add_argument("--scope", choices=("system", "home"), help="by default that of the host")
    parser.add_argument("--user", metavar="USER", help="whose home; means --scope home")
    parser.add_argument("--pin", metavar="REVISION", help="a commit, tag or branch to stay on")
    parser.add_argument("--name", metavar="NAME", help="what the manifest calls it")
    parser.add_argument("--no-follows", action="store_true", help="keep the input's own nixpkgs")
    parser.add_argument("--allow-local", action="store_true", help="consent to an absolute local path")


def run(options: Namespace, client: Client) -> int:
    """Add."""
    parameters = given(
        scope=options.scope,
        user=options.user,
        pin=options.pin,
        name=options.name,
        allow_local=options.allow_local,
    )
    if options.no_follows:
        parameters["follows"] = False
    return mutate(options, client, "Add", {"refs": options.refs, **parameters})
