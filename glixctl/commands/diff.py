# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl diff`: what people edited since the last commit, or what differs between commits."""

from __future__ import annotations

from glixctl import output
from glixctl.commands import generations
from glixctl.commands._common import generation, given, host_flag
from glixctl.errors import UsageError
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from glixctl.client import Client

NAME = "diff"
SUMMARY = "compare the work tree with a commit, or two commits"
ABOUT = (
    "Without a commit, it shows what was edited by hand since the last one, in every file that git tracks.",
    "With one, it shows what differs from it now; with two, what differs between them.",
    "Numbers are generations of the machine: then it shows packages, versions and sizes.",
    "On a terminal the answer goes through $PAGER, if that is set.",
)
EXAMPLES = (
    ("diff", "what was edited by hand and is in no commit yet"),
    ("diff 1a2b3c4", "everything that changed since a commit"),
    ("diff 11 12", "which packages differ between two generations"),
    ("diff 1a2b3c4 5d6e7f8 --host pi", "what two commits differ in on one host"),
)
ANSWER = "Difference"
PARAMETERS = (("older", "before"), ("newer", "commit"))


def arguments(parser: ArgumentParser) -> None:
    """The two sides."""
    parser.add_argument("before", nargs="?", metavar="COMMIT|GENERATION", help="the older side; else the last commit")
    parser.add_argument("commit", nargs="?", metavar="COMMIT|GENERATION", help="the newer side; else the work tree")
    host_flag(parser)


def run(options: Namespace, client: Client) -> int:
    """Diff, page by page; two numbers are generations."""
    numbers = [generation(word) for word in (options.before, options.commit)]
    if numbers[0] is not None and (options.commit is None or numbers[1] is not None):
        return generations.difference(options, client, *numbers)
    if any(numbers):
        raise UsageError(
            "A generation can be compared with another generation only.", "`glixctl generations` names their commits."
        )
    parameters = given(before=options.before, commit=options.commit, host=options.host)
    answer = client.call("Diff", parameters)
    while following := answer.get("next"):
        again = {**parameters, "before": answer["before"], "after": following}
        answer = _joined(answer, client.call("Diff", again))
    if options.json:
        output.document(answer)
    elif answer["diff"]:
        output.page_diff(answer["diff"])
    elif not options.quiet:
        output.note("nothing differs" if options.before else "nothing was edited since the last commit")
    return Exit.DONE


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two pages as one; the second says whether there is another."""
    return {**second, "files": [*first["files"], *second["files"]], "diff": first["diff"] + second["diff"]}
