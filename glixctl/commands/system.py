# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl system …`: the same as rebuild, generations, diff and rollback, by the names of nixos-rebuild."""

from __future__ import annotations

from glixctl.commands import generations
from glixctl.commands._common import generation, given, host_flag, mutate, mutation_flags
from glixctl.commands.rebuild import ACTIONS_OF, rebuild, rebuild_flags
from glixctl.errors import ClientError
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from glixctl.client import Client

NAME = "system"
SUMMARY = "build, switch and roll back the machine"


class _Rebuild:
    """`system ACTION`: the same as `rebuild ACTION`."""

    ANSWER = "Transaction"

    def __init__(self, action: str) -> None:
        self.NAME = action
        self.SUMMARY = f"build what is committed: {ACTIONS_OF[action]}"
        self.EXAMPLES = ((f"system {action}", f"the same as rebuild {action}"),)
        self._action = action

    def arguments(self, parser: ArgumentParser) -> None:
        """Those of rebuild, without the action."""
        rebuild_flags(parser)

    def run(self, options: Namespace, client: Client) -> int:
        """Rebuild."""
        return rebuild(options, client, self._action)


class List:
    """`system list`."""

    NAME = "list"
    SUMMARY = generations.SUMMARY
    EXAMPLES = (("system list", "the same as generations"),)
    ANSWER = "Generations"
    arguments = staticmethod(generations.arguments)
    run = staticmethod(generations.run)


class Diff:
    """`system diff`."""

    NAME = "diff"
    SUMMARY = "compare two generations: packages, versions, sizes"
    EXAMPLES = (
        ("system diff", "what the current generation changed"),
        ("system diff 11 12", "which packages differ between two generations"),
    )
    ANSWER = "GenerationDifference"

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """The two sides."""
        parser.add_argument(
            "older", nargs="?", type=_number, metavar="GENERATION", help="the older; else the one before"
        )
        parser.add_argument(
            "newer", nargs="?", type=_number, metavar="GENERATION", help="the newer; else the current one"
        )
        host_flag(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """DiffGenerations."""
        return generations.difference(options, client, options.older, options.newer)


class Rollback:
    """`system rollback`."""

    NAME = "rollback"
    SUMMARY = "go back to the generation before the current one, or to any other"
    EXAMPLES = (
        ("system rollback", "back to the generation before"),
        ("system rollback --to 12 --boot", "back to generation 12 at the next boot"),
    )
    ANSWER = "Transaction"
    PARAMETERS = (("to_generation", "to"),)

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Where to."""
        parser.add_argument(
            "--to", type=_number, metavar="GENERATION", help="the generation; by default the one before"
        )
        parser.add_argument("--boot", action="store_true", help="switch at the next boot and not now")
        mutation_flags(parser)

    @staticmethod
    def run(options: Namespace, client: Client) -> int:
        """Rollback to a generation."""
        number = options.to or _before(options, client)
        return mutate(options, client, "Rollback", given(to_generation=number, boot=options.boot))


ACTIONS = (*(_Rebuild(action) for action in ACTIONS_OF), List, Diff, Rollback)


def _number(text: str) -> int:
    number = generation(text)
    if not number:
        raise ValueError(text)
    return number


def _before(options: Namespace, client: Client) -> int:
    found = client.call("ListGenerations", given(host=options.host))["generations"]
    current = next((one["number"] for one in found if one.get("current")), 0)
    older = [one["number"] for one in found if one["number"] < current]
    if not older:
        from glixd.protocol import ErrorCode

        raise ClientError(
            "There is no generation before the current one.",
            name=ErrorCode.UNKNOWN_GENERATION,
            exit_code=Exit.NOT_FOUND,
            hint="`glixctl generations` lists them.",
        )
    return int(max(older))
