# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl show`: everything that is known of one package."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import given, host_flag, note_health
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "show"
SUMMARY = "show one package with everything that is known of it"
EXAMPLES = (
    ("show firefox", "one package of this machine"),
    ("show firefox --host pi", "the same on another host"),
)
ANSWER = "PackageDetails"


def arguments(parser: ArgumentParser) -> None:
    """The package."""
    parser.add_argument("name", metavar="NAME", help="a package, as the manifest calls it")
    host_flag(parser)


def run(options: Namespace, client: Client) -> int:
    """Show."""
    package = client.call("Show", {"name": options.name, **given(host=options.host)})
    if options.json:
        output.document(package)
        return Exit.DONE
    output.print_fields(
        {
            "name": package["name"],
            "host": package["host"],
            "state": "enabled" if package["enabled"] else "disabled",
            "scope": package["scope"],
            "user": package.get("user"),
            "flake": package["flake"],
            "pin": package.get("pin"),
            "input": package.get("input"),
            "url": package.get("url"),
            "attribute": package.get("attribute"),
            "consents": ", ".join(package.get("consents") or ()),
            "follows": None if package.get("follows", True) else "no",
            "revision": package.get("revision"),
            "modified": output.moment(package.get("modified")),
            "version": package.get("version"),
            "contributes": package.get("contributes"),
            "description": package.get("description"),
        }
    )
    if config := package.get("config"):
        output.line("config:")
        output.print_fields(config, indent="  ")
    if not options.quiet:
        note_health(package.get("health"), package["host"])
    return Exit.DONE
