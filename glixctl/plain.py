# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain command lines, read without argparse: the verb first, then flags that it has and as many arguments as it takes.

Verbs declare what they take to argparse, which takes 6 of the 24 ms of a short command to load and to build. What they
declare is noted here instead, and is enough for a command line with nothing wrong. For every other one – help, a mistake,
a flag before the verb – the answer here is None, and `cli` reads it with argparse, whose reading of plain ones is the same.
"""

from __future__ import annotations

from glixctl import commands
from glixctl.client import MODES, TRANSPORTS
from glixctl.spelling import Spelling

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from glixctl.commands import Command

KINDS = ("store", "store_true", "append")
"""What a flag does with its value, as argparse calls it."""
COUNTS = (None, "?", "*", "+")
"""How many words an argument takes."""
SEVERAL = ("*", "+")


def parse(words: Sequence[str]) -> tuple[Command, Namespace] | None:
    """The command that a plain command line names, and its options; None for any other."""
    found = _command(words)
    if found is None:
        return None
    command, rest = found
    declared: Any = Declared()
    try:
        command.arguments(declared)
        common_flags(declared)
        options: Any = Options(declared.read(rest))
    except Exception:  # noqa: BLE001 - whatever does not fit, argparse says what is wrong with it
        return None
    options.spelling = Spelling(declared.actions, dict(getattr(command, "PARAMETERS", ())), options)
    return command, options


def common_flags(parser: ArgumentParser) -> None:
    """The flags of every verb."""
    group = parser.add_argument_group("with every verb")
    group.add_argument("--json", action="store_true", help="print the answer as one JSON document")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress, notes or confirmation")
    group.add_argument("--no-ask", action="store_true", help="never ask for a password")
    group.add_argument("--mode", choices=MODES, help="your own daemon, or the system's")
    group.add_argument("--dir", metavar="DIR", help="another repository of yours")
    group.add_argument("--transport", choices=TRANSPORTS, help="how the daemon is asked")


def _command(words: Sequence[str]) -> tuple[Command, Sequence[str]] | None:
    """The command that the first words name, and the words behind them."""
    if not words or words[0] not in commands.VERBS or words[0] == "help":
        return None
    module = commands.load(words[0])
    actions = getattr(module, "ACTIONS", None)
    if actions is None:
        return module, words[1:]
    for action in actions:
        if words[1:2] == [action.NAME]:
            return action, words[2:]
    return None


class Unfit(Exception):
    """A command line, or a declaration, that is none of the plain ones."""


class Options:
    """What a command line says, as argparse's namespace would hold it; `types` would cost a third of a millisecond."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


class Argument:
    """One flag or argument, as a verb declared it; what argparse has of it too is called as there."""

    __slots__ = ("choices", "count", "default", "dest", "kind", "metavar", "option_strings", "required", "type")

    def __init__(self, names: Sequence[str], options: dict[str, Any]) -> None:
        long = next((name for name in names if name.startswith("--")), names[0])
        self.option_strings = names if names[0].startswith("-") else ()
        self.metavar = options.pop("metavar", None)
        self.kind = options.pop("action", "store")
        self.count = options.pop("nargs", None)
        self.dest = options.pop("dest", long.lstrip("-").replace("-", "_"))
        self.default = options.pop("default", False if self.kind == "store_true" else None)
        self.type: Callable[[str], Any] = options.pop("type", str)
        self.choices = options.pop("choices", None)
        self.required = options.pop("required", False)
        if options.keys() - {"help"} or self.kind not in KINDS or self.count not in COUNTS:
            raise Unfit

    def value(self, word: str) -> Any:
        """What a word means; raises whatever the type of the value raises."""
        value = self.type(word)
        if self.choices is not None and value not in self.choices:
            raise Unfit
        return value


class Declared:
    """What a verb takes. It is told in the words of argparse, as far as the verbs use them."""

    def __init__(self) -> None:
        self._flags: dict[str, Argument] = {}
        self._arguments: list[Argument] = []

    @property
    def actions(self) -> list[Any]:
        """The arguments and the flags."""
        return [*self._arguments, *self._flags.values()]

    def add_argument_group(self, _title: str) -> Declared:
        """Groups matter to help alone."""
        return self

    def add_argument(self, *names: str, **options: Any) -> None:
        """Note a flag or an argument."""
        argument = Argument(names, options)
        if argument.option_strings:
            self._flags.update(dict.fromkeys(names, argument))
        else:
            self._arguments.append(argument)

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """The values of all flags and arguments; raises where a command line is not plain."""
        values = {one.dest: one.default for one in (*self._flags.values(), *self._arguments)}
        given: set[str] = set()
        others: list[str] = []
        left = iter(words)
        for word in left:
            if word.startswith("-"):
                flag = self._flag(word, left, values)
                given.add(flag.dest)
            else:
                others.append(word)
        if any(flag.required and flag.dest not in given for flag in self._flags.values()):
            raise Unfit
        self._place(others, values)
        return values

    def _flag(self, word: str, left: Iterator[str], values: dict[str, Any]) -> Argument:
        """Take a flag, and the word behind it where it has a value."""
        name, equals, text = word.partition("=")
        flag = self._flags[name]
        if flag.count is not None or (equals and (flag.kind == "store_true" or not name.startswith("--"))):
            raise Unfit
        if flag.kind == "store_true":
            values[flag.dest] = True
        else:
            value = flag.value(text if equals else next(left))
            values[flag.dest] = value if flag.kind == "store" else [*(values[flag.dest] or ()), value]
        return flag

    def _place(self, others: list[str], values: dict[str, Any]) -> None:
        """Give the words that are no flags to the arguments, in order; what may take several stands last."""
        for number, argument in enumerate(self._arguments, 1):
            if argument.count in SEVERAL:
                if number < len(self._arguments) or (argument.count == "+" and not others):
                    raise Unfit
                values[argument.dest] = [argument.value(word) for word in others] if others else argument.default or []
                return
            if others:
                values[argument.dest] = argument.value(others.pop(0))
            elif argument.count is None:
                raise Unfit
        if others:
            raise Unfit
