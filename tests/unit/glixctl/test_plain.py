# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read without argparse means what argparse reads; what argparse refuses is left to it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glixctl import cli, commands, plain
from glixctl.errors import UsageError

COMMANDS = [member for verb in commands.VERBS for member in commands.members(verb)]
WORDS = (
    "firefox",
    "3",
    "0",
    "a=b",
    "system",
    "home",
    "user",
    "failed",
    "switch",
    "",
    "-x",
    "-",
    "--",
    "--host",
    "list",
    "x y",
)


def by_argparse(words: list[str]) -> tuple[Any, dict[str, Any]] | None:
    """The command and its options; None where argparse refuses them, or prints help."""
    try:
        command, options = cli.parse(words)
    except (UsageError, SystemExit):
        return None
    return command, _told(options)


def _told(options: Any) -> dict[str, Any]:
    """The options, and how each of them is spelt in an error."""
    values = {name: value for name, value in vars(options).items() if name != "spelling"}
    return {name: (value, options.spelling.of(name)) for name, value in values.items()}


def plainly(words: list[str]) -> tuple[Any, dict[str, Any]] | None:
    found = plain.parse(words)
    return found and (found[0], _told(found[1]))


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Command lines of every verb: right ones, and some that are not."""
    name, command = draw(st.sampled_from(COMMANDS))
    parser = cli.parser_of(name, command)
    flags = st.sampled_from([flag for flag in (*parser.table, "--unknown") if flag not in cli.HELP])
    values = [str(choice) for one in (*parser.table.values(), *parser.positionals) for choice in one.choices or ()]
    word = st.sampled_from([*WORDS, *values])
    pieces = st.one_of(
        st.tuples(word),
        st.tuples(flags),
        st.tuples(flags, word),
        st.builds(lambda flag, value: (f"{flag}={value}",), flags, word),
    )
    return [*name.split(), *(part for piece in draw(st.lists(pieces, max_size=5)) for part in piece)]


@settings(max_examples=600, deadline=None)
@given(lines())
def test_a_plain_line_is_read_as_argparse_reads_it_and_no_other_is_read(words: list[str]) -> None:
    found = plainly(words)
    if found is not None:
        assert found == by_argparse(words), words


NOT_PLAIN = ("help", "import")
"""Verbs of which one declares a flag that may do without its value, and one is about the others."""
EXAMPLES = [(name, example) for name, command in COMMANDS for example, _ in command.EXAMPLES]


@pytest.mark.parametrize("example", sorted({example for name, example in EXAMPLES if example.startswith(f"{name} ")}))
def test_the_examples_of_the_help_are_plain(example: str) -> None:
    words = shlex.split(example.partition(" | ")[0].partition(" > ")[0].partition(" && ")[0], comments=False)
    if words[0] in NOT_PLAIN or set(words) & set(cli.HELP):
        assert plainly(words) is None
    else:
        assert plainly(words) == by_argparse(words) is not None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["help", "add"],
        ["add", "--help"],
        ["add"],
        ["--json", "list"],
        ["list", "--nothing"],
        ["list", "--json=yes"],
        ["list", "--limit", "none"],
        ["list", "--limit"],
        ["list", "--scope", "nowhere"],
        ["list", "too", "many"],
        ["add", "--", "--odd"],
        ["apply"],
        ["transaction"],
        ["lst"],
    ],
)
def test_everything_else_is_left_to_argparse(words: list[str]) -> None:
    assert plain.parse(words) is None


def test_a_declaration_that_is_not_known_here_is_not_read_here() -> None:
    for options in ({"const": 1}, {"nargs": 2}, {"action": "count"}):
        with pytest.raises(plain.Unfit):
            plain.Declared().add_argument("--odd", **options)
