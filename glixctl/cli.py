# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: which verb is meant, and what its flags say. Flags stand in any order, before or after the verb.

Only the parser of the verb that is named is built. The words are first parted into flags and others by that parser's own
table, so that `--host list list` and `add firefox --scope=home git` mean what they say.
"""

from __future__ import annotations

import argparse
import os

from glixctl import commands
from glixctl.client import MODES, TRANSPORTS
from glixctl.errors import UsageError

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
    if words[:1] == ["help"]:
        words = [*words[1:], HELP[0]]
    for command, names in _candidates(words):
        parser = _parser(command, " ".join([PROGRAM, *(words[index] for index in names)]))
        parted = _Parted(parser, words)
        if parted.others[: len(names)] == names and not any(index < names[-1] for index in parted.unknown):
            parted.refuse_unknown(words)
            return command, _options(parser, parted.flags, [words[index] for index in parted.others[len(names) :]])
    return _without_verb(words)


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors, and does not load what only its help needs."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False)

    @property
    def table(self) -> Mapping[str, argparse.Action]:
        """The flags it knows."""
        return self._option_string_actions

    def error(self, message: str) -> NoReturn:
        """Refuse the command line in a sentence."""
        raise UsageError(message, f"`{self.prog} --help` shows how it is used.")


class _Formatter(argparse.HelpFormatter):
    """The layout of help; argparse asks for one with every argument, and its own loads `shutil` to find the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_columns())


class _Parted:
    """The words of a command line, parted by the table of one parser into flags with their values, and others."""

    def __init__(self, parser: _Parser, words: Sequence[str]) -> None:
        self.flags: list[str] = []
        self.others: list[int] = []
        self.unknown: list[int] = []
        self._known = parser.table
        indices = iter(range(len(words)))
        for index in indices:
            self._place(index, words, indices)

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Raise when a flag is in no table, with the one that was probably meant."""
        if self.unknown:
            raise _unknown("option", words[self.unknown[0]].partition("=")[0], self._known)

    def _place(self, index: int, words: Sequence[str], indices: Iterator[int]) -> None:
        word = words[index]
        if word == "--":
            self.others.extend(indices)
        elif not word.startswith("-") or word == "-":
            self.others.append(index)
        elif (action := self._known.get(word.partition("=")[0])) is None:
            self.unknown.append(index)
        else:
            value = next(indices, None) if action.nargs is None and "=" not in word else None
            self.flags.append(word if value is None else f"{word}={words[value]}")


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


def _options(parser: _Parser, flags: Sequence[str], others: Sequence[str]) -> argparse.Namespace:
    options, left = parser.parse_known_args([*flags, "--", *others] if others else flags)
    if extra := [word for word in left if word != "--"]:
        raise UsageError(f"{extra[0]} is one argument too many.", f"`{parser.prog} --help` shows how it is used.")
    return options


def _parser(command: Command, prog: str) -> _Parser:
    parser = _Parser(prog, _sentence(command.SUMMARY))
    command.arguments(parser)
    _common_flags(parser)
    return parser


def _common_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with every verb")
    group.add_argument("--json", action="store_true", help="print the answer as one JSON document")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress, notes or confirmation")
    group.add_argument("--mode", choices=MODES, help="your own daemon, or the system's")
    group.add_argument("--dir", metavar="DIR", help="another repository of yours")
    group.add_argument("--transport", choices=TRANSPORTS, help="how the daemon is asked")


def _without_verb(words: Sequence[str]) -> NoReturn:
    """Answer a command line without a known verb: help, the version, or what is wrong with it."""
    common = _Parser(PROGRAM, "")
    _common_flags(common)
    common.add_argument("--host")
    common.add_argument(*VERSION, action="store_true")
    parted = _Parted(common, words)
    if parted.unknown and parted.unknown < parted.others[:1]:
        parted.refuse_unknown(words)
    if parted.others:
        _refuse_others([words[index] for index in parted.others])
    if any(word in HELP for word in words):
        print(_overview(), end="")
        raise SystemExit(0)
    parted.refuse_unknown(words)
    if any(word in VERSION for word in words):
        from glixd.protocol import COMMIT
        from glixd.protocol import VERSION as NUMBER

        print(f"{PROGRAM} {NUMBER} ({COMMIT})")
        raise SystemExit(0)
    raise UsageError("Which verb?", f"`{PROGRAM} --help` lists them.")


def _refuse_others(others: Sequence[str]) -> NoReturn:
    verb = others[0]
    if verb not in commands.VERBS:
        raise _unknown("verb", verb, commands.VERBS)
    names = [action.NAME for action in getattr(commands.load(verb), "ACTIONS", ())]
    if len(others) > 1 and names:
        raise _unknown(f"action of {verb}", others[1], names)
    if names:
        raise UsageError(f"{verb} needs one of: {', '.join(names)}.")
    raise UsageError(f"What stands before {verb} does not belong to it.", f"`{PROGRAM} {verb} --help` lists its flags.")


def _unknown(what: str, word: str, known: Iterable[str]) -> UsageError:
    """The error about a word that nobody knows, with the nearest ones."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"`{PROGRAM} --help` lists what there is."
    return UsageError(f"There is no {what} {word}.", hint)


def _overview() -> str:
    lines = [f"usage: {PROGRAM} VERB [ARGUMENT …] [FLAG …]", "", "Manage the packages of your NixOS machines.", ""]
    lines += [f"  {verb:<12} {commands.load(verb).SUMMARY}" for verb in commands.VERBS]
    lines += ["", f"`{PROGRAM} VERB --help` shows the arguments and flags of a verb; flags stand in any order."]
    return "\n".join(lines) + "\n"


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:] + "."


def _columns() -> int:
    try:
        return os.get_terminal_size().columns - 2
    except OSError:
        return 78
