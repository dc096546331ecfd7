# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of glixctl, one module each; a module is loaded when its verb is named.

A command has `NAME`, `SUMMARY`, `arguments(parser)` and `run(options, client) -> int`: arguments in, one call, one print. A
group has `NAME`, `SUMMARY` and `ACTIONS`, a tuple of commands that follow its name. `ping` shows the shape.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
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

        def arguments(self, parser: ArgumentParser) -> None:
            """Declare arguments and flags."""

        def run(self, options: Namespace, client: Client) -> int:
            """Make the call, print the answer and return the exit code."""


VERBS = (
    "init",
    "add",
    "remove",
    "list",
    "show",
    "info",
    "enable",
    "disable",
    "history",
    "transaction",
    "regen",
    "resolve",
    "ping",
    "version",
)


def load(verb: str) -> ModuleType:
    """The module of a verb, which is a command or a group."""
    return import_module(f"glixctl.commands.{verb}")
