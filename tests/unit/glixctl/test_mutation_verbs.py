# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that change what is there: each is one request that the table understands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glixctl.__main__ import main
from glixd import api
from glixd.protocol import Exit

if TYPE_CHECKING:
    from tests.unit.glixctl.conftest import Daemon

OUTCOME = {"summary": "changed something on laptop", "changed": True}
COMMIT = "1a2b3c4d5e6f"
CHANGES = """
[[operations]]
operation = "Add"
refs = ["firefox", "git"]

[[operations]]
operation = "Set"
name = "git"
changes = { "config.a" = "b" }
"""
OPERATIONS: list[dict[str, Any]] = [
    {"operation": "Add", "refs": ["firefox", "git"]},
    {"operation": "Set", "name": "git", "changes": {"config.a": "b"}},
]


def asked(daemon: Daemon) -> dict[str, Any]:
    """The parameters of the one mutation that was asked for, which the table understands."""
    (method, parameters), (waited, _) = daemon.asked
    assert waited == "Wait"
    api.parse(api.OPERATIONS[method], parameters)
    assert parameters.pop("interactive") is True
    return parameters


@pytest.mark.parametrize(
    ("words", "method", "parameters"),
    [
        (
            ["set", "a", "scope=home", "config.x=y=z"],
            "Set",
            {"name": "a", "changes": {"scope": "home", "config.x": "y=z"}},
        ),
        (["set", "a", "pin="], "Set", {"name": "a", "changes": {"pin": ""}}),
        (
            ["set", "a", "flake=path:/x", "--allow-local", "--host=pi"],
            "Set",
            {"name": "a", "changes": {"flake": "path:/x"}, "allow_local": True, "host": "pi"},
        ),
        (["move", "a", "b", "--scope=home"], "Move", {"names": ["a", "b"], "scope": "home"}),
        (["move", "a", "--user", "bob"], "Move", {"names": ["a"], "user": "bob"}),
        (["update"], "Update", {}),
        (["update", "nixpkgs", "a", "--dry-run"], "Update", {"inputs": ["nixpkgs", "a"], "dry_run": True}),
        (["adopt"], "Adopt", {}),
        (["adopt", "--all", "-m", "why"], "Adopt", {"everything": True, "message": "why"}),
        (["rollback"], "Rollback", {}),
        (["rollback", "--steps", "3", "--host=pi"], "Rollback", {"steps": 3, "host": "pi"}),
        (["rollback", "--to=1a2b3c4"], "Rollback", {"to_commit": "1a2b3c4"}),
        (
            ["host", "set", "pi", "system=aarch64-linux"],
            "SetHost",
            {"host": "pi", "changes": {"system": "aarch64-linux"}},
        ),
        (["host", "remove", "pi", "--reason=sold"], "RemoveHost", {"name": "pi", "reason": "sold"}),
        (
            ["host", "rename", "pi", "attic", "--no-evaluate"],
            "RenameHost",
            {"name": "pi", "to": "attic", "evaluate": False},
        ),
    ],
)
def test_a_verb_is_one_request(daemon: Daemon, words: list[str], method: str, parameters: dict[str, Any]) -> None:
    daemon.play_transaction(method, outcome=OUTCOME, commit=COMMIT)
    assert main(words) == Exit.DONE
    assert asked(daemon) == parameters


def test_changes_of_a_file_and_of_standard_input_are_the_same(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changes.toml").write_text(CHANGES)
    daemon.play_transaction("Apply", outcome=OUTCOME, commit=COMMIT)
    assert main(["apply", "-f", str(tmp_path / "changes.toml")]) == Exit.DONE
    assert asked(daemon) == {"operations": OPERATIONS}
    daemon.asked.clear()
    monkeypatch.setattr("sys.stdin", io.StringIO(CHANGES))
    assert main(["apply", "--file=-", "--host", "pi"]) == Exit.DONE
    assert asked(daemon) == {"operations": OPERATIONS, "host": "pi"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[[operations]\n", "no TOML"),
        (b"\xff\n", "no TOML"),
        (b"", "no list of operations"),
        (b"operations = 7\n", "no list of operations"),
        (b"operations = []\n", "no list of operations"),
    ],
)
def test_a_file_without_changes_is_refused_before_anybody_is_asked(
    daemon: Daemon, tmp_path: Path, text: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "changes.toml").write_bytes(text)
    assert main(["apply", "-f", str(tmp_path / "changes.toml")]) == Exit.USAGE
    assert said in capsys.readouterr().err
    assert daemon.asked == []


def test_a_file_that_is_not_there_is_named(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "-f", "/nowhere.toml"]) == Exit.USAGE
    assert "/nowhere.toml can't be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["set", "a"],
        ["set", "a", "scope"],
        ["set", "a", "=home"],
        ["move"],
        ["move", "a", "--scope=everywhere"],
        ["rollback", "--steps", "0"],
        ["rollback", "--steps", "x"],
        ["rollback", "x"],
        ["apply"],
        ["host"],
        ["host", "set", "pi"],
        ["host", "rename", "pi"],
        ["host", "remove", "pi", "--host", "pi"],
    ],
)
def test_a_command_line_that_says_too_little_or_too_much_is_refused(daemon: Daemon, words: list[str]) -> None:
    assert main(words) == Exit.USAGE
    assert daemon.asked == []


def test_hosts_are_one_line_each(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    health = {"state": "ok"}
    hosts = [
        {
            "name": "laptop",
            "system": "x86_64-linux",
            "primary_user": "alice",
            "packages": 14,
            "enabled": 12,
            "health": health,
        },
        {"name": "pi", "packages": 0, "enabled": 0, "health": {"state": "failed"}},
    ]
    daemon.play("ListHosts", {"hosts": hosts})
    assert main(["host", "list"]) == Exit.DONE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["HOST", "SYSTEM", "PRIMARY", "USER", "PACKAGES", "HEALTH"],
        ["laptop", "x86_64-linux", "alice", "12/14", "ok"],
        ["pi", "0/0", "failed"],
    ]


def test_nothing_to_undo_exits_with_its_own_code(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"code": -32023, "name": "NothingToUndo", "message": "There is nothing to undo.", "hint": "", "details": {}}
    daemon.play_transaction("Rollback", state="failed", error=error)
    assert main(["rollback"]) == Exit.NOTHING_TO_DO
    assert "nothing to undo" in capsys.readouterr().err
