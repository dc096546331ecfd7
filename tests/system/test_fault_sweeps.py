# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault at every system call of a mutation leaves the repository exactly old or exactly new.

By default a part of the points is tried: every few calls, and all around the commit point. With GLIX_FULL_SWEEP=1 in the
environment every one is.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.faults import ABLE, FAULTS, KILL, Fault
from tests.support.sweep import Sweep, commit_point, prepare, some

FULL = os.environ.get("GLIX_FULL_SWEEP") == "1"
STEP = 1 if FULL else 6
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ABLE, reason="faults are injected on x86_64 only"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that every point has a copy of."""
    return prepare(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_adding_a_package_is_done_or_not_done_whatever_call_fails(
    fault: Fault, template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(template, tmp_path, fault)
    points = sweep.calls()
    step = min(STEP, 3) if fault.kind == "sync" else STEP
    chosen = some(points, step, commit_point if fault.kind in ("all", "rename") else None)
    problems = sweep.problems(chosen)
    with capsys.disabled():
        print(f"\n{fault.name}: {len(chosen) - len(problems)} of {len(chosen)} points clean, of {len(points)} in all")
    assert {point: (points[point - 1], told) for point, told in problems.items()} == {}


@pytest.mark.parametrize("variant", ["in-place", "forgetful"])
def test_the_sweep_sees_what_an_unsafe_way_of_working_breaks(
    variant: str, template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(template, tmp_path, KILL, variant)
    points = sweep.calls()
    chosen = some(points, 2 * STEP)
    problems = sweep.problems(chosen)
    with capsys.disabled():
        print(f"\n{variant}: {len(chosen) - len(problems)} of {len(chosen)} points clean, of {len(points)} in all")
    assert problems


def test_the_sweep_sees_every_file_of_a_mutation(template: Path, tmp_path: Path) -> None:
    points = Sweep(template, tmp_path).calls()
    changed = {Path(call.path).name for call in points}
    assert {"index.lock", "main.lock", "published.lock"} <= changed
    assert any(call.name == "renameat2" for call in points)
