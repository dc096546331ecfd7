# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl import`: take the packages of a nix profile over into the manifest of a host."""

from __future__ import annotations

import os

from glixctl import output, profile
from glixctl.commands._common import given, mutate, mutation_flags
from glixctl.errors import ClientError
from glixd.protocol import ErrorCode, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "import"
SUMMARY = "take the packages of a nix profile over into a host"
ABOUT = (
    "Reads a profile of `nix profile` or `nix-env` and adds its packages in one change; the profile stays as it is.",
    "What the host has already, and what came from no flake, is left out and named.",
)
EXAMPLES = (
    ("import --from-profile --dry-run", "what your own profile would add"),
    ("import --from-profile --scope home", "take it over into your home"),
)
ANSWER = "Transaction"
PARAMETERS = (("refs", "from_profile"),)


def arguments(parser: ArgumentParser) -> None:
    """The profile, and where its packages go."""
    parser.add_argument(
        "--from-profile", nargs="?", const="", required=True, metavar="PATH", help="the profile; by default your own"
    )
    parser.add_argument("--scope", choices=("system", "home"), help="by default that of the host")
    parser.add_argument("--user", metavar="USER", help="whose home; means --scope home")
    mutation_flags(parser)


def run(options: Namespace, client: Client) -> int:
    """Resolve what the profile has, and add what is new."""
    references, nameless = profile.packages(options.from_profile or profile.default_profile(os.environ))
    listed = client.call("List", given(host=options.host, include_disabled=True))
    there = {package["name"] for package in listed["packages"]}
    wanted: dict[str, str] = {}
    for reference in references:
        name = _name(reference, options, client)
        if name is None:
            nameless.append(reference)
        elif name in there:
            output.note(f"{output.escape(name)} is there already")
        else:
            wanted.setdefault(name, reference)
    for entry in nameless:
        output.warning(f"{output.escape(entry)} is left out: glixd can't tell where it comes from")
    if not wanted:
        output.note("there is nothing to take over")
        return Exit.NOTHING_TO_DO
    parameters = given(scope=options.scope, user=options.user)
    return mutate(options, client, "Add", {"refs": list(wanted.values()), **parameters})


def _name(reference: str, options: Namespace, client: Client) -> str | None:
    """What the manifest would call it; None where nothing in the world of glixd is meant by it."""
    try:
        answer = client.call("Resolve", {"refs": [reference], **given(host=options.host)})
    except ClientError as error:
        if error.name in (ErrorCode.UNKNOWN_PACKAGE, ErrorCode.AMBIGUOUS, ErrorCode.BAD_REFERENCE):
            return None
        raise
    return str(answer["resolutions"][0]["name"])
