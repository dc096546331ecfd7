# SPDX-License-Identifier: GPL-3.0-or-later
"""What following nix costs: the events of fetching 24 MB, from three versions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from glixd.model.progress import Tracker

pytestmark = pytest.mark.bench

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "nix-internal-json"
ROUNDS = 5


@pytest.mark.parametrize("version", ["28", "26", "34"])
def test_the_events_of_fetching_24_megabytes(version: str) -> None:
    lines = (FOLDER / f"{version}.subst.jsonl").read_text().split("\n")[:-1]
    best = min(_seconds(lines) for _ in range(ROUNDS))
    print(
        f"\nnix {version}: {len(lines)} events in {best * 1000:.1f} ms ({best / len(lines) * 1e6:.2f} µs each; limit 100 ms)"
    )


def _seconds(lines: list[str]) -> float:
    tracker = Tracker(0.0)
    begin = time.perf_counter()
    for number, line in enumerate(lines):
        tracker.feed(line, 1.0)
        if number % 100 == 0:  # as often as anybody is told, and more
            tracker.progress(1.0)
    seconds = time.perf_counter() - begin
    assert tracker.progress(1.0).bytes_done > 24_000_000
    return seconds
