# SPDX-License-Identifier: GPL-3.0-or-later
"""The bell of the export: it never waits, never fails, and what was rung stays until it is heard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from glixd.backends.bell import STROKE, Bell

NEWEST = "a" * 40


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "export")
    return tmp_path / "export"


@pytest.fixture
def ear(fifo: Path) -> Iterator[int]:
    """The other end, as systemd holds it."""
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def _heard(ear: int) -> bytes:
    try:
        return os.read(ear, 1 << 20)
    except BlockingIOError:
        return b""


def test_what_was_rung_stays_until_it_is_heard(fifo: Path, ear: int) -> None:
    for _ in range(3):
        Bell(fifo).ring()
    assert _heard(ear) == 3 * STROKE
    assert _heard(ear) == b""


def test_nobody_who_listens_is_no_failure(tmp_path: Path, fifo: Path) -> None:
    with capture_logs() as said:
        Bell().ring()
        Bell(fifo).ring()
        Bell(tmp_path / "nowhere").ring()
    assert said == []


def test_a_bell_that_was_rung_too_often_neither_waits_nor_forgets(fifo: Path, ear: int) -> None:
    with capture_logs() as said:
        for _ in range(70_000):
            Bell(fifo).ring()
    assert said == []
    assert _heard(ear)


def test_what_is_no_bell_is_said_and_not_written_to(tmp_path: Path, fifo: Path, ear: int) -> None:
    (tmp_path / "link").symlink_to(fifo)
    with capture_logs() as said:
        Bell(tmp_path / "link").ring()
    assert [entry["log_level"] for entry in said] == ["warning"]
    assert _heard(ear) == b""


@pytest.mark.parametrize(("copied", "rings"), [(None, True), ("b" * 40, True), (f"{NEWEST}\n", False)])
def test_a_copy_that_is_another_commit_is_rung_for(
    copied: str | None, rings: bool, tmp_path: Path, fifo: Path, ear: int
) -> None:
    if copied:
        (tmp_path / "revision").write_text(copied)
    Bell(fifo, tmp_path / "revision").ring_unless(NEWEST)
    assert bool(_heard(ear)) is rings


def test_a_repository_without_a_commit_is_not_rung_for(fifo: Path, ear: int) -> None:
    Bell(fifo).ring_unless(None)
    assert _heard(ear) == b""
