# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl list`: the packages of a host, or of all."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, host_flag, note_health, pages
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "list"
SUMMARY = "list the packages of a host, or of all"
EXAMPLES = (
    ("list", "the enabled packages of this machine"),
    ("list --all-hosts --all", "every package of every host"),
    ("list --json", "the same for a script"),
)
ANSWER = "Packages"

HEADER = ("HOST", "NAME", "SCOPE", "STATE", "USER", "FLAKE")


def arguments(parser: ArgumentParser) -> None:
    """Which hosts, and how much of them."""
    host_flag(parser)
    parser.add_argument("--all-hosts", action="store_true", help="list every host of the repository")
    parser.add_argument("--all", action="store_true", help="list disabled packages too")
    parser.add_argument("--limit", type=count, metavar="N", help="at most so many")


def run(options: Namespace, client: Client) -> int:
    """List, page by page."""
    parameters = given(host=options.host, all_hosts=options.all_hosts, include_disabled=options.all)
    answer = pages(client, "List", parameters, items="packages", cursor="after", limit=options.limit)
    if options.json:
        output.document(answer)
        return Exit.DONE
    packages = answer["packages"]
    if packages:
        output.print_table(HEADER, (_row(package) for package in packages))
    elif not options.quiet:
        output.note("no packages")
    if not options.quiet:
        note_health(answer.get("health"), options.host)
    return Exit.DONE


def _row(package: dict[str, object]) -> tuple[object, ...]:
    state = "enabled" if package["enabled"] else "disabled"
    return (package["host"], package["name"], package["scope"], state, package.get("user") or "", package["flake"])
