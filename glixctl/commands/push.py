# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl push`: put the commits of a clone on top of the repository."""

from __future__ import annotations

from glixctl import output
from glixctl.commands._common import given, mutate, mutation_flags_without_host
from glixctl.errors import ClientError
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "push"
SUMMARY = "put the commits of a clone on top of the repository"
ABOUT = (
    "Where the repository has moved on, the commits are put on top of it. They keep their authors and their words, and say who brought them; the clone then follows them.",
)
EXAMPLES = (
    ("push", "the commits of the clone that you are in"),
    ("push --dry-run", "what would change, all commits together"),
)
ANSWER = "Transaction"


def arguments(parser: ArgumentParser) -> None:
    """From where."""
    parser.add_argument("--folder", metavar="FOLDER", default=".", help="the clone; by default the one that you are in")
    mutation_flags_without_host(parser)


def run(options: Namespace, client: Client) -> int:
    """Push, and let the clone follow."""
    from glixctl import clone  # which runs git

    folder = clone.top(options.folder)
    branch = clone.fetch(client, folder)
    newest = f"{clone.TRACKING}/{branch}"
    mine = clone.git(folder, "rev-parse", "HEAD")
    if not clone.git(folder, "rev-list", "--max-count=1", f"{newest}..HEAD"):
        output.note("there is nothing to push: the repository has every commit of this clone")
        return Exit.NOTHING_TO_DO
    if clone.git(folder, "status", "--porcelain", "--untracked-files=no"):
        output.note("what is not committed here stays here")
    base = clone.git(folder, "merge-base", newest, "HEAD")
    code = mutate(options, client, "Push", given(upload=clone.send(client, folder, base)))
    if not options.dry_run:
        _follow(client, folder, branch, mine, done=code == Exit.DONE)
    return code


def _follow(client: Client, folder: str, branch: str, mine: str, *, done: bool) -> None:
    """Bring the clone to the newest state, where that takes nothing from the person."""
    from glixctl import clone

    clone.fetch(client, folder)
    if not done:
        return
    try:
        if clone.git(folder, "rev-parse", "HEAD") == mine:
            clone.git(folder, "reset", "--quiet", "--keep", f"{clone.TRACKING}/{branch}")
            return
    except ClientError:
        pass
    output.note(f"this clone has changes of its own; bring it up to date with: git rebase {clone.REMOTE}/{branch}")
