# SPDX-License-Identifier: GPL-3.0-or-later
"""Where events go: one line of JSON each where nobody watches, with the level that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from glixd import log
from glixd.log import FIELDS


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield
    structlog.reset_defaults()


def written(capture: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capture.readouterr()
    assert captured.out == "", "standard output is not for the log"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_line_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    structlog.get_logger().info("transaction done", transaction="01jz", uid=1000, host="laptop", error=None)
    [line] = written(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "transaction done",
        "level": "info",
        "transaction": "01jz",
        "uid": 1000,
        "host": "laptop",
        "error": None,
    }


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_not_written(
    capsys: pytest.CaptureFixture[str], level: str, expected: list[str]
) -> None:
    log.configure(level)
    logger = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("an event")
    assert [line["level"] for line in written(capsys)] == expected


def test_a_value_can_not_start_another_line_or_move_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    structlog.get_logger().warning("refused", reason='a\n{"event": "forged"}\x1b[2J\u202e')
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert captured.rstrip("\n").isprintable()
    assert json.loads(captured)["reason"] == 'a\n{"event": "forged"}\x1b[2J\u202e'


def test_a_defect_is_written_with_its_traceback_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        structlog.get_logger().exception("defect", operation="Add")
    [line] = written(capsys)
    assert line["level"] == "error"
    assert "RuntimeError: inside" in line["exception"]


def test_a_journal_that_is_somebody_elses_is_not_written_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in ("0:0", "nonsense", "1:2:3", ""):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        log.configure("info")
        structlog.get_logger().info("here")
        [line] = written(capsys)
        assert line["event"] == "here"


def test_fields_of_the_journal_have_names_that_it_takes() -> None:
    own = {"GLIX_TRANSACTION", "GLIX_UID", "GLIX_HOST", "GLIX_ACTION", "GLIX_RESULT"}
    assert own | {"MESSAGE_ID"} == set(FIELDS.values())
