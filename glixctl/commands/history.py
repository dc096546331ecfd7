# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl history`: the commits of the repository, the newest first."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, pages
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "history"
SUMMARY = "list the commits, the newest first"
EXAMPLES = (
    ("history", "the last fifty commits"),
    ("history --limit 5 --before 1a2b3c4", "five commits before a certain one"),
)
ANSWER = "Histories"


def arguments(parser: ArgumentParser) -> None:
    """How far back."""
    parser.add_argument("--limit", type=count, default=50, metavar="N", help="at most so many (50)")
    parser.add_argument("--before", metavar="COMMIT", help="only commits before this one")


def run(options: Namespace, client: Client) -> int:
    """History, page by page."""
    parameters = given(before=options.before)
    answer = pages(client, "History", parameters, items="entries", cursor="before", limit=options.limit)
    if options.json:
        output.document(answer)
        return Exit.DONE
    rows = [
        (output.short(entry["commit"]), output.moment(entry["time"]), entry["author"], _subject(entry))
        for entry in answer["entries"]
    ]
    output.print_table(("COMMIT", "TIME (UTC)", "AUTHOR", "SUBJECT"), rows)
    return Exit.DONE


def _subject(entry: dict[str, object]) -> str:
    reason = entry.get("reason")
    return f"{entry['subject']} — {reason}" if reason else str(entry["subject"])
