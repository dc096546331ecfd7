# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl inputs`: where packages come from, at which revision, and who uses it."""

from __future__ import annotations

from glixctl import output
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from glixctl.client import Client

NAME = "inputs"
SUMMARY = "list the inputs as they are locked, with who uses them"
EXAMPLES = (
    ("inputs", "every input, its revision, its age and its packages"),
    ("inputs --json", "the same for a script"),
)
ANSWER = "Inputs"

HEADER = ("NAME", "REVISION", "AGE", "BY", "USED BY", "URL")
SHOWN = 3
"""Packages that are named in a row of the table."""


def arguments(parser: ArgumentParser) -> None:
    """Nothing of its own."""


def run(options: Namespace, client: Client) -> int:
    """ListInputs."""
    answer = client.call("ListInputs")
    if options.json:
        output.document(answer)
    elif answer["inputs"]:
        output.print_table(HEADER, (_row(entry) for entry in answer["inputs"]))
    elif not options.quiet:
        output.note("no inputs")
    return Exit.DONE


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    return (
        entry["name"],
        output.short(entry.get("revision")),
        output.age(entry.get("age")),
        "glixd" if entry["managed"] else "you",
        _users(entry),
        entry.get("url") or "",
    )


def _users(entry: dict[str, Any]) -> str:
    """Who uses an input: its packages, or the hosts where it is everybody's."""
    names = list(entry.get("packages") or ()) if entry["managed"] else list(entry.get("hosts") or ())
    total = entry["uses"] if entry["managed"] else len(names)
    more = f" and {total - SHOWN} more" if total > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
