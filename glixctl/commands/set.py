# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl set`: change keys of one package of a host."""

from __future__ import annotations

from glixctl.commands._common import changes_argument, consent_flags, consents, mutate, mutation_flags

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "set"
SUMMARY = "change keys of one package of a host"
ABOUT = (
    "Keys are flake, scope, enabled, pin, user, follows and config.NAME; all changes make one commit.",
    "An empty value (pin=) clears the key.",
)
EXAMPLES = (
    ("set greeting config.message=hello", "give a package its configuration"),
    ("set greeting pin=v1.2 --dry-run", "see what staying on a tag would change"),
    ("set greeting pin= enabled=true", "follow the branch again, and enable it"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """The package and its changes."""
    parser.add_argument("name", metavar="NAME", help="a package, as the manifest calls it")
    changes_argument(parser)
    parser.add_argument("--allow-local", action="store_true", help="consent to an absolute local path")
    consent_flags(parser)
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Set."""
    parameters: dict[str, object] = {"name": options.name, "changes": dict(options.changes), **consents(options)}
    if options.allow_local:
        parameters["allow_local"] = True
    return mutate(options, client, "Set", parameters)
