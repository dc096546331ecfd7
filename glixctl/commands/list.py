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
    ("list --scope home --user alice --sort flake", "what alice has, by where it comes from"),
    ("list --source github:", "the packages that have an input of their own on GitHub"),
    ("list --json", "the same for a script"),
)
ANSWER = "Packages"
PARAMETERS = (("include_disabled", "all"), ("text", "source"))

SCOPES = ("system", "home")
STATES = ("enabled", "disabled")
ORDERS = ("name", "scope", "user", "flake")
HEADER = ("HOST", "NAME", "SCOPE", "STATE", "USER", "FLAKE")


def arguments(parser: ArgumentParser) -> None:
    """Which hosts, and how much of them."""
    host_flag(parser)
    parser.add_argument("--all-hosts", action="store_true", help="list every host of the repository")
    parser.add_argument("--all", action="store_true", help="list disabled packages too")
    parser.add_argument("--scope", choices=SCOPES, help="only packages of systems, or of homes")
    parser.add_argument("--user", metavar="USER", help="only packages in the home of this user")
    parser.add_argument("--state", choices=STATES, help="only enabled, or only disabled packages")
    parser.add_argument("--source", metavar="TEXT", help="only packages with this in their name or reference")
    parser.add_argument("--sort", choices=ORDERS, help="sort over all hosts; by default host by host, by name")
    parser.add_argument("--limit", type=count, metavar="N", help="at most so many")


def run(options: Namespace, client: Client) -> int:
    """List, page by page."""
    parameters = given(
        host=options.host,
        all_hosts=options.all_hosts,
        include_disabled=options.all,
        scope=options.scope,
        user=options.user,
        state=options.state,
        text=options.source,
        sort=options.sort,
    )
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
