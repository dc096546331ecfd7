# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: which verb is meant, and what its flags say. Flags stand in any order, before or after the verb.

Plain command lines do not come here: see `plain`. Only the parser of the verb that is named is built. The words are first parted into flags and others by that parser's own
table, so that `--host list list` and `add firefox --scope=home git` mean what they say.
"""

from __future__ import annotations

import argparse
import sys

from glixctl import commands, output
from glixctl.errors import UsageError
from glixctl.plain import common_flags
from glixctl.spelling import Spelling

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import NoReturn

    from glixctl.commands import Command

PROGRAM = "glixctl"
HELP = ("-h", "--help")
VERSION = ("-v", "--version")


def parse(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command that `words` name, and its options; prints help and raises SystemExit where they ask for it."""
    if (found := find(words)) is None:
        return _without_verb(words)
    parser, parted = found.parser, found.parted
    if parted.unknown:
        raise _no_flag(parser, words[parted.unknown[0]].partition("=")[0])
    options = _options(parser, parted.flags, found.arguments)
    if found.command.NAME == "help" and options.topic and options.topic[0] not in commands.TASKS:
        if options.topic[0] not in commands.VERBS:
            raise _unknown("verb or task", options.topic[0], (*commands.TASKS, *commands.VERBS))
        return parse([*options.topic, HELP[0]])
    options.spelling = Spelling(parser.actions, dict(getattr(found.command, "PARAMETERS", ())), options)
    return found.command, options


class Found:
    """A command that was recognised in a command line, and the words that are left for it."""

    def __init__(self, command: Command, parser: Parser, parted: Parted, words: Sequence[str], verb: int) -> None:
        self.command = command
        self.parser = parser
        self.parted = parted
        self.arguments = [words[index] for index in parted.others[verb:]]
        """The words that are neither flags nor the verb."""


def find(words: Sequence[str]) -> Found | None:
    """The command that `words` name, if they name one."""
    for command, names in _candidates(words):
        parser = parser_of(" ".join(words[index] for index in names), command)
        parted = Parted(parser.table, words)
        if parted.others[: len(names)] == names and not any(index < names[-1] for index in parted.unknown):
            return Found(command, parser, parted, words, len(names))
    return None


def parser_of(verb: str, command: Command) -> Parser:
    """The parser of a command, which knows its arguments, its flags and its help."""
    about = "\n\n".join([_sentence(command.SUMMARY), *getattr(command, "ABOUT", ())])
    examples = [f"  {PROGRAM} {example}\n      {what}" for example, what in command.EXAMPLES]
    parser = Parser(f"{PROGRAM} {verb}", about, "\n".join(["examples:", *examples]))
    command.arguments(parser)
    common_flags(parser)
    return parser


def every_flag() -> dict[str, argparse.Action]:
    """The flags of all verbs; loads every one of them."""
    outside = Parser(PROGRAM, "")
    outside.add_argument(*VERSION, action="store_true", help="print the version of this client")
    table = dict(outside.table)
    for verb in commands.VERBS:
        for name, command in commands.members(verb):
            table = {**parser_of(name, command).table, **table}
    return table


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors, and does not load what only its help needs."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=_Formatter, allow_abbrev=False
        )

    @property
    def table(self) -> Mapping[str, argparse.Action]:
        """The flags it knows."""
        return self._option_string_actions

    @property
    def actions(self) -> list[argparse.Action]:
        """The arguments and the flags it takes."""
        return self._actions

    @property
    def positionals(self) -> list[argparse.Action]:
        """The arguments it takes, in order."""
        return self._get_positional_actions()

    def error(self, message: str) -> NoReturn:
        """Refuse the command line in a sentence."""
        raise UsageError(_in_words(message), f"`{self.prog} --help` shows how it is used.")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse a value that is none of the choices, with the nearest one."""
        if action.choices is not None and value not in action.choices:
            from difflib import get_close_matches

            known = [str(choice) for choice in action.choices]
            near = get_close_matches(str(value), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"It can be: {', '.join(known)}."
            name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
            raise UsageError(f"{name} can't be {value}.", hint)


def _in_words(message: str) -> str:
    """What argparse says, as glixctl says it."""
    begin, found, names = message.partition("the following arguments are required: ")
    if found and not begin:
        return f"{names} is missing."
    said = message.removeprefix("argument ")
    name, found, _ = said.partition(": expected one argument")
    return f"{name} needs a value." if found else f"{said.rstrip('.')}."


class _Formatter(argparse.HelpFormatter):
    """The layout of help; argparse asks for one with every argument, and its own loads `shutil` to find the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=(output.terminal_columns(sys.stdout) or 80) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill each line on its own, so that paragraphs stay apart; one that is indented stays as it is."""
        fill = super()._fill_text
        return "\n".join(line if line[:1] in ("", " ") else fill(line, width, indent) for line in text.splitlines())


class Parted:
    """The words of a command line, parted by a table of flags into flags with their values, and others."""

    def __init__(self, table: Mapping[str, argparse.Action], words: Sequence[str]) -> None:
        self.flags: list[str] = []
        self.others: list[int] = []
        self.unknown: list[int] = []
        self.unfinished: argparse.Action | None = None
        """The flag at the end that still wants its value."""
        self.literal = False
        """Whether `--` came, after which nothing is a flag."""
        self._table = table
        indices = iter(range(len(words)))
        for index in indices:
            self._place(index, words, indices)

    def _place(self, index: int, words: Sequence[str], indices: Iterator[int]) -> None:
        word = words[index]
        if word == "--":
            self.literal = True
            self.others.extend(indices)
        elif not word.startswith("-") or word == "-":
            self.others.append(index)
        elif (action := self._table.get(word.partition("=")[0])) is None:
            self.unknown.append(index)
        elif "=" not in word and _takes_the_next(action, words[index + 1 : index + 2]):
            self._take(action, word, words, next(indices, None))
        else:
            self.flags.append(word)

    def _take(self, action: argparse.Action, word: str, words: Sequence[str], value: int | None) -> None:
        if value is None:
            self.unfinished = action
        self.flags.append(word if value is None else f"{word}={words[value]}")


def _takes_the_next(action: argparse.Action, following: Sequence[str]) -> bool:
    """Whether what follows a flag is its value; where it may do without one, another flag is none."""
    if action.nargs == "?":
        return bool(following) and not following[0].startswith("-") and following[0] not in commands.VERBS
    return action.nargs is None


def _candidates(words: Sequence[str]) -> Iterator[tuple[Command, list[int]]]:
    """Each word that may be the verb, or each pair that may be a group and its action."""
    for index, word in enumerate(words):
        if word == "--":
            return
        if word not in commands.VERBS:
            continue
        module = commands.load(word)
        actions = getattr(module, "ACTIONS", None)
        if actions is None:
            yield module, [index]
            continue
        for later in range(index + 1, len(words)):
            for action in actions:
                if words[later] == action.NAME:
                    yield action, [index, later]


def _options(parser: Parser, flags: Sequence[str], others: Sequence[str]) -> argparse.Namespace:
    options, left = parser.parse_known_args([*flags, "--", *others] if others else flags)
    if extra := [word for word in left if word != "--"]:
        raise UsageError(f"{extra[0]} is one argument too many.", f"`{parser.prog} --help` shows how it is used.")
    return options


def _without_verb(words: Sequence[str]) -> NoReturn:
    """Answer a command line that names no command: help, the version, or what is wrong with it."""
    table = every_flag()
    parted = Parted(table, words)
    others = [words[index] for index in parted.others]
    unknown = words[parted.unknown[0]].partition("=")[0] if parted.unknown else ""
    if unknown and parted.unknown < parted.others[:1]:
        raise _unknown("option", unknown, table)
    if others:
        _refuse(others, parted)
    if unknown:
        raise _unknown("option", unknown, table)
    if any(word in HELP for word in words):
        from glixctl.commands import help as help_verb

        help_verb.print_overview()
        raise SystemExit(0)
    if any(word in VERSION for word in words):
        from glixd.protocol import COMMIT
        from glixd.protocol import VERSION as NUMBER

        print(f"{PROGRAM} {NUMBER} ({COMMIT})")
        raise SystemExit(0)
    raise UsageError("Which verb?", f"`{PROGRAM} --help` lists them.")


def _refuse(others: Sequence[str], parted: Parted) -> NoReturn:
    """Say what is wrong with a command line whose words, without its flags, are `others`."""
    verb = others[0]
    if verb not in commands.VERBS:
        raise _unknown("verb", verb, commands.VERBS)
    members = dict(commands.members(verb))
    name = verb if verb in members else " ".join(others[:2])
    if name in members:
        parser = parser_of(name, members[name])
        raise _no_flag(
            parser, next(flag for word in parted.flags if (flag := word.partition("=")[0]) not in parser.table)
        )
    actions = [member.NAME for member in members.values()]
    if len(others) > 1:
        raise _unknown(f"action of {verb}", others[1], actions)
    if any(word in HELP for word in parted.flags):
        from glixctl.commands import help as help_verb

        help_verb.print_group(verb)
        raise SystemExit(0)
    raise UsageError(f"{verb} needs one of: {', '.join(actions)}.", f"`{PROGRAM} {verb} --help` says what they do.")


def _no_flag(parser: Parser, flag: str) -> UsageError:
    """The error about a flag that a command does not have: another one's, or nobody's."""
    if flag not in every_flag():
        return _unknown("option", flag, parser.table)
    verb = parser.prog.removeprefix(f"{PROGRAM} ")
    return UsageError(f"{verb} takes no {flag}.", f"`{parser.prog} --help` lists its flags.")


def _unknown(what: str, word: str, known: Iterable[str]) -> UsageError:
    """The error about a word that nobody knows, with the nearest ones."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"`{PROGRAM} --help` lists what there is."
    return UsageError(f"There is no {what} {word}.", hint)


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:] + "."
