# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of glixctl, one module each; a module is loaded when its verb is named.

A command has `NAME`, `SUMMARY`, `EXAMPLES`, `ANSWER`, `arguments(parser)` and `run(options, client) -> int`: arguments in,
one call, one print. It may have `ABOUT`, a tuple of paragraphs that its help shows below the summary,
and `PARAMETERS`, which says where its arguments are kept under other names than those of the daemon's table. A group has `NAME`,
`SUMMARY` and `ACTIONS`, a tuple of commands that follow its name. `ping` shows the shape. A new verb is a file here and a
word in `TASKS`. The words that stand for arguments choose what completes them: see glixctl/complete.py.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Protocol

    from glixctl.client import Client

    class Command(Protocol):
        """What stands behind a verb, or behind an action of a group."""

        @property
        def NAME(self) -> str:  # noqa: N802 - a constant of a module
            """The word on the command line."""

        @property
        def SUMMARY(self) -> str:  # noqa: N802 - a constant of a module
            """What it does, in a few words."""

        @property
        def EXAMPLES(self) -> tuple[tuple[str, str], ...]:  # noqa: N802 - a constant of a module
            """Command lines without the name of the program, each with what it does."""

        @property
        def ANSWER(self) -> str:  # noqa: N802 - a constant of a module
            """The value of the daemon's table that `--json` prints; empty for what prints none."""

        def arguments(self, parser: ArgumentParser) -> None:
            """Declare arguments and flags."""

        def run(self, options: Namespace, client: Client) -> int:
            """Make the call, print the answer and return the exit code."""


TASKS = {
    "install": (
        "Install and remove packages",
        ("add", "remove", "enable", "disable", "set", "move", "update", "apply", "search", "import", "resolve"),
    ),
    "switch": ("Switch the machine, and go back", ("rebuild", "system", "generations")),
    "undo": ("See what was changed, undo it, and stop a change", ("history", "diff", "rollback", "transaction")),
    "look": ("Look at what is there", ("list", "show", "info", "inputs")),
    "machines": ("Set machines up", ("init", "host", "registry", "gc")),
    "edit": ("Edit the files of the repository", ("clone", "push", "adopt", "regen")),
    "trouble": ("Find out what is wrong", ("doctor", "ping", "version")),
    "glixctl": ("Get to know this program", ("help", "completion")),
}
"""The verbs by what somebody wants to do."""

VERBS = tuple(verb for _, verbs in TASKS.values() for verb in verbs)


def load(verb: str) -> ModuleType:
    """The module of a verb, which is a command or a group."""
    name = f"glixctl.commands.{verb}"
    __import__(name)  # `importlib` would cost every start
    return sys.modules[name]


def members(verb: str) -> Iterator[tuple[str, Command]]:
    """The commands behind a verb, each with all of its words: the verb itself, or every action of a group."""
    module = load(verb)
    actions = getattr(module, "ACTIONS", None)
    if actions is None:
        yield verb, module
    for action in actions or ():
        yield f"{verb} {action.NAME}", action
