# SPDX-License-Identifier: GPL-3.0-or-later
"""What a short command may load: the time that it takes is mostly the time that its imports take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.glixctl.conftest import Daemon

CHECKOUT = Path(__file__).resolve().parents[3]

SLOW = {
    "argparse",
    "asyncio",
    "dataclasses",
    "dbus_fast",
    "dbus_next",
    "difflib",
    "email",
    "hashlib",
    "http",
    "gettext",
    "importlib.metadata",
    "inspect",
    "json",
    "locale",
    "logging",
    "pathlib",
    "pydantic",
    "re",
    "rich",
    "selectors",
    "shutil",
    "socket",
    "sqlite3",
    "structlog",
    "subprocess",
    "systemd",
    "tempfile",
    "textwrap",
    "tomlkit",
    "tomllib",
    "unicodedata",
    "urllib",
    "xml",
}


def test_a_list_loads_nothing_that_is_slow_and_no_other_verb(daemon: Daemon) -> None:
    daemon.play("List", {"packages": []})
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})"]
    plain = _loaded(command)
    command[-1] += "; from glixctl.__main__ import main; main(['list'])"
    loaded = _loaded(command) - plain
    assert {"glixctl.commands.list", "glixctl.wire"} <= loaded
    assert {name for name in loaded if name in SLOW or name.partition(".")[0] in SLOW} == set()
    assert {name for name in loaded if name.startswith("glixctl.commands.")} == {
        "glixctl.commands._common",
        "glixctl.commands.list",
    }
    assert {name for name in loaded if name.startswith("glixd.")} == {"glixd.protocol"}
    assert "glixctl.start" not in loaded
    assert "glixctl.bus" not in loaded


@pytest.mark.parametrize(
    "words",
    [("list",), ("add", "hello", "--yes"), ("rollback", "--to", "1"), ("system", "rollback", "--to", "1")],
    ids=lambda words: words[0],
)
def test_a_command_that_goes_well_makes_no_enumerations(daemon: Daemon, words: tuple[str, ...]) -> None:
    """They, and the helpers of the language that they are made with, are a quarter of a start."""
    daemon.play("List", {"packages": []})
    for method in ("Add", "Rollback"):
        daemon.play_transaction(method, outcome={"summary": "done", "changed": True})
    code = f"import sys; sys.path.append({str(CHECKOUT)!r}); from glixctl.__main__ import main; assert main({words!r}) == 0"
    loaded = _loaded([sys.executable, "-I", "-S", "-c", code])
    assert "glixctl.commands._common" in loaded
    unwanted = {
        "collections",
        "contextlib",
        "enum",
        "functools",
        "glixd.codes",
        "keyword",
        "operator",
        "reprlib",
        "types",
    }
    assert loaded & unwanted == set()


def _loaded(command: list[str]) -> set[str]:
    told = [*command[:-1], command[-1] + "; print(*sys.modules)"]
    return set(subprocess.run(told, capture_output=True, text=True, check=True).stdout.split())
