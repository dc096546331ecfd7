# SPDX-License-Identifier: GPL-3.0-or-later
"""`glixctl help`: what there is, by what somebody wants to do."""

from __future__ import annotations

from glixctl import commands, output
from glixctl.errors import UsageError
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable

    from glixctl.client import Client
    from glixctl.commands import Command

NAME = "help"
SUMMARY = "explain a task or a verb"
EXAMPLES = (
    ("help", "the verbs by task"),
    ("help install", "the verbs of one task, with examples"),
    ("help transaction list", "the arguments and flags of one verb"),
)
ANSWER = ""


def arguments(parser: ArgumentParser) -> None:
    """What to explain."""
    tasks = ", ".join(commands.TASKS)
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=f"a verb, or one of the tasks {tasks}")


def run(options: Namespace, client: Client) -> int:
    """Explain a task; the help of a verb is its parser's to print."""
    if len(options.topic) > 1:
        raise UsageError(f"{options.topic[1]} is one argument too many.", "A task is one word.")
    if options.topic:
        print_task(options.topic[0])
    else:
        print_overview()
    return Exit.DONE


def print_overview() -> None:
    """Print all verbs by task."""
    output.line("usage: glixctl VERB [ARGUMENT …] [FLAG …]")
    output.line("\nManage the packages of your NixOS machines.")
    for task, (title, verbs) in commands.TASKS.items():
        output.line(f"\n{title}  (help {task})")
        _print_verbs((verb, commands.load(verb).SUMMARY) for verb in verbs)
    output.line("\n`glixctl help TASK` shows examples, `glixctl help VERB` the arguments and flags of a verb.")
    output.line("Flags stand in any order, before or after the verb.")


def print_task(task: str) -> None:
    """Print the verbs of a task, with their examples."""
    title, verbs = commands.TASKS[task]
    output.line(f"{title}.")
    for verb in verbs:
        _print_examples(commands.members(verb))


def print_group(verb: str) -> None:
    """Print the actions of a group."""
    group = commands.load(verb)
    output.line(f"usage: glixctl {verb} ACTION [ARGUMENT …] [FLAG …]")
    output.line(f"\n{group.SUMMARY[:1].upper()}{group.SUMMARY[1:]}.\n")
    _print_verbs((name, command.SUMMARY) for name, command in commands.members(verb))
    output.line(f"\n`glixctl {verb} ACTION --help` shows the arguments and flags of an action.")


def _print_verbs(verbs: Iterable[tuple[str, str]]) -> None:
    for text in output.table(("", ""), verbs)[1:]:
        output.line(f"  {text}")


def _print_examples(members: Iterable[tuple[str, Command]]) -> None:
    for name, command in members:
        output.line(f"\n{name}: {command.SUMMARY}")
        for example, what in command.EXAMPLES:
            output.line(f"  glixctl {example}\n      {what}")
