# SPDX-License-Identifier: GPL-3.0-or-later
"""Each verb: what it asks, what it prints, how it ends."""

from __future__ import annotations

import gc
import io
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glixctl import commands
from glixctl.__main__ import main
from glixd import api, protocol
from glixd.protocol import ERRORS, ErrorCode, Exit

if TYPE_CHECKING:
    from tests.unit.glixctl.conftest import Daemon, WireError

ID = "01hzy7k3m5n8p0q2r4s6t8v0wx"
COMMIT = "1a2b3c4d5e6f"
ADDED = {"summary": "added firefox to laptop (nixpkgs#firefox, system)", "changed": True}


def package(host: str, name: str, flake: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "name": name, "scope": "system", "enabled": True, "flake": flake, **more}


PACKAGES = [
    package("desktop", "firefox", "github:NixOS/nixpkgs#firefox"),
    package("laptop", "greeting", "github:owner/pkg-greeting", scope="home", user="alice"),
    package("pi", "raspi-fw", "github:owner/raspi-firmware", enabled=False),
]


@pytest.mark.parametrize(
    ("words", "method", "parameters"),
    [
        (["add", "firefox"], "Add", {"refs": ["firefox"]}),
        (
            ["add", "a", "b", "--scope=home", "--user=bob", "--pin=v1", "--no-follows", "--allow-local", "--host=pi"],
            "Add",
            {
                "refs": ["a", "b"],
                "scope": "home",
                "user": "bob",
                "pin": "v1",
                "follows": False,
                "allow_local": True,
                "host": "pi",
            },
        ),
        (["add", "a", "--name=b", "--reason=why"], "Add", {"refs": ["a"], "name": "b", "reason": "why"}),
        (["remove", "a", "b", "--no-evaluate"], "Remove", {"names": ["a", "b"], "evaluate": False}),
        (["enable", "a"], "Enable", {"names": ["a"]}),
        (["disable", "a", "--dry-run"], "Disable", {"names": ["a"], "dry_run": True}),
        (["regen"], "Regenerate", {}),
        (["remove", "a", "--apply"], "Remove", {"names": ["a"], "apply": True}),
        (["rebuild"], "Rebuild", {"action": "switch"}),
        (["rebuild", "dry-build", "--host=pi"], "Rebuild", {"action": "dry-build", "host": "pi"}),
        (["system", "boot", "--dry-run"], "Rebuild", {"action": "boot", "dry_run": True}),
        (
            ["rebuild", "switch", "--keep-going-without", "--rollback-on-failure"],
            "Rebuild",
            {"action": "switch", "keep_going_without": True, "rollback_on_failure": True},
        ),
        (["rollback", "--to=12", "--boot"], "Rollback", {"to_generation": 12, "boot": True}),
        (["rollback", "--to=1a2b"], "Rollback", {"to_commit": "1a2b"}),
        (["rollback", "--to=1234567"], "Rollback", {"to_commit": "1234567"}),
        (["system", "rollback", "--to=3"], "Rollback", {"to_generation": 3}),
        (["init"], "Init", {}),
        (
            [
                "init",
                "--host=pi",
                "--user=u",
                "--system=aarch64-linux",
                "--nixpkgs=n",
                "--core=c",
                "--home-manager=none",
            ],
            "Init",
            {
                "host": "pi",
                "user": "u",
                "system": "aarch64-linux",
                "nixpkgs": "n",
                "core": "c",
                "home_manager": "none",
            },
        ),
    ],
)
def test_a_mutation_is_one_request_that_the_table_understands(
    daemon: Daemon, words: list[str], method: str, parameters: dict[str, Any]
) -> None:
    daemon.play_transaction(method, outcome=ADDED, commit=COMMIT)
    assert main(words) == 0
    assert [asked for asked, _ in daemon.asked] == [method, "Wait"]
    assert daemon.asked[0][1] == {**parameters, "interactive": True}
    for asked, sent in daemon.asked:
        api.parse(api.OPERATIONS[asked], sent)


@pytest.mark.parametrize(
    ("words", "method", "parameters"),
    [
        (["list"], "List", {"limit": 1000}),
        (["list", "--all-hosts", "--all"], "List", {"all_hosts": True, "include_disabled": True, "limit": 1000}),
        (["list", "--host=pi", "--limit=5"], "List", {"host": "pi", "limit": 5}),
        (
            ["list", "--scope=home", "--user=bob", "--state=disabled", "--source=github:", "--sort=flake"],
            "List",
            {
                "scope": "home",
                "user": "bob",
                "state": "disabled",
                "text": "github:",
                "sort": "flake",
                "limit": 1000,
            },
        ),
        (["inputs"], "ListInputs", {}),
        (["diff"], "Diff", {}),
        (["diff", "abcd", "ef01", "--host=pi"], "Diff", {"before": "abcd", "commit": "ef01", "host": "pi"}),
        (["history", "--before=abcd"], "History", {"before": "abcd", "limit": 50}),
        (["history", "git", "--host=pi"], "History", {"name": "git", "host": "pi", "limit": 50}),
        (["transaction", "list"], "ListTransactions", {}),
        (
            ["transaction", "list", "--state=failed", "--limit=2"],
            "ListTransactions",
            {"states": ["failed"], "limit": 2},
        ),
        (["transaction", "cancel", ID], "Cancel", {"transaction": ID, "interactive": True}),
        (["transaction", "show", ID], "GetTransaction", {"transaction": ID, "interactive": True}),
        (["generations", "--limit=5"], "ListGenerations", {"limit": 5, "sizes": True}),
        (["system", "list"], "ListGenerations", {"sizes": True}),
        (["diff", "11", "12"], "DiffGenerations", {"older": 11, "newer": 12}),
        (["diff", "1234567"], "Diff", {"before": "1234567"}),
        (["system", "diff"], "DiffGenerations", {}),
        (["info"], "Info", {}),
        (["ping"], "Ping", {}),
        (["show", "firefox", "--host=pi"], "Show", {"name": "firefox", "host": "pi"}),
        (["resolve", "a", "b"], "Resolve", {"refs": ["a", "b"]}),
    ],
)
def test_a_query_is_one_request_that_the_table_understands(
    daemon: Daemon, words: list[str], method: str, parameters: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answer: dict[str, Any] = {"packages": [], "entries": []}
    daemon.play(method, answer)
    assert main([*words, "--json"]) == 0
    assert daemon.asked == [(method, parameters)]
    api.parse(api.OPERATIONS[method], parameters)
    assert json.loads(capsys.readouterr().out) == answer


EXAMPLES = [
    example
    for verb in commands.VERBS
    for _, command in commands.members(verb)
    if command.ANSWER and verb != "push"  # which runs git in a clone: tests/integration/test_push.py
    for example, _ in command.EXAMPLES
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_help_asks_what_the_table_understands(
    daemon: Daemon, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = '[[operations]]\noperation = "Remove"\nnames = ["firefox"]\n'
    profile = {"version": 3, "elements": {"git": {"originalUrl": "flake:nixpkgs", "attrPath": "legacyPackages.x.git"}}}
    (tmp_path / "changes.toml").write_text(changes)
    (tmp_path / ".nix-profile").mkdir()
    (tmp_path / ".nix-profile" / "manifest.json").write_text(json.dumps(profile))
    (tmp_path / "nixos").mkdir()
    (tmp_path / "nixos" / "configuration.nix").write_text("{ }\n")
    example = example.replace("/etc/nixos", str(tmp_path / "nixos"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO(changes))
    lists: dict[str, Any] = {"packages": [], "entries": [], "hosts": [], "inputs": [], "resolutions": [RESOLVED]}
    lists |= {"checks": [], "version": "1", "commit": COMMIT, "lines": [], "transactions": [{"id": ID}]}
    lists |= {"generations": [{"number": 2, "current": True}, {"number": 1}]}
    for method in api.OPERATIONS:
        daemon.play(method, {**lists, "transaction": ID, "id": ID, "state": "succeeded"})
    ends = Exit.FAILED if "--target-host" in example else Exit.DONE  # this daemon builds nothing for another machine
    assert main([*shlex.split(example), *(() if "--json" in example else ("--json",))]) == ends
    json.loads(capsys.readouterr().out)
    for asked, sent in daemon.asked:
        api.parse(api.OPERATIONS[asked], sent)


def test_a_mutation_prints_one_line_with_its_commit(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play_transaction("Add", outcome=ADDED, commit=COMMIT, warnings=["mind the gap"])
    assert main(["add", "firefox"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "added firefox to laptop (nixpkgs#firefox, system) — commit 1a2b3c4\n"
    assert captured.err == "warning: mind the gap\n"


def test_quiet_leaves_the_exit_code_and_the_warnings(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play_transaction("Add", outcome=ADDED, commit=COMMIT, warnings=["mind the gap"])
    assert main(["add", "firefox", "-q"]) == 0
    assert capsys.readouterr() == ("", "warning: mind the gap\n")


def test_a_dry_run_prints_the_diff_and_that_nothing_was_changed(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.play_transaction("Add", outcome={**ADDED, "diff": "+firefox\n"}, dry_run=True)
    assert main(["add", "firefox", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"+firefox\ndry run: {ADDED['summary']}; nothing was changed\n"


def test_a_mutation_with_nothing_to_do_says_so_and_exits_with_7(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.play_transaction("Enable", outcome={"summary": "firefox is enabled already.", "changed": False})
    assert main(["enable", "firefox"]) == 7
    assert capsys.readouterr().out == "firefox is enabled already\n"


def test_json_prints_the_transaction_whatever_its_end(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"code": -32014, "name": "LockFailed", "message": "It did not lock.", "hint": "Look.", "details": {}}
    daemon.play_transaction("Add", state="failed", error=error)
    assert main(["--json", "add", "firefox"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"] == error
    assert captured.err == "glixctl: It did not lock.\nhint: Look.\n"


def test_a_failure_after_the_commit_says_that_the_commit_stays(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"name": "ActivationFailed", "message": "It did not switch."}
    daemon.play_transaction("Add", state="failed", error=error, commit=COMMIT)
    assert main(["add", "firefox"]) == 1
    assert "warning: commit 1a2b3c4 stays" in capsys.readouterr().err


def test_a_transaction_that_somebody_cancelled_exits_with_130(daemon: Daemon) -> None:
    daemon.play_transaction("Add", state="cancelled")
    assert main(["add", "firefox"]) == 130


RESOLVED = {"ref": "firefox", "name": "firefox", "flake": "nixpkgs#firefox", "source": "nixpkgs", "trusted": True}
FOREIGN = {"ref": "github:o/r", "name": "r", "flake": "github:o/r\x1b", "source": "uri", "trusted": False}


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Terminal]:
    """Puts somebody at a terminal who types these lines; returns what glixctl says beside its answer."""

    def sit_down(typed: str) -> Terminal:
        said = Terminal()
        for name, stream in (("stdin", Terminal(typed)), ("stdout", Terminal()), ("stderr", said)):
            monkeypatch.setattr(f"sys.{name}", stream)
        return said

    monkeypatch.setenv("TERM", "dumb")
    return sit_down


@pytest.mark.parametrize(
    ("typed", "code", "asked"),
    [
        ("y\n", 0, ["Resolve", "Add", "Wait"]),
        ("Yes\n", 0, ["Resolve", "Add", "Wait"]),
        ("n\n", 10, ["Resolve"]),
        ("\n", 10, ["Resolve"]),
        ("", 10, ["Resolve"]),
        ("yesterday\n", 10, ["Resolve"]),
    ],
)
def test_on_a_terminal_something_untrusted_is_added_only_after_a_yes(
    daemon: Daemon, terminal: Callable[[str], Terminal], typed: str, code: int, asked: list[str]
) -> None:
    daemon.play("Resolve", {"resolutions": [RESOLVED, FOREIGN]})
    daemon.play_transaction("Add", outcome=ADDED, commit=COMMIT)
    said = terminal(typed)
    assert main(["add", "firefox", "github:o/r", "--host=pi"]) == code
    assert [method for method, _ in daemon.asked] == asked
    assert daemon.asked[0][1] == {"refs": ["firefox", "github:o/r"], "host": "pi"}
    assert "  NAME  FLAKE           SOURCE\n  r     github:o/r\\x1b  uri\nAdd it? [y/N] " in said.getvalue()
    assert "firefox" not in said.getvalue()
    assert ("glixctl: nothing was added\n" in said.getvalue()) is (code == 10)


def test_on_a_terminal_what_is_trusted_is_added_without_a_question(
    daemon: Daemon, terminal: Callable[[str], Terminal]
) -> None:
    daemon.play("Resolve", {"resolutions": [RESOLVED]})
    daemon.play_transaction("Add", outcome=ADDED, commit=COMMIT)
    said = terminal("n\n")
    assert main(["add", "firefox"]) == 0
    assert "[y/N]" not in said.getvalue()


@pytest.mark.parametrize("flag", ["--yes", "-y", "--dry-run"])
def test_whoever_said_yes_or_changes_nothing_is_not_asked(
    daemon: Daemon, terminal: Callable[[str], Terminal], flag: str
) -> None:
    daemon.play_transaction("Add", outcome=ADDED, commit=COMMIT)
    terminal("n\n")
    assert main(["add", "github:o/r", flag]) == 0
    assert [method for method, _ in daemon.asked] == ["Add", "Wait"]


@pytest.mark.parametrize("piped", ["stdin", "stdout", "stderr"])
def test_in_a_pipe_nobody_is_asked(
    daemon: Daemon, terminal: Callable[[str], Terminal], piped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.play_transaction("Add", outcome=ADDED, commit=COMMIT)
    terminal("n\n")
    monkeypatch.setattr(f"sys.{piped}", io.StringIO())
    assert main(["add", "github:o/r"]) == 0
    assert [method for method, _ in daemon.asked] == ["Add", "Wait"]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_has_the_exit_code_of_the_table_at_once_and_at_the_end(
    daemon: Daemon, wire_error: type[WireError], code: ErrorCode, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.play("Info", wire_error(code, "No."))
    assert main(["info", "--json"]) == ERRORS[code].exit_code
    assert json.loads(capsys.readouterr().out)["error"]["name"] == code
    daemon.play_transaction("Add", state="failed", error={"name": code, "message": "No."})
    assert main(["add", "x"]) == ERRORS[code].exit_code
    assert capsys.readouterr().err == "glixctl: No.\n"


def test_list_prints_its_table(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("List", {"packages": PACKAGES})
    assert main(["list", "--all-hosts", "--all"]) == 0
    assert capsys.readouterr().out == (
        "HOST     NAME      SCOPE   STATE     USER   FLAKE\n"
        "desktop  firefox   system  enabled          github:NixOS/nixpkgs#firefox\n"
        "laptop   greeting  home    enabled   alice  github:owner/pkg-greeting\n"
        "pi       raspi-fw  system  disabled         github:owner/raspi-firmware\n"
    )


def test_list_follows_its_pages_until_the_last(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [{"packages": [entry], "next": entry["name"]} for entry in PACKAGES[:2]]
    daemon.play("List", *pages, {"packages": PACKAGES[2:], "health": {"state": "ok"}})
    assert main(["list", "--json"]) == 0
    assert [sent.get("after") for _, sent in daemon.asked] == [None, "firefox", "greeting"]
    assert json.loads(capsys.readouterr().out) == {"packages": PACKAGES, "health": {"state": "ok"}}


def test_list_stops_at_its_limit(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("List", {"packages": PACKAGES[:2], "next": "x"})
    assert main(["list", "--limit", "2"]) == 0
    assert len(daemon.asked) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_list_tells_when_the_host_does_not_evaluate(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("List", {"packages": [], "health": {"state": "failed", "message": "attribute x is missing"}})
    assert main(["list", "--host", "laptop"]) == 0
    assert capsys.readouterr() == (
        "",
        "glixctl: no packages\nwarning: the configuration of laptop does not evaluate: attribute x is missing\n",
    )


def test_info_prints_hosts_and_inputs(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    host = {"name": "laptop", "system": "x86_64-linux", "primary_user": "alice", "packages": 14, "enabled": 12}
    daemon.play(
        "Info",
        {
            "repository": "/home/alice/.config/glixos",
            "mode": "user",
            "branch": "main",
            "head": COMMIT,
            "subject": "glix add laptop: firefox",
            "edited": [],
            "dirty": ["notes.txt"],
            "published": True,
            "hosts": [
                {**host, "health": {"state": "ok"}},
                {**host, "name": "pi", "health": {"state": "failed", "message": "no\x1b"}},
                {**host, "name": "old", "problem": "line 3 is no TOML", "health": {"state": "unknown"}},
            ],
            "inputs": [
                {
                    "name": "nixpkgs",
                    "url": "github:NixOS/nixpkgs",
                    "revision": COMMIT,
                    "modified": "2026-01-02T03:04:05Z",
                    "age": 3,
                },
                {"name": "mine"},
            ],
            "version": "1",
        },
    )
    assert main(["info"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "root:   /home/alice/.config/glixos\n"
        "mode:   user\n"
        "branch: main\n"
        "head:   1a2b3c4 glix add laptop: firefox\n"
        "dirty:  notes.txt\n"
        "hosts:\n"
        "  laptop system=x86_64-linux primary_user=alice packages=12/14 enabled\n"
        "  pi system=x86_64-linux primary_user=alice packages=12/14 enabled health=failed\n"
        "  old problem: line 3 is no TOML\n"
        "inputs:\n"
        "  nixpkgs  1a2b3c4  2026-01-02  3 days  github:NixOS/nixpkgs\n"
        "  mine\n"
    )
    assert captured.err == "warning: the configuration of pi does not evaluate: no\\x1b\n"


def test_show_prints_what_is_there_and_its_configuration(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    details = {"follows": False, "config": {"colour": "\x1b[31m"}, "revision": COMMIT, "health": {"state": "ok"}}
    daemon.play("Show", package("laptop", "greeting", "github:owner/greeting", **details))
    assert main(["show", "greeting"]) == 0
    assert capsys.readouterr().out == (
        "name:     greeting\n"
        "host:     laptop\n"
        "state:    enabled\n"
        "scope:    system\n"
        "flake:    github:owner/greeting\n"
        "follows:  no\n"
        "revision: 1a2b3c4d5e6f\n"
        "config:\n"
        "  colour: \\x1b[31m\n"
    )


def test_history_prints_its_table(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"commit": COMMIT, "time": "2026-01-02T03:04:05Z", "author": "alice", "subject": "glix add laptop: x"}
    daemon.play("History", {"entries": [{**entry, "reason": "needed"}, {**entry, "author": "bo"}]})
    assert main(["history"]) == 0
    assert capsys.readouterr().out == (
        "COMMIT   TIME (UTC)        AUTHOR  SUBJECT\n"
        "1a2b3c4  2026-01-02 03:04  alice   glix add laptop: x — needed\n"
        "1a2b3c4  2026-01-02 03:04  bo      glix add laptop: x\n"
    )


def test_history_in_full_prints_who_why_and_in_which_transaction(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"commit": COMMIT, "time": "2026-01-02T03:04:05Z", "author": "alice", "subject": "glix add laptop: x"}
    more = {"uid": 1000, "reason": "needed", "transaction": ID, "body": "added x\n\nadded \x1b"}
    daemon.play("History", {"entries": [{**entry, **more}, {**entry, "author": "bo"}]})
    assert main(["history", "--long"]) == 0
    assert capsys.readouterr().out == (
        "commit:      1a2b3c4d5e6f\n"
        "time:        2026-01-02 03:04\n"
        "author:      alice (1000)\n"
        "subject:     glix add laptop: x\n"
        "reason:      needed\n"
        f"transaction: {ID}\n"
        "  added x\n"
        "\n"
        "  added \\x1b\n"
        "\n"
        "commit:  1a2b3c4d5e6f\n"
        "time:    2026-01-02 03:04\n"
        "author:  bo\n"
        "subject: glix add laptop: x\n"
    )


def test_inputs_prints_its_table(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    nixpkgs = {"name": "nixpkgs", "url": "github:NixOS/nixpkgs", "revision": COMMIT, "age": 70, "managed": False}
    tool = {"name": "tool", "managed": True, "hosts": ["pi"], "packages": ["pi/a", "pi/b", "pi/c", "pi/d"], "uses": 9}
    daemon.play("ListInputs", {"inputs": [{**nixpkgs, "hosts": ["laptop", "pi"], "packages": [], "uses": 0}, tool]})
    assert main(["inputs"]) == 0
    assert capsys.readouterr().out == (
        "NAME     REVISION  AGE       BY     USED BY                      URL\n"
        "nixpkgs  1a2b3c4   2 months  you    laptop, pi                   github:NixOS/nixpkgs\n"
        "tool                         glixd  pi/a, pi/b, pi/c and 6 more\n"
    )


def test_diff_follows_its_pages_from_one_commit(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    first = {"before": COMMIT, "files": ["a"], "diff": "--- a\n+x\n", "next": "a"}
    daemon.play("Diff", first, {"before": COMMIT, "files": ["b"], "diff": "-y\x1b\n"})
    assert main(["diff", "--host=pi"]) == 0
    assert capsys.readouterr().out == "--- a\n+x\n-y\\x1b\n"
    assert daemon.asked[1][1] == {"host": "pi", "before": COMMIT, "after": "a"}


def test_on_a_terminal_a_diff_goes_through_the_pager(
    daemon: Daemon, terminal: Callable[[str], Terminal], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon.play("Diff", {"before": COMMIT, "files": ["a"], "diff": "--- a\n+x\n"})
    monkeypatch.setenv("PAGER", f"cat >{tmp_path}/read")
    terminal("")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["diff"]) == 0
    assert (tmp_path / "read").read_text() == "--- a\n+x\n"


def test_resolve_prints_what_names_mean(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"ref": "firefox", "name": "firefox", "flake": "nixpkgs#firefox", "source": "nixpkgs", "trusted": True}
    daemon.play("Resolve", {"resolutions": [found]})
    assert main(["resolve", "firefox"]) == 0
    assert capsys.readouterr().out == (
        "REF      NAME     SOURCE   TRUSTED  FLAKE\nfirefox  firefox  nixpkgs  yes      nixpkgs#firefox\n"
    )


def test_transaction_show_prints_the_log(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    transaction = {
        "id": ID,
        "operation": "Add",
        "host": "laptop",
        "state": "failed",
        "uid": 1000,
        "login": "alice",
        "created": "2026-01-02T03:04:05Z",
        "dry_run": False,
        "error": {"name": "LockFailed", "message": "It did not lock.", "hint": "Look."},
        "log": ["one", "two\x1b"],
    }
    daemon.play("GetTransaction", transaction)
    daemon.play("ListTransactions", {"transactions": [transaction]})
    assert main(["transaction", "show", ID]) == 0
    assert capsys.readouterr().out == (
        f"id:        {ID}\n"
        "operation: Add\n"
        "host:      laptop\n"
        "state:     failed\n"
        "by:        alice (1000)\n"
        "created:   2026-01-02 03:04\n"
        "error:     It did not lock.\n"
        "hint:      Look.\n"
        "log:\n"
        "  one\n"
        "  two\\x1b\n"
    )
    assert main(["transaction", "list"]) == 0
    assert capsys.readouterr().out == (
        "ID                          STATE   OPERATION  HOST    BY     CREATED (UTC)\n"
        f"{ID}  failed  Add        laptop  alice  2026-01-02 03:04\n"
    )


def test_transaction_watch_ends_as_the_transaction_does(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("Watch", {})

    def wait(params: dict[str, Any], notify: Any) -> dict[str, Any]:
        notify({"transaction": ID, "state": "running", "step": "locking", "lines": ["fetching x"]})
        return {"id": ID, "state": "failed", "error": {"name": "NoSpace", "message": "The disk is full."}}

    daemon.play("Wait", wait)
    assert main(["transaction", "watch", ID]) == 1
    assert capsys.readouterr() == ("", "  fetching x\nlocking\nglixctl: The disk is full.\n")


def test_an_interrupt_cancels_and_exits_with_130(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("Add", {"transaction": ID})
    daemon.play("Cancel", {})

    def wait(params: dict[str, Any], notify: Any) -> dict[str, Any]:
        if params["timeout"] > 100:
            notify({"transaction": ID, "state": "running", "step": "locking"})
        return {"id": ID, "state": "cancelled"}

    daemon.play("Wait", wait)

    class Impatient:
        """A person who presses Ctrl-C as soon as there is progress."""

        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError

        def write(self, text: str) -> int:
            if "locking" in text:
                raise KeyboardInterrupt
            said.append(text)
            return len(text)

        def flush(self) -> None:
            """Nothing is kept back."""

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", Impatient())
        assert main(["add", "firefox"]) == 130
    assert [method for method, _ in daemon.asked] == ["Add", "Wait", "Cancel", "Wait"]
    assert said[-1:] == [f"glixctl: Interrupted; transaction {ID} is cancelled and nothing was changed.\n"]


def test_an_unreachable_daemon_is_an_error_in_json_too(runtime: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--mode=system", "--transport=socket", "--json"]) == 6
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["name"] == "Unreachable"
    assert captured.err.startswith("glixctl: No daemon listens at ")


def check(name: str, status: str, message: str, **more: str) -> dict[str, str]:
    return {"name": name, "status": status, "message": message, **more}


SAME = {"version": protocol.VERSION, "commit": protocol.COMMIT}


@pytest.mark.parametrize(("status", "code"), [("OK", 0), ("WARN", 0), ("FAIL", 1)])
def test_doctor_prints_a_line_for_each_check_and_ends_with_1_when_one_fails(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    daemon.play("Ping", SAME)
    bad = check("lock", status, "two\nlines\x1b", remedy="glixctl regen")
    daemon.play("Doctor", {"checks": [check("git", "OK", "git 1"), bad], "version": protocol.VERSION})
    assert main(["doctor", "--verify"]) == code
    assert daemon.asked[0] == ("Doctor", {"verify": True})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("OK    daemon  glixd ")
    assert lines[1] == "OK    git     git 1"
    assert lines[2:4] == [f"{status:<4}  lock    two", "              lines\\x1b"]
    assert lines[4:] == ([] if status == "OK" else ["              → glixctl regen"])


def test_doctor_tells_when_the_daemon_is_of_another_version(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("Ping", {"version": "0.0.1", "commit": "abc"})
    daemon.play("Doctor", {"checks": [], "version": "0.0.1"})
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("WARN  daemon  the daemon and this client differ: 0.0.1 (abc) and ")
    assert "restart" in out


def test_doctor_fix_runs_each_remedy_once_and_looks_again(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    ill = [check(name, "FAIL", "bad", fix="Regenerate") for name in ("regions", "lock")]
    daemon.play("Ping", SAME)
    daemon.play("Doctor", {"checks": ill}, {"checks": [check("regions", "OK", "good")]})
    daemon.play_transaction("Regenerate", outcome={"summary": "rewrote flake.nix", "changed": True}, commit=COMMIT)
    assert main(["doctor", "--fix", "--json"]) == 0
    assert [method for method, _ in daemon.asked] == ["Doctor", "Ping", "Regenerate", "Wait", "Doctor", "Ping"]
    for method, sent in daemon.asked:
        api.parse(api.OPERATIONS[method], sent)
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [(found["name"], found["status"]) for found in checks] == [
        ("daemon", "OK"),
        ("regions", "OK"),
        ("fix", "OK"),
    ]


def test_doctor_fix_that_fails_fails(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("Ping", SAME)
    daemon.play("Doctor", {"checks": [check("regions", "WARN", "bad", fix="Regenerate")]})
    error = {"name": "LockFailed", "message": "It did not lock.", "hint": "Look."}
    daemon.play_transaction("Regenerate", state="failed", error=error)
    assert main(["doctor", "--fix"]) == 1
    assert "FAIL  fix      Regenerate: It did not lock.\n" in capsys.readouterr().out


def test_doctor_fix_leaves_edits_to_people(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("Ping", SAME)
    edited = check("edits", "WARN", "edited", path="flake.nix")
    daemon.play("Doctor", {"checks": [edited, check("regions", "FAIL", "bad", fix="Regenerate")]})
    assert main(["doctor", "--fix"]) == 1
    assert "nothing was mended" in capsys.readouterr().out
    assert [method for method, _ in daemon.asked] == ["Doctor", "Ping"]


def test_doctor_without_a_daemon_has_one_finding(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--mode=system", "--transport=socket", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["checks"]
    assert (found["name"], found["status"]) == ("daemon", "FAIL")
    assert found["remedy"]


def test_why_a_host_does_not_evaluate_is_said_once_and_line_by_line(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    health = {"state": "failed", "message": "laptop does not evaluate: x is refused\nDo this\x1b."}
    daemon.play("List", {"packages": [], "health": health})
    assert main(["list"]) == 0
    assert "\nwarning: laptop does not evaluate: x is refused\n  Do this\\x1b.\n" in capsys.readouterr().err
    assert main(["list", "--host=laptop"]) == 0
    said = "warning: the configuration of laptop does not evaluate: x is refused\n"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "method", "answer", "said"),
    [
        (["history"], "History", {"entries": []}, "no commits"),
        (["diff"], "Diff", {"diff": "", "files": []}, "nothing was edited since the last commit"),
        (["diff", "1a2b3c4"], "Diff", {"diff": "", "files": []}, "nothing differs"),
        (["transaction", "list"], "ListTransactions", {"transactions": []}, "no transactions"),
        (["list"], "List", {"packages": []}, "no packages"),
        (["inputs"], "ListInputs", {"inputs": []}, "no inputs"),
    ],
)
def test_where_there_is_nothing_a_note_says_so_instead_of_an_empty_table(
    daemon: Daemon,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    method: str,
    answer: dict[str, Any],
    said: str,
) -> None:
    daemon.play(method, answer)
    assert main(words) == 0
    assert (told := capsys.readouterr()).out == ""
    assert told.err == f"glixctl: {said}\n"
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_generation_is_compared_with_a_generation_only(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["12", "1a2b3c4"], ["1a2b3c4", "12"]):
        assert main(["diff", *words]) == 2
        assert capsys.readouterr().err.startswith("glixctl: A generation can be compared with another generation only.")
    assert not daemon.asked


def test_there_is_nothing_before_the_first_generation(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.play("ListGenerations", {"generations": [{"number": 1, "current": True}]})
    assert main(["system", "rollback", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["name"] == "UnknownGeneration"


def test_what_comes_in_by_the_pipe_is_called_standard_input(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, said in (("x", "Standard input is no TOML: "), ("", "Standard input has no list of operations.")):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert main(["apply", "-f", "-"]) == 2
        assert capsys.readouterr().err.startswith(f"glixctl: {said}")


def test_the_repository_that_was_named_is_the_one_to_make(
    daemon: Daemon, wire_error: type[WireError], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.play("List", wire_error("NoRepository", "There is no repository at /x.", "Run: glixctl init"))
    assert main(["list"]) == 4
    assert capsys.readouterr().err.endswith("hint: Run: glixctl init\n")
    default = protocol.user_repository(os.environ)
    assert main(["list", "--dir", default]) == 4
    assert capsys.readouterr().err.endswith(f"hint: Run: glixctl init --dir {default}\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("mode", "hint"), [("user", "Leave --transport out"), ("system", "Is glixd installed")])
def test_a_bus_that_is_not_there_is_named(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str, hint: str
) -> None:
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"):
        monkeypatch.setenv(name, f"unix:path={runtime}.bus")
    assert main(["list", "--mode", mode, "--transport", "bus"]) == 6
    said = capsys.readouterr().err
    named = "system" if mode == "system" else "session"
    assert f"glixctl: The {named} bus can't be reached: No such file or directory.\nhint: {hint}" in said
    gc.collect()  # the library of the bus forgets to close the socket of a connection that failed


def test_a_folder_that_is_no_clone_is_named(daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"glixctl: {tmp_path} is no clone that glixctl made.")
