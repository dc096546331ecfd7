# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl generations`: the systems that the machine was switched to, and what they were built from."""

from __future__ import annotations

from glixctl import output, rebuilt
from glixctl.commands._common import count, given, host_flag
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from glixctl.client import Client

NAME = "generations"
SUMMARY = "list the systems that the machine was switched to"
ABOUT = (
    "Each is told with the commit that it was built from. One that was built by hand, from files in no commit, says so.",
    "`glixctl rollback --to NUMBER` goes back to one, and `glixctl diff NUMBER NUMBER` compares two.",
)
EXAMPLES = (
    ("generations", "all of them, the newest first"),
    ("generations --limit 5", "the last five"),
)
ANSWER = "Generations"

HEADER = ("GENERATION", "CREATED (UTC)", "COMMIT", "VERSION", "KERNEL", "SIZE", "IS", "SUBJECT")


def arguments(parser: ArgumentParser) -> None:
    """How many, and whose."""
    parser.add_argument("--limit", type=count, metavar="N", help="at most so many, the newest first")
    host_flag(parser)


def run(options: Namespace, client: Client) -> int:
    """ListGenerations."""
    answer = client.call("ListGenerations", given(host=options.host, limit=options.limit, sizes=True))
    if options.json:
        output.document(answer)
    elif answer["generations"]:
        output.print_table(HEADER, map(_row, answer["generations"]))
    elif not options.quiet:
        output.note(f"{answer['host']} has no generations yet")
    if (staged := answer.get("staged")) and not options.json:
        built = output.moment(staged["built"])
        output.line(f"staged: {output.short(staged['commit'])}, built {built}; switch to it with: glixctl rebuild")
    return Exit.DONE


def difference(options: Namespace, client: Client, older: int | None, newer: int | None) -> int:
    """DiffGenerations."""
    answer = client.call("DiffGenerations", given(host=options.host, older=older, newer=newer))
    if options.json:
        output.document(answer)
        return Exit.DONE
    output.line(f"generation {answer['older']} -> {answer['newer']} of {output.escape(answer['host'])}")
    for commit in answer.get("commits") or ():
        output.line(f"  {output.escape(commit)}")
    rebuilt.print_change(answer["change"])
    return Exit.DONE


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    marks = [word for word in ("current", "active", "booted") if one.get(word)]
    size = one.get("size")
    return (
        one["number"],
        output.moment(one["created"]),
        output.short(one.get("commit")) or "no commit",
        one.get("version") or "",
        one.get("kernel") or "",
        "" if size is None else output.size(size),
        ", ".join(marks),
        one.get("subject") or "",
    )
