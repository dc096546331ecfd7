# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl init`: make the repository, or add a host to it."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import given, mutate, mutation_flags
from glixctl.errors import UsageError

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "init"
SUMMARY = "make the repository, or add a host to it"
EXAMPLES = (
    ("init", "make the repository, with this machine in it"),
    ("init --profile desktop", "the same for a graphical machine"),
    ("init --host pi --user alice --system aarch64-linux", "add another machine"),
    ("init --import /etc/nixos", "take this machine over as it is"),
)
ABOUT = (
    "With --import, the text files of a folder become the host, which stays the system that they describe.",
    "Both are evaluated, and where they differ nothing is done; the plain packages are named, for the manifest.",
    "A folder has a configuration.nix, or a flake.nix whose inputs the repository has.",
    "What is in the folder can then be read by whoever may read the repository: keep secrets out of it.",
)
ANSWER = "Transaction"
PARAMETERS = (("files", "folder"),)


def arguments(parser: ArgumentParser) -> None:
    """The host and what it is; the URLs matter for a new repository only."""
    mutation_flags(parser)
    parser.add_argument("--user", metavar="USER", help="the primary user; by default you")
    parser.add_argument("--system", metavar="SYSTEM", help="the Nix system, such as aarch64-linux")
    parser.add_argument("--profile", metavar="PROFILE", help="minimal, or desktop for a graphical machine")
    parser.add_argument("--nixpkgs", metavar="URL", help="flake URL of nixpkgs")
    parser.add_argument("--core", metavar="URL", help="flake URL of glixos-core")
    parser.add_argument("--import", dest="folder", metavar="FOLDER", help="take over a folder such as /etc/nixos")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="with --import: leave files out, such as *.png",
    )
    parser.add_argument("--home-manager", metavar="URL|none", help="flake URL of home-manager, or none")


def run(options: Namespace, client: Client) -> int:
    """Init."""
    parameters = given(
        user=options.user,
        system=options.system,
        profile=options.profile,
        nixpkgs=options.nixpkgs,
        core=options.core,
        home_manager=options.home_manager,
    )
    if options.exclude and options.folder is None:
        raise UsageError("--exclude says what --import leaves out.")
    if options.folder is not None:
        from glixctl import folder  # every other start does without it

        parameters["files"], left_out = folder.texts(options.folder, options.exclude)
        if left_out and not options.quiet:
            output.note(f"left out: {output.escape(', '.join(left_out))}")
    return mutate(options, client, "Init", parameters)
