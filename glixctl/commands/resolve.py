# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl resolve`: what names and references mean, without changing anything."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import given, host_flag
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "resolve"
SUMMARY = "say what names and references mean, without changing anything"
EXAMPLES = (("resolve firefox", "what the name would install, and whether its source is trusted"),)
ANSWER = "Resolutions"

HEADER = ("REF", "NAME", "SOURCE", "TRUSTED", "FLAKE")


def arguments(parser: ArgumentParser) -> None:
    """The references."""
    parser.add_argument("refs", nargs="+", metavar="REF", help="a name or a flake reference")
    host_flag(parser)


def run(options: Namespace, client: Client) -> int:
    """Resolve."""
    answer = client.call("Resolve", {"refs": options.refs, **given(host=options.host)})
    if options.json:
        output.document(answer)
        return Exit.DONE
    rows = [
        (found["ref"], found["name"], found["source"], "yes" if found["trusted"] else "no", found["flake"])
        for found in answer["resolutions"]
    ]
    output.print_table(HEADER, rows)
    return Exit.DONE
