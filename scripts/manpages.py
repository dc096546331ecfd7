#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the manual pages from the parsers of both programs: scripts/manpages.py [FOLDER], by default docs/man.

There are libraries that turn a parser into a manual page, but they want one parser with all verbs below it. glixctl builds
the parser of the verb that is named and no other, because that is what its start-up costs; so the pages are written here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic_core import PydanticUndefined

from glixctl import cli, commands
from glixd import __main__ as daemon
from glixd.protocol import SYSTEM_REPOSITORY, SYSTEM_SOCKET, Exit
from glixd.settings import PREFIX, Settings

if TYPE_CHECKING:
    from glixctl.commands import Command

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "man"
ORIGIN: Final = '.\\" Written by scripts/manpages.py from the parsers of glixctl and glixd.'
LICENCE: Final = '.\\" SPDX-License-Identifier: GPL-3.0-or-later'
SHARED: Final = "with every verb"

EXITS: Final[Mapping[int, str]] = {
    Exit.DONE: "It is done.",
    Exit.FAILED: "It failed.",
    Exit.USAGE: "The command line is not understood.",
    Exit.NOT_AUTHORISED: "You may not do that.",
    Exit.NOT_FOUND: "There is no such host, package, transaction or repository.",
    Exit.REFUSED: "It contradicts what is there, or the input is refused.",
    Exit.UNREACHABLE: "The daemon can't be asked, or another machine is not reached.",
    Exit.NOTHING_TO_DO: "There is nothing to do.",
    Exit.UNITS_FAILED: "The system was switched, and units failed.",
    Exit.REBOOT_NEEDED: "The change needs a reboot to take effect.",
    Exit.DISMISSED: "You were asked and did not say yes.",
    Exit.TIMED_OUT: "Nobody answered the password dialogue in time.",
    Exit.UNAVAILABLE: "Nobody can be asked for authorisation.",
    Exit.INTERRUPTED: "It was interrupted, or the transaction was cancelled.",
}

ENVIRONMENT: Final = {
    "GLIX_MODE": "user or system: whose daemon is asked, where --mode does not say it.",
    "GLIX_ROOT": "The repository of user mode; by default $XDG_CONFIG_HOME/glixos.",
    "NIX_SSHOPTS": "Options for ssh to other machines, before those of glixctl.",
    "NO_COLOR": "Where it is set to anything, nothing is coloured.",
    "COLUMNS": "The width of the terminal, where it is not to be found out.",
}

FILES: Final = {
    "~/.config/glixos": "The repository of user mode.",
    "$XDG_RUNTIME_DIR/glixd/rpc.sock": "The socket of your own daemon.",
    SYSTEM_REPOSITORY: "The repository of system mode.",
    SYSTEM_SOCKET: "The socket of the system's daemon.",
}


class Page:
    """A manual page that grows line by line."""

    def __init__(self, name: str, section: int, summary: str) -> None:
        self.file = f"{name}.{section}"
        self._lines = [ORIGIN, LICENCE, f'.TH {_escaped(name.upper())} {section} "" glixd "glixd manual"']
        self.section("name")
        self._lines.append(f"{_escaped(name)} \\- {_escaped(summary)}")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def section(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {_escaped(title.upper())}")

    def part(self, title: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f".SS {_escaped(title)}")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._lines.append(_line(text))

    def synopsis(self, program: str, parser: argparse.ArgumentParser) -> None:
        """Add how a program or verb is called."""
        self.section("synopsis")
        self._lines.append(f".B {_escaped(program)}")
        for action in _shown(parser):
            if action.option_strings and not action.required:
                self._lines.append(f"[{_flag(action, action.option_strings[-1])}]")
            else:
                self._lines.append(_repeated(action))

    def entry(self, term: str, text: str) -> None:
        """Add a term and what it means; the term is in roff already."""
        self._lines += [".TP", term, _line(text)]

    def entries(self, title: str, meanings: Mapping[str, str]) -> None:
        """Add a section of words and their meanings."""
        self.section(title)
        for word, meaning in meanings.items():
            self.entry(f"\\fB{_escaped(word)}\\fR", meaning)

    def see_also(self, pages: Iterable[str]) -> None:
        """Name other pages, given as name(section)."""
        self.section("see also")
        terms = []
        for page in pages:
            name, _, section = page.partition("(")
            terms.append(f"\\fB{_escaped(name)}\\fR({section}")
        self._lines.append(",\n".join(terms))


def pages() -> Iterator[Page]:
    """Every manual page."""
    yield _program()
    for verb in commands.VERBS:
        yield _group(verb) if hasattr(commands.load(verb), "ACTIONS") else _verb(verb, commands.load(verb))
    yield _daemon()


def write(folder: Path) -> None:
    """Write all pages to `folder`, and delete those of verbs that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {page.file: str(page) for page in pages()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    for old in folder.glob("*.[18]"):
        if old.name not in texts:
            old.unlink()


def _program() -> Page:
    page = Page("glixctl", 1, "manage the packages of your NixOS machines")
    page.section("synopsis")
    page.paragraph("glixctl VERB [ARGUMENT …] [FLAG …]")
    page.section("description")
    page.paragraph(
        "glixctl asks the daemon glixd to change or describe the packages of NixOS machines, which are kept in one git "
        "repository. Every change is one commit. Flags stand in any order, before or after the verb."
    )
    page.section("verbs")
    for title, verbs in commands.TASKS.values():
        page.part(title)
        for verb in verbs:
            page.entry(f"\\fBglixctl\\-{_escaped(verb)}\\fR(1)", commands.load(verb).SUMMARY)
    page.section("options")
    _options(page, cli.parser_of("ping", commands.load("ping")), SHARED)
    page.entry("\\fB\\-v\\fR, \\fB\\-\\-version\\fR", "print the version of this client")
    page.entries("exit status", {str(code): meaning for code, meaning in EXITS.items()})
    page.entries("environment", ENVIRONMENT)
    page.entries("files", FILES)
    page.see_also(["glixd(8)", "nix(1)"])
    return page


def _verb(verb: str, command: Command) -> Page:
    page = Page(f"glixctl-{verb}", 1, command.SUMMARY)
    parser = cli.parser_of(verb, command)
    page.synopsis(f"glixctl {verb}", parser)
    page.section("description")
    _description(page, command)
    _arguments(page, parser)
    _examples(page, command)
    page.see_also(["glixctl(1)"])
    return page


def _group(verb: str) -> Page:
    page = Page(f"glixctl-{verb}", 1, commands.load(verb).SUMMARY)
    members = list(commands.members(verb))
    page.section("synopsis")
    for name, _ in members:
        page.paragraph(f"glixctl {name} [ARGUMENT …] [FLAG …]")
    for name, command in members:
        page.section(name)
        _description(page, command)
        parser = cli.parser_of(name, command)
        for action in parser.positionals:
            page.entry(_repeated(action), action.help or "")
        _options(page, parser, "options")
        for example, what in command.EXAMPLES:
            page.entry(f"\\fBglixctl {_escaped(example)}\\fR", what)
    page.see_also(["glixctl(1)"])
    return page


def _daemon() -> Page:
    parser = daemon._parser()
    page = Page("glixd", 8, "the package daemon of NixOS")
    page.synopsis("glixd", parser)
    page.section("description")
    page.paragraph(
        "glixd owns one git repository of package manifests, makes every change to it one after the other, and offers "
        "the changes over D-Bus and JSON-RPC. In system mode polkit decides who may do what; in user mode the daemon "
        "serves the user that started it and nobody else, and glixctl starts it when it is needed."
    )
    page.section("options")
    _options(page, parser, "options")
    page.section("configuration")
    page.paragraph(
        "The file is TOML: /etc/glixd/config.toml in system mode, $XDG_CONFIG_HOME/glixd/config.toml in user mode. "
        f"Unknown keys are refused. A variable named {PREFIX} and the key in capitals beats the file, and an option beats both."
    )
    for name, field in Settings.model_fields.items():
        default = field.default
        given = "" if default is PydanticUndefined or default is None else f" Default: {_toml(default)}."
        page.entry(
            f"\\fB{_escaped(name)}\\fR", f"{field.description or 'Whose daemon this is: user or system.'}{given}"
        )
    page.see_also(["glixctl(1)"])
    return page


def _description(page: Page, command: Command) -> None:
    page.paragraph(_sentence(command.SUMMARY))
    for paragraph in getattr(command, "ABOUT", ()):
        page.paragraph(paragraph)


def _arguments(page: Page, parser: cli.Parser) -> None:
    if parser.positionals:
        page.section("arguments")
        for action in parser.positionals:
            page.entry(_repeated(action), action.help or "")
    page.section("options")
    _options(page, parser, "options")
    page.part(SHARED.capitalize())
    _options(page, parser, SHARED)


def _examples(page: Page, command: Command) -> None:
    page.section("examples")
    for example, what in command.EXAMPLES:
        page.entry(f"\\fBglixctl {_escaped(example)}\\fR", what)


def _options(page: Page, parser: argparse.ArgumentParser, group: str) -> None:
    """The flags of one group of a parser; `options` are those that are in no group of their own."""
    for action in _shown(parser):
        if action.option_strings and _group_of(parser, action) == group:
            names = ", ".join(_flag(action, name) for name in action.option_strings)
            page.entry(names, action.help or "")


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _group_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return next(str(group.title) for group in parser._action_groups if action in group._group_actions)


def _flag(action: argparse.Action, name: str) -> str:
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return f"\\fB{_escaped(name)}\\fR{value}"


def _repeated(action: argparse.Action) -> str:
    match action.nargs:
        case "+":
            return f"{_value(action)} …"
        case "*":
            return f"[{_value(action)} …]"
        case "?":
            return f"[{_value(action)}]"
        case _:
            return _value(action)


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(f"\\fB{_escaped(str(choice))}\\fR" for choice in action.choices)
    return f"\\fI{_escaped(str(action.metavar or action.dest))}\\fR"


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _line(text: str) -> str:
    """A line of text, which is no request whatever it begins with."""
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
