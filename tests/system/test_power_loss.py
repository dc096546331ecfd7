# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a disk still has when its power went in the middle of a mutation, the repository is exactly old or exactly new.

By default a part of the moments is tried; with GLIX_FULL_SWEEP=1 in the environment every one is, `./prove faults` does that.
"""

from __future__ import annotations

import pytest

from tests.support.beside import NOTHING
from tests.support.mutations import mutations
from tests.support.repositories import Sources
from tests.support.workbench import FULL, MARKS, Workbench

STEP = 1 if FULL else 64
"""Of so many moments one is tried."""
CLOSER = {"add and take over": 8}
"""Where it is one of fewer: an adopted edit was taken for a conflict after some moments in a row."""
CASES = [name for name, case in mutations(Sources("", "", "", "", "")).items() if case.beside is NOTHING]
"""Without what switches a machine: what a disk keeps of the machine is not tried."""
pytestmark = MARKS


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_done_or_not_done_whatever_a_disk_has_kept(
    bench: Workbench, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    swept = bench.lose_power(name, min(STEP, CLOSER.get(name, STEP)))
    with capsys.disabled():
        print(f"\n{swept}", end="", flush=True)
    assert swept.problems == {}
    assert all(tried for tried, _ in swept.tried.values())


@pytest.mark.parametrize("variant", ["in-place", "hasty"])
def test_the_loss_of_power_sees_an_unsafe_way_of_working(
    bench: Workbench, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    swept = bench.lose_power("add", 24, variant=variant)
    with capsys.disabled():
        print(f"\n{variant}, {swept}", end="", flush=True)
    assert any(
        "told" in wrong or "record says" in wrong or "neither" in wrong for wrong in map(str, swept.problems.values())
    )
