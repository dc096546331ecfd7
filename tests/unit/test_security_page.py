# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about security: every threat names a test, and that test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from glixd import audit

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "explanation" / "security.md").read_text()
ROW = re.compile(r"^\| (?P<threat>[^|]+) \| `(?P<file>tests/[^:`]+)::(?P<test>test_\w+)` \|$", re.MULTILINE)


def named_in(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_threat_has_a_test_that_is_there() -> None:
    rows = list(ROW.finditer(PAGE))
    table = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert len(rows) == len(table) - 2, "a row of the table has another form"
    assert len(rows) >= 50
    for row in rows:
        assert row["test"] in named_in(CHECKOUT / row["file"]), row["threat"]


def test_the_ids_of_the_audit_trail_are_documented() -> None:
    page = (CHECKOUT / "docs" / "reference" / "journal.md").read_text()
    for identity in (audit.DECIDED, audit.DONE):
        assert re.fullmatch(r"[0-9a-f]{32}", identity)
        assert f"| `{identity}` |" in page
    for result in audit.RESULTS.values():
        assert f"`{result}`" in page
