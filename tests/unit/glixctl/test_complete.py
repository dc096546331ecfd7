# SPDX-License-Identifier: GPL-3.0-or-later
"""What the completion scripts are told, line by line."""

from __future__ import annotations

import json
import os
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glixctl import commands
from glixctl.__main__ import main
from glixctl.commands import completion
from glixd import api
from glixd.api import forms
from glixd.protocol import user_socket

if TYPE_CHECKING:
    from tests.unit.glixctl.conftest import Daemon, WireError

ID = "01hzy7k3m5n8p0q2r4s6t8v0wx"


class Completer:
    """Completes a command line, as a script of a shell does."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def lines(self, *words: str) -> list[str]:
        """The lines that a script gets; the last word is the one at the cursor."""
        assert main(["__complete", "glixctl", *words]) == 0
        captured = self._capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    def words(self, *words: str) -> list[str]:
        """The candidates alone."""
        return [line.partition("\t")[0] for line in self.lines(*words)]


@pytest.fixture
def complete(runtime: Path, capsys: pytest.CaptureFixture[str]) -> Completer:
    """A user without a daemon, unless the test has one."""
    return Completer(capsys)


@pytest.fixture
def other_daemon(runtime: Path, tmp_path: Path, daemon: Daemon) -> Iterator[Daemon]:
    """The daemon of another repository of the user."""
    other = type(daemon)(Path(user_socket(os.environ, str(tmp_path / "other"))))
    yield other
    other.stop()


def test_the_first_word_is_a_verb_with_its_summary(complete: Completer) -> None:
    assert complete.words("") == list(commands.VERBS)
    assert complete.lines("dis") == ["disable\tdisable packages of a host and keep their entries"]
    assert complete.words("--quiet", "dis") == ["disable"]
    assert complete.words("--host", "add", "dis") == ["disable"]


def test_the_word_behind_a_group_is_an_action(complete: Completer) -> None:
    assert complete.words("transaction", "") == ["list", "show", "log", "cancel", "watch"]
    assert complete.words("--json", "transaction", "ca") == ["cancel"]


def test_flags_are_those_of_the_verb_that_are_not_given_yet(complete: Completer) -> None:
    assert complete.words("add", "--no") == ["--no-evaluate", "--no-follows", "--no-ask"]
    assert complete.words("add", "--no-follows", "x", "--no") == ["--no-evaluate", "--no-ask"]
    assert complete.lines("info", "--js") == ["--json\tprint the answer as one JSON document"]
    assert complete.words("info", "--ho") == []
    assert complete.words("transaction", "list", "--state=failed", "--sta") == ["--state"]
    assert complete.words("--vers") == ["--version"]


def test_nothing_is_a_flag_behind_two_dashes(complete: Completer) -> None:
    assert complete.words("add", "--", "--") == []


def test_values_are_those_that_the_parser_allows(complete: Completer) -> None:
    assert complete.words("add", "x", "--scope", "") == ["system", "home"]
    assert complete.words("add", "x", "--scope=h") == ["--scope=home"]
    assert complete.words("--mode", "s") == ["system"]
    assert complete.words("completion", "") == ["bash", "zsh", "fish"]
    assert complete.words("completion", "bash", "") == []
    assert complete.words("help", "inst") == ["install"]
    assert complete.words("list", "--dir", "") == [":folders"]
    assert complete.words("list", "--dir", "/ho") == [":folders"]
    assert complete.words("apply", "-f", "cha") == [":files"]
    assert complete.words("clone", "") == complete.words("init", "--import", "") == [":folders"]
    assert complete.words("init", "--profile", "d") == ["desktop"]
    assert complete.words("init", "--system", "a") == ["aarch64-linux"]


@pytest.mark.parametrize("words", [["qqq", ""], ["transaction", "qqq", ""], ["list", "x", ""], ["add", "--name", ""]])
def test_where_nothing_is_known_nothing_is_offered(complete: Completer, words: list[str]) -> None:
    assert complete.lines(*words) == []


def test_without_a_daemon_live_words_are_missing_and_none_is_started(complete: Completer, runtime: Path) -> None:
    assert complete.lines("remove", "") == []
    assert not runtime.parent.exists()


def test_packages_are_those_of_the_host_and_not_named_yet(complete: Completer, daemon: Daemon) -> None:
    pages = [{"packages": [{"name": "firefox", "flake": "nixpkgs#firefox"}], "next": "firefox"}]
    daemon.play("List", *pages, {"packages": [{"name": "fish", "flake": "nixpkgs#fish\x1b"}, {"name": "git"}]})
    assert complete.lines("remove", "--host", "pi", "fi") == ["firefox\tnixpkgs#firefox", "fish\tnixpkgs#fish\\x1b"]
    first = {"include_disabled": True, "limit": 1000, "host": "pi"}
    assert daemon.asked == [("List", first), ("List", {**first, "after": "firefox"})]
    assert complete.words("remove", "fish", "fi") == []


def test_hosts_users_inputs_commits_and_transactions_are_live(complete: Completer, daemon: Daemon) -> None:
    hosts = [{"name": "laptop", "system": "x86_64-linux", "primary_user": "alice"}, {"name": "pi"}]
    daemon.play("ListHosts", {"hosts": hosts})
    daemon.play("History", {"entries": [{"commit": "1a2b3c4d5e", "subject": "glix add laptop: firefox"}]})
    daemon.play("Info", {"inputs": [{"name": "nixpkgs", "url": "github:NixOS/nixpkgs"}, {"name": "mine"}]})
    daemon.play("ListTransactions", {"transactions": [{"id": ID, "operation": "Add", "state": "failed"}]})
    assert complete.lines("list", "--host", "") == ["laptop\tx86_64-linux", "pi"]
    assert complete.lines("list", "--host=l") == ["--host=laptop\tx86_64-linux"]
    assert complete.lines("add", "x", "--user", "a") == ["alice\tthe primary user of laptop"]
    assert complete.lines("history", "--before", "") == ["1a2b3c4\tglix add laptop: firefox"]
    assert complete.lines("update", "") == ["nixpkgs\tgithub:NixOS/nixpkgs", "mine"]
    assert complete.words("update", "mine", "") == ["nixpkgs"]
    assert complete.lines("transaction", "show", "") == [f"{ID}\tAdd  failed"]


def test_changes_are_keys_with_the_values_that_they_can_have(complete: Completer, daemon: Daemon) -> None:
    daemon.play("ListHosts", {"hosts": [{"name": "laptop", "primary_user": "alice"}]})
    assert complete.words("set", "git", "sco") == ["scope=system", "scope=home"]
    assert complete.words("set", "git", "user") == ["user=alice"]
    assert complete.words("host", "set", "pi", "primary_user=a") == ["primary_user=alice"]
    for words, operation, named, keys in (
        (["set", "git"], "Set", {"name": "git"}, {*forms.PACKAGE_CHANGES, "config."}),
        (["host", "set", "pi"], "SetHost", {"host": "pi"}, {*forms.SETTING_CHANGES}),
    ):
        offered = complete.words(*words, "")
        assert {change.partition("=")[0] for change in offered} == keys
        assert len(offered) > len(keys)
        for change in offered:
            if not change.endswith(("=", ".")):
                api.parse(api.operation(operation), {**named, "changes": dict([change.split("=")])})
    assert complete.words("set", "git", "pi") == ["pin="]
    assert complete.words("set", "git", "conf") == ["config."]


def test_profiles_are_those_of_the_core(complete: Completer) -> None:
    known = tomllib.loads((Path(__file__).parents[3] / "core/profiles.toml").read_text())["profiles"]
    assert complete.words("init", "--profile", "") == list(known)


def test_what_could_be_added_is_searched_for_once_there_are_letters(complete: Completer, daemon: Daemon) -> None:
    matches = [{"name": name, "flake": f"nixpkgs#{name}", "description": "A browser"} for name in ("firefox", "other")]
    daemon.play("Search", {"matches": matches})
    assert complete.lines("add", "--host", "pi", "fire") == ["firefox\tA browser"]
    assert daemon.asked == [("Search", {"query": "fire", "limit": 1000, "host": "pi"})]
    assert complete.words("search", "fire") == complete.words("resolve", "fire") == ["firefox"]
    assert complete.words("add", "f") == []


def test_a_word_that_would_control_the_terminal_is_not_offered(complete: Completer, daemon: Daemon) -> None:
    daemon.play("ListHosts", {"hosts": [{"name": "\x1b[2J"}, {"name": "a\nb"}, {"name": "pi", "system": "a\tb\n"}]})
    assert complete.lines("list", "--host", "") == ["pi\ta\\x09b\\x0a"]


@pytest.mark.parametrize("place", ["~/other", "other"])
def test_the_daemon_of_another_repository_is_asked_where_the_command_line_names_one(
    complete: Completer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, other_daemon: Daemon
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    other_daemon.play("ListHosts", {"hosts": [{"name": "elsewhere"}]})
    assert complete.words("list", "--dir", place, "--host", "") == ["elsewhere"]


@pytest.mark.parametrize("answer", [{}, {"hosts": None}, {"hosts": [1]}, {"hosts": [{}]}])
def test_an_answer_that_is_none_offers_nothing(complete: Completer, daemon: Daemon, answer: dict[str, Any]) -> None:
    daemon.play("ListHosts", answer)
    assert complete.lines("list", "--host", "") == []


def test_an_error_of_the_daemon_offers_nothing(
    complete: Completer, daemon: Daemon, wire_error: type[WireError]
) -> None:
    daemon.play("List", wire_error("NoRepository", "There is no repository."))
    assert complete.lines("remove", "") == []


def test_a_daemon_that_is_slow_is_not_waited_for_and_its_first_words_count(complete: Completer, daemon: Daemon) -> None:
    over = threading.Event()

    def never(params: dict[str, Any], notify: Any) -> dict[str, Any]:
        over.wait(60)
        return {"packages": []}

    daemon.play("List", {"packages": [{"name": "firefox", "flake": "x"}], "next": "firefox"}, never)
    assert complete.words("remove", "") == ["firefox"]
    over.set()


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_the_script_of_a_shell_is_printed_without_a_daemon(
    shell: str, runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr()
    assert "__complete" in shown.out
    assert shown.err == ""
    assert main(["completion", shell, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["shell"], told["script"].rstrip("\n")) == (shell, shown.out.rstrip("\n"))
