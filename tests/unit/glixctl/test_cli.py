# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: flags in any order, help, and words that nobody knows."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest

from glixctl import cli, commands
from glixctl.__main__ import main
from glixctl.errors import UsageError
from glixd.protocol import VERSION


def test_flags_stand_in_any_order_around_verb_and_arguments() -> None:
    parts = (["add"], ["firefox"], ["git"], ["--scope", "home"], ["--host=pi"], ["--json"])
    for order in itertools.permutations(parts):
        words = [word for part in order for word in part]
        if words.index("add") > min(words.index("firefox"), words.index("git")):
            continue
        command, options = cli.parse(words)
        assert command.NAME == "add", words
        assert sorted(options.refs) == ["firefox", "git"], words
        assert (options.scope, options.host, options.json) == ("home", "pi", True), words


@pytest.mark.parametrize(
    ("words", "verb", "expected"),
    [
        (["--host", "list", "list"], "list", {"host": "list"}),
        (["list", "--host", "show"], "list", {"host": "show"}),
        (["--user", "list", "add", "x"], "add", {"user": "list", "refs": ["x"]}),
        (["add", "list"], "add", {"refs": ["list"]}),
        (["add", "--", "--odd"], "add", {"refs": ["--odd"]}),
        (["add", "x", "--reason", "-because"], "add", {"reason": "-because"}),
        (["add", "x", "--reason=a=b"], "add", {"reason": "a=b"}),
        (["init", "--home-manager", "none"], "init", {"home_manager": "none"}),
        (["-q", "remove", "a", "--dry-run", "b"], "remove", {"names": ["a", "b"], "dry_run": True, "quiet": True}),
        (["transaction", "--json", "list"], "list", {"json": True, "state": None}),
        (["--json", "transaction", "show", "abc", "-q"], "show", {"transaction": "abc", "quiet": True}),
        (["transaction", "list", "--state", "failed", "--state=queued"], "list", {"state": ["failed", "queued"]}),
        (["list", "--limit", "3", "--all", "--all-hosts"], "list", {"limit": 3, "all": True, "all_hosts": True}),
        (["list", "--mode=user", "--dir", "x", "--transport", "bus"], "list", {"mode": "user", "dir": "x"}),
    ],
)
def test_words_mean_what_they_say(words: list[str], verb: str, expected: dict[str, object]) -> None:
    command, options = cli.parse(words)
    assert verb == command.NAME
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "Which verb?", "--help"),
        (["lst"], "There is no verb lst.", "list"),
        (["ad", "firefox"], "There is no verb ad.", "add"),
        (["qqqqqq"], "There is no verb qqqqqq.", "--help"),
        (["add"], "REF is missing.", "glixctl add --help"),
        (["show", "a", "b"], "b is one argument too many.", "glixctl show --help"),
        (["list", "x"], "x is one argument too many.", "glixctl list --help"),
        (["add", "x", "--sope=home"], "There is no option --sope.", "--scope"),
        (["--sope", "home", "add", "x"], "There is no option --sope.", ""),
        (["add", "x", "--scope", "everywhere"], "--scope can't be everywhere.", "It can be: system, home."),
        (["add", "x", "--scope", "hoem"], "--scope can't be hoem.", "Did you mean home?"),
        (["rebuild", "swich"], "ACTION can't be swich.", "Did you mean switch?"),
        (["set", "x", "scope", "home"], "KEY=VALUE: scope has no value; write scope=VALUE.", "glixctl set --help"),
        (["rollback", "--steps", "0"], "--steps: 0 is no number from 1 on.", "glixctl rollback --help"),
        (["list", "--user"], "--user needs a value.", "glixctl list --help"),
        (["add", "x", "--name"], "--name", "glixctl add --help"),
        (["list", "--limit", "0"], "--limit", "glixctl list --help"),
        (["list", "--json=yes"], "--json", "glixctl list --help"),
        (["inputs", "--host", "pi"], "inputs takes no --host.", "glixctl inputs --help"),
        (["--host", "laptop", "info"], "info takes no --host.", "glixctl info --help"),
        (["--host=laptop", "info"], "info takes no --host.", ""),
        (["--host", "laptop", "transaction", "list"], "transaction list takes no --host.", ""),
        (["transaction", "--host", "laptop", "list"], "transaction list takes no --host.", ""),
        (["transaction", "list", "--dry-run"], "transaction list takes no --dry-run.", ""),
        (["--host", "laptop", "transaction", "lst"], "There is no action of transaction lst.", "list"),
        (["--all-hosts", "show", "firefox"], "show takes no --all-hosts.", ""),
        (["help", "lst"], "There is no verb or task lst.", "list"),
        (["help", "instal"], "There is no verb or task instal.", "install"),
        (["transaction"], "list, show, log, cancel, watch", ""),
        (["transaction", "shw", "x"], "There is no action of transaction shw.", "show"),
        (["transaction", "show"], "ID", "glixctl transaction show --help"),
    ],
)
def test_a_command_line_that_nobody_understands_is_refused_with_the_nearest_words(
    words: list[str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        cli.parse(words)
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["help", "-h"], ["add", "-h"], ["--json", "add", "x", "--help"]])
def test_help_ends_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    assert capsys.readouterr().out.startswith("usage: glixctl")


def test_help_without_a_verb_names_every_verb_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    shown = capsys.readouterr().out
    for title, verbs in commands.TASKS.values():
        assert title in shown
        for verb in verbs:
            assert f"\n  {verb} " in shown
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("task", commands.TASKS)
def test_help_of_a_task_shows_the_examples_of_its_verbs(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", task]) == 0
    shown = capsys.readouterr().out
    for verb in commands.TASKS[task][1]:
        for name, command in commands.members(verb):
            assert f"\n{name}: {command.SUMMARY}\n" in shown
            assert all(f"  glixctl {example}\n      {what}\n" in shown for example, what in command.EXAMPLES)


def test_help_explains_one_task_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "install", "undo"]) == 2
    assert capsys.readouterr().err.startswith("glixctl: undo is one argument too many.")


def test_no_task_has_the_name_of_a_verb() -> None:
    assert set(commands.TASKS).isdisjoint(commands.VERBS)


@pytest.mark.parametrize("words", [["help", "transaction"], ["transaction", "-h"], ["--help", "transaction"]])
def test_help_of_a_group_lists_its_actions(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "\n  transaction list    list transactions" in shown
    assert "\n  transaction watch   follow" in shown


def test_help_of_a_verb_is_what_its_flag_shows(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["help", "add"], ["add", "--help"], ["help", "transaction", "list"], ["transaction", "list", "-h"]):
        with pytest.raises(SystemExit):
            main(words)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[2] == shown[3]


def test_every_example_is_a_command_line_of_its_verb() -> None:
    for verb in commands.VERBS:
        for name, command in commands.members(verb):
            assert command.EXAMPLES, name
            for example, what in command.EXAMPLES:
                assert what
                found = cli.find(shlex.split(example))
                assert found, example
                assert found.command is command
                if verb != "help":
                    cli.parse(shlex.split(example))


def test_no_two_verbs_disagree_about_whether_a_flag_takes_a_value() -> None:
    every = cli.every_flag()
    for verb in commands.VERBS:
        for name, command in commands.members(verb):
            for flag, action in cli.parser_of(name, command).table.items():
                assert action.nargs == every[flag].nargs, f"{name} {flag}"


@pytest.mark.parametrize("words", [["-v"], ["--version"], ["--version", "--json"]])
def test_the_version_flag_prints_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"glixctl {VERSION} (")


def test_the_version_verb_asks_no_daemon(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"glixctl {VERSION} (")


def test_every_module_of_the_family_is_listed_and_has_its_shape() -> None:
    folder = Path(commands.__file__).parent
    assert {path.stem for path in folder.glob("[!_]*.py")} == set(commands.VERBS)
    for verb in commands.VERBS:
        module = commands.load(verb)
        assert verb == module.NAME
        for command in getattr(module, "ACTIONS", (module,)):
            assert command.SUMMARY
            assert callable(command.arguments)
            assert callable(command.run)


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in commands.VERBS:
        for action in getattr(commands.load(verb), "ACTIONS", (None,)):
            with pytest.raises(SystemExit):
                cli.parse([verb, *([action.NAME] if action else []), "-h"])
            shown = capsys.readouterr().out
            assert "--json" in shown
            assert "--mode" in shown
            assert "\nexamples:\n  glixctl " in shown


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["import", "--from-profile", "/nix/p"], "/nix/p"),
        (["import", "--from-profile=/nix/p", "--dry-run"], "/nix/p"),
        (["import", "--from-profile"], ""),
        (["import", "--from-profile", "--dry-run"], ""),
        (["--from-profile", "import"], ""),
    ],
)
def test_a_flag_that_may_do_without_a_value_takes_the_word_behind_it(words: list[str], meant: str) -> None:
    _, options = cli.parse(words)
    assert options.from_profile == meant
