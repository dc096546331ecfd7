# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl history`: the commits of the repository, the newest first."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, host_flag, pages
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from typing import Any

    from glixctl.client import Client

NAME = "history"
SUMMARY = "list the commits, the newest first, of all or of one package"
EXAMPLES = (
    ("history", "the last fifty commits"),
    ("history firefox", "every commit that changed firefox on this machine"),
    ("history --host pi --long", "what was changed on another host, with who, why and in which transaction"),
    ("history --limit 5 --before 1a2b3c4", "five commits before a certain one"),
)
ANSWER = "Histories"


def arguments(parser: ArgumentParser) -> None:
    """Of what, and how far back."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="only commits that changed this package")
    host_flag(parser)
    parser.add_argument("--long", action="store_true", help="show everything that is known of each commit")
    parser.add_argument("--limit", type=count, default=50, metavar="N", help="at most so many (50)")
    parser.add_argument("--before", metavar="COMMIT", help="only commits before this one")


def run(options: Namespace, client: Client) -> int:
    """History, page by page."""
    parameters = given(before=options.before, host=options.host, name=options.name)
    answer = pages(client, "History", parameters, items="entries", cursor="before", limit=options.limit)
    if options.json:
        output.document(answer)
        return Exit.DONE
    if options.long:
        _print_long(answer["entries"])
        return Exit.DONE
    rows = [
        (output.short(entry["commit"]), output.moment(entry["time"]), entry["author"], _subject(entry))
        for entry in answer["entries"]
    ]
    if rows:
        output.print_table(("COMMIT", "TIME (UTC)", "AUTHOR", "SUBJECT"), rows)
    elif not options.quiet:
        output.note("no commits")
    return Exit.DONE


def _subject(entry: dict[str, object]) -> str:
    reason = entry.get("reason")
    return f"{entry['subject']} — {reason}" if reason else str(entry["subject"])


def _print_long(entries: Sequence[dict[str, Any]]) -> None:
    for number, entry in enumerate(entries):
        if number:
            output.line("")
        uid = entry.get("uid")
        output.print_fields(
            {
                "commit": entry["commit"],
                "time": output.moment(entry["time"]),
                "author": entry["author"] if uid is None else f"{entry['author']} ({uid})",
                "subject": entry["subject"],
                "reason": entry.get("reason"),
                "transaction": entry.get("transaction"),
            }
        )
        for text in (entry.get("body") or "").splitlines():
            output.line(f"  {output.escape(text)}".rstrip())
