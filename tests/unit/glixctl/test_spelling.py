# SPDX-License-Identifier: GPL-3.0-or-later
"""An error of the daemon names a parameter of its table; glixctl names the flag or the argument that was typed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glixctl import cli, commands
from glixctl.__main__ import main
from glixd import api
from glixd.errors import GlixError

if TYPE_CHECKING:
    from glixctl.commands import Command
    from tests.unit.glixctl.conftest import Daemon, WireError

WITHOUT_A_DAEMON = ("clone", "push", "version")
"""Two that run git in a clone before they ask anything (tests/integration/test_push.py), and one that asks nothing."""
LOOKED_UP: dict[str, dict[str, dict[str, Any]]] = {
    "import": {"List": {"packages": []}, "Resolve": {"resolutions": [{"name": "a"}]}},
    "system": {"ListGenerations": {"generations": [{"number": 1}, {"number": 2, "current": True}]}},
}
"""What a verb asks before it asks for what it is about."""
OF_THE_CLIENT = {
    *("--help", "--json", "--quiet", "--no-ask", "--mode", "--dir", "--transport", "--yes"),
    *("--refresh", "--long", "--roots", "--exclude", "--fix"),
    *("--target-host", "--build-host", "--parallel", "--confirm-within"),
}
"""Flags that the daemon never learns of."""
MADE_BY_THE_CLIENT = {"interactive", "limit", "sizes", "offset"}
"""Parameters that are sent without being asked for."""
CHANGES = '[[operations]]\noperation = "Remove"\nnames = ["a"]\n'
PROFILE = {
    "version": 2,
    "elements": [{"attrPath": "legacyPackages.x.a", "originalUrl": "flake:nixpkgs", "active": True}],
}


def members() -> list[Any]:
    found = [(name, command) for verb in commands.VERBS for name, command in commands.members(verb)]
    return [pytest.param(name, one, id=name) for name, one in found if one.ANSWER and name not in WITHOUT_A_DAEMON]


def flags(parser: cli.Parser) -> Iterator[argparse.Action]:
    for action in parser.actions:
        if action.option_strings and not OF_THE_CLIENT & set(action.option_strings):
            yield action


def value_of(action: argparse.Action, folder: Path) -> str:
    """A value that glixctl takes for an argument, and that nobody leaves out."""
    special = {
        "file": str(folder / "changes.toml"),
        "folder": str(folder / "imported"),
        "from_profile": str(folder / "profile"),
        "changes": "pin=x",
        "transaction": "01hzy7k3m5n8p0q2r4s6t8v0wx",
    }
    if action.dest in special:
        return special[action.dest]
    if action.choices:
        return str(list(action.choices)[-1])
    return "abcd" if action.type is None else "12"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the flags that read files read."""
    (tmp_path / "changes.toml").write_text(CHANGES)
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported/configuration.nix").write_text("{ }\n")
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/manifest.json").write_text(json.dumps(PROFILE))
    return tmp_path


def least(name: str, parser: cli.Parser, folder: Path) -> list[str]:
    """The shortest command line of a command."""
    words = name.split()
    for action in parser.actions:
        if action.required:
            words += [*action.option_strings[-1:], value_of(action, folder)]
    return words


def refuse(daemon: Daemon, words: list[str], error: Exception) -> None:
    """Let the daemon refuse what a command line asks for."""
    for method in api.OPERATIONS:
        daemon.play(method, error)
    for method, answer in LOOKED_UP.get(words[0], {}).items():
        if words[1:2] not in (["list"], ["diff"]):
            daemon.play(method, answer)


def sent(daemon: Daemon, words: list[str], wire_error: type[WireError]) -> dict[str, Any]:
    """What a command line asks of the daemon, which refuses it."""
    refuse(daemon, words, wire_error("InvalidArgument", "no"))
    daemon.asked.clear()
    assert main(words) != 0
    return daemon.asked[-1][1]


def refusal(
    daemon: Daemon, words: list[str], parameter: str, wire_error: type[WireError], capsys: pytest.CaptureFixture[str]
) -> str:
    """What glixctl says where the daemon refuses a parameter."""
    refuse(daemon, words, wire_error("InvalidArgument", f"{parameter}: it is wrong", argument=parameter))
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(("name", "command"), members())
def test_what_is_refused_is_called_as_it_was_typed(
    daemon: Daemon,
    wire_error: type[WireError],
    capsys: pytest.CaptureFixture[str],
    files: Path,
    name: str,
    command: Command,
) -> None:
    parser = cli.parser_of(name, command)
    words = least(name, parser, files)
    base = sent(daemon, words, wire_error)
    arguments = {str(action.metavar or action.dest) for action in parser.actions if not action.option_strings}
    known = arguments | {max(action.option_strings, key=len) for action in flags(parser)}
    for parameter in base.keys() - MADE_BY_THE_CLIENT:
        if name.startswith("system ") and parameter == "action":
            continue  # the verb itself
        said = refusal(daemon, words, parameter, wire_error, capsys)
        assert said in {f"glixctl: {typed}: it is wrong" for typed in known}, parameter
    for action in flags(parser):
        flag = max(action.option_strings, key=len)
        longer = [*words, flag] if action.nargs == 0 else [*words, f"{flag}={value_of(action, files)}"]
        told = sent(daemon, longer, wire_error)
        new = [one for one, value in told.items() if base.get(one) != value and one != "interactive"]
        assert new or action.required, f"{flag} of {name} says nothing to the daemon"
        for parameter in new:
            assert refusal(daemon, longer, parameter, wire_error, capsys) == f"glixctl: {flag}: it is wrong"


WRONG = [
    (["add", ""], "REF: it is empty"),
    (["add", "a", ""], "REF 2: it is empty"),
    (["add", "a", "b", "--name=c"], "--name: it can be given only with a single reference"),
    (["add", "a", "--pin="], "--pin: it is empty"),
    (["add", "a", "--reason", "x" * 257], "--reason: it has more than 256 characters"),
    (["add", "a", "--user=bob", "--scope=system"], "--user: a package of the system belongs to no user"),
    (["set", "a", "scpe=home"], "KEY=VALUE: scpe is no key of a package\nhint: Did you mean scope?"),
    (["set", "a", "Bad Key=1"], "KEY=VALUE: 'Bad Key' is not a key: "),
    (["set", "a", "config.x=" + "x" * 4097], "KEY=VALUE: config.x: it has more than 4096 characters"),
    (["rollback", "--steps=1001"], "--steps: it has to be at most 1000"),
    (["rollback", "--steps=2", "--to=abcd"], "--steps: it can't be combined with --to"),
    (["rollback", "--to=zz"], "--to: 'zz' is not a commit"),
    (["gc", "--keep=1001"], "--keep: it has to be at most 1000"),
    (["gc", "--older-than=3w"], "--older-than: '3w' is not a number of days, such as 30d"),
    (
        ["gc", "--keep=2", "--delete-old"],
        "--delete-old: it can't be combined with --keep or --older-than, which spare some old generations",
    ),
    (["search", ""], "WORD: it is empty"),
    (["list", "--source", "\x1b"], "--source: "),
    (["diff", "zzz"], "COMMIT|GENERATION: 'zzz' is not a commit"),
    (["diff", "0"], "COMMIT|GENERATION: it has to be at least 1"),
    (["host", "rename", "pi", "X Y"], "NEW-NAME: 'X Y' is not a host name"),
    (["transaction", "show", "x"], "ID: 'x' is not a transaction id"),
    (["apply", "-f", "FILE"], "operation 1 of --file: names: it is missing"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_the_table_refuses_and_glixctl_says_where_on_the_command_line(
    daemon: Daemon,
    wire_error: type[WireError],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    for row in api.OPERATIONS.values():

        def parse(params: dict[str, Any], _notify: object, row: api.Operation = row) -> dict[str, Any]:
            try:
                api.parse(row, params)
            except GlixError as error:
                raise wire_error(error.code, error.message, error.hint, **error.details) from None
            raise AssertionError(f"{row.name} takes {params}")

        daemon.play(row.name, parse)
    (tmp_path / "changes.toml").write_text('[[operations]]\noperation = "Remove"\n')
    assert main([str(tmp_path / "changes.toml") if word == "FILE" else word for word in words]) == 2
    assert capsys.readouterr().err.startswith(f"glixctl: {said}")


def test_an_answer_that_is_no_error_of_the_table_stays_as_it_is(
    daemon: Daemon, wire_error: type[WireError], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.play("List", wire_error("UnknownHost", "There is no host x.", host="x"))
    assert main(["list", "--host=x"]) == 4
    assert capsys.readouterr().err == "glixctl: There is no host x.\n"


def test_a_refusal_at_the_end_of_a_transaction_is_called_so_too(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {
        "name": "InvalidArgument",
        "message": "to_commit: abcd is no commit of the branch",
        "hint": "See: glixctl history",
        "details": {"argument": "to_commit", "reason": "abcd is no commit of the branch"},
    }
    daemon.play_transaction("Rollback", state="failed", error=error)
    assert main(["rollback", "--to=abcd"]) == 2
    assert capsys.readouterr().err == "glixctl: --to: abcd is no commit of the branch\nhint: See: glixctl history\n"


def test_a_document_keeps_the_name_of_the_parameter_for_scripts(
    daemon: Daemon, wire_error: type[WireError], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.play("List", wire_error("InvalidArgument", "text: it is wrong", argument="text"))
    assert main(["list", "--source=x", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["message"], error["details"]) == ("--source: it is wrong", {"argument": "text"})
