# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl add`: put packages into the manifest of a host."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import given, mutate, mutation_flags
from glixctl.progress import Progress
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "add"
SUMMARY = "add packages to a host"
ABOUT = (
    "On a terminal, what comes from a source that nobody vouched for is shown first, and added after a yes, or with --yes.",
    "In a pipe nobody is asked: it is added, and where the daemon wants a password for it, that is asked for as ever.",
)
EXAMPLES = (
    ("add firefox", "the package firefox of the host's own nixpkgs"),
    ("add firefox git --scope home", "two packages in one change, for your own home"),
    ("add github:owner/repo --pin v1.2", "a flake, kept on one tag"),
    (
        "add steam --allow-unfree",
        "a package that nixpkgs refuses unless somebody consents; nothing else of the host may be so",
    ),
    ("add firefox --dry-run", "what would be done, as a diff"),
)
ANSWER = "Transaction"
PARAMETERS = (("follows", "no_follows"),)


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
    parser.add_argument("-y", "--yes", action="store_true", help="add untrusted packages without asking")
    parser.add_argument("--allow-unfree", action="store_true", help="consent to an unfree licence")
    parser.add_argument("--allow-insecure", action="store_true", help="consent to known vulnerabilities")
    parser.add_argument("--allow-broken", action="store_true", help="consent to what is marked as broken")


def run(options: Namespace, client: Client) -> int:
    """Add, after asking where somebody can be asked."""
    if not (options.yes or options.dry_run) and output.converses() and not _wanted(options, client):
        output.note("nothing was added")
        return Exit.DISMISSED
    parameters = given(
        scope=options.scope,
        user=options.user,
        pin=options.pin,
        name=options.name,
        allow_local=options.allow_local,
        allow_unfree=options.allow_unfree,
        allow_insecure=options.allow_insecure,
        allow_broken=options.allow_broken,
    )
    if options.no_follows:
        parameters["follows"] = False
    return mutate(options, client, "Add", {"refs": options.refs, **parameters})


def _wanted(options: Namespace, client: Client) -> bool:
    """Whether everything is trusted, or the person wants it nevertheless."""
    progress = Progress(quiet=options.quiet)
    progress({"step": "looking things up"})
    try:
        answer = client.call("Resolve", {"refs": options.refs, **given(host=options.host)})
    finally:
        progress.clear()
    untrusted = [found for found in answer["resolutions"] if not found["trusted"]]
    return not untrusted or output.ask(
        "What is to be added comes from a source that nobody vouched for:",
        ("NAME", "FLAKE", "SOURCE"),
        [(found["name"], found["flake"], found["source"]) for found in untrusted],
        "Add it?",
    )
