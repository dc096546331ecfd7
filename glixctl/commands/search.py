# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl search`: find packages that could be added."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import count, given, host_flag
from glixctl.progress import Progress
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from glixctl.client import Client

NAME = "search"
SUMMARY = "find packages that could be added"
ABOUT = (
    "The best come first: the name itself, names that begin so, words of names, words of descriptions.",
    "The daemon builds an index of the host's nixpkgs in the background; until it is there, names are all that is searched.",
)
EXAMPLES = (
    ("search firefox", "packages of that name, and what has to do with it"),
    ("search text editor --limit 50", "packages with all of these words"),
    ("search firefox --refresh", "the same, once the index is built and the registries were asked"),
)
ANSWER = "Matches"
PARAMETERS = (("query", "words"),)

PATIENCE = 3600.0
"""Seconds that --refresh waits for the index."""
HEADER = ("NAME", "VERSION", "MARKS", "DESCRIPTION")


def arguments(parser: ArgumentParser) -> None:
    """What to search for, and how much of it."""
    parser.add_argument("words", nargs="+", metavar="WORD", help="a name, or words of names and descriptions")
    host_flag(parser)
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="at most so many (20)")
    parser.add_argument("--offset", type=count, metavar="N", help="go on behind so many")
    parser.add_argument("--refresh", action="store_true", help="build the index and ask the registries first")


def run(options: Namespace, client: Client) -> int:
    """Search."""
    if options.refresh:
        _refresh(options, client)
    parameters = given(host=options.host, limit=options.limit, offset=options.offset)
    answer = client.call("Search", {"query": " ".join(options.words), **parameters})
    if options.json:
        output.document(answer)
        return Exit.DONE
    matches = answer["matches"]
    if matches:
        output.print_table(HEADER, (_row(match) for match in matches))
    if not options.quiet:
        _tell(options, answer)
    return Exit.DONE if matches else Exit.NOT_FOUND


def _refresh(options: Namespace, client: Client) -> None:
    progress = Progress(quiet=options.quiet)
    progress({"step": "asking the registries and building the index"})
    try:
        client.call("RefreshRegistries", given(host=options.host))
        status = client.call("RefreshIndex", {"timeout": PATIENCE, **given(host=options.host)})
    finally:
        progress.clear()
    if problem := status.get("problem"):
        output.warning(f"the index could not be built: {problem}")


def _tell(options: Namespace, answer: dict[str, Any]) -> None:
    if not answer["matches"]:
        near = answer.get("near") or ()
        output.note("nothing fits" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    if following := answer.get("next"):
        output.note(f"there is more; go on with --offset {following}")
    match answer["index"]:
        case "building":
            output.note("the index is being built; so far little more than names was searched")
        case "failed" | "absent":
            output.note("there is no index of these packages; names were searched. Build it with --refresh")


def _row(match: dict[str, Any]) -> tuple[object, ...]:
    marks = [mark for mark in ("installed", "unfree", "insecure", "broken") if match.get(mark)]
    if match["source"] == "registry":
        marks.insert(0, "registry")
    return (match["name"], match.get("version") or "", ",".join(marks), match.get("description") or "")
