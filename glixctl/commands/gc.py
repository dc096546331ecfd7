# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl gc`: delete old generations, and what nothing uses any more."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, report
from glixctl.progress import Progress
from glixd.protocol import SUCCEEDED

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from glixctl.client import Client

NAME = "gc"
SUMMARY = "delete what nothing uses any more, and old generations where you say so"
ABOUT = (
    "Without a flag it deletes no generation of a profile, only what no generation, result link or program uses.",
    "With both --keep and --older-than, a generation goes when neither spares it. The current one always stays.",
)
EXAMPLES = (
    ("gc --dry-run", "how much would be freed"),
    ("gc --older-than 30d --keep 3", "delete generations out of use for a month, but keep the newest three"),
    ("gc --delete-old", "delete all generations but the current ones"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """Which generations go."""
    parser.add_argument("--keep", type=count, metavar="N", help="delete all generations but the newest so many")
    parser.add_argument("--older-than", metavar="DAYS", help="delete generations out of use for so long, such as 30d")
    parser.add_argument("--delete-old", action="store_true", help="delete all generations but the current ones")
    parser.add_argument("--roots", action="store_true", help="list what keeps the rest alive")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deleted and delete nothing")
    parser.add_argument("--reason", metavar="TEXT", help="why, in one line; part of the transaction")


def run(options: Namespace, client: Client) -> int:
    """CollectGarbage."""
    parameters = given(
        keep=options.keep,
        older_than=options.older_than,
        delete_old=options.delete_old,
        dry_run=options.dry_run,
        reason=options.reason,
    )
    progress = Progress(quiet=options.quiet)
    try:
        transaction = client.run("CollectGarbage", parameters, progress)
    finally:
        progress.clear()
    garbage = (transaction.get("outcome") or {}).get("garbage") or {}
    if not options.json and transaction["state"] == SUCCEEDED:
        _print("generations", garbage.get("generations") or () if not options.quiet else ())
        _print("kept alive by", garbage.get("roots") or () if options.roots else ())
    return report(options, transaction)


def _print(title: str, lines: Sequence[object]) -> None:
    if lines:
        output.line(f"{title}:")
    for text in lines:
        output.line(f"  {output.escape(text)}")
