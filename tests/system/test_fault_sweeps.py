# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault at every system call of every mutation leaves the repository exactly old or exactly new.

By default a part of the points is tried: some of each kind, and all around the commit point. With GLIX_FULL_SWEEP=1 in the
environment every one is; `./prove faults` does that.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glixd import api
from glixd.api import Kind
from tests.support.faults import FAULTS, FSYNC_EIO, KILL, ONE_ENOSPC, RENAME_EIO, STICKY_ENOSPC, Fault
from tests.support.mutations import mutations
from tests.support.repositories import Sources
from tests.support.sweep import Reference
from tests.support.workbench import MARKS, Workbench, spread

SOME = {KILL: 5, ONE_ENOSPC: 2, STICKY_ENOSPC: 2, FSYNC_EIO: 1, RENAME_EIO: 1}
"""So many points are tried of each case, evenly spread, where not every one is."""
AROUND = 1
"""Calls before and after the commit point that are tried in any case."""
LAST = 2
"""The synchronisations at the end that are tried in any case: what fails there comes after the commit point."""
FOLDERS = 3
"""So many of the folders that are made outside of git's are tried in any case: a disk without inodes fails there first."""
CASES = mutations(Sources("", "", "", "", ""))
pytestmark = MARKS


def commit_point(known: Reference, fault: Fault) -> int | None:
    """The number of the call that makes the change be there; None where the fault can't hit it, or there is none."""
    ends = "/refs/heads/main" if known.old else "/world/repository"
    moves = [call.point for call in known.points(fault) if call.name.startswith("rename") and call.other.endswith(ends)]
    return moves[-1] if moves else None


def every(known: Reference, fault: Fault) -> Iterator[int]:
    """Every point, or a part of them that is another one for each case."""
    points = known.points(fault)
    some = spread(points, SOME[fault], len(known.calls))
    middle = commit_point(known, fault) or -AROUND
    last = points[-LAST:] if fault is FSYNC_EIO else ()
    folders = [call for call in points if call.name.startswith("mkdir") and "/.git/" not in call.path]
    folders = folders[:: -(-len(folders) // FOLDERS)] if fault is ONE_ENOSPC and folders else []
    for call in points:
        around = fault in (KILL, RENAME_EIO) and abs(call.point - middle) <= AROUND
        if around or call in some or call in last or call in folders:
            yield call.point


def test_every_mutation_of_the_table_has_a_sweep() -> None:
    table = {name for name, row in api.OPERATIONS.items() if row.kind is Kind.MUTATION}
    assert {case.operation for case in CASES.values()} == table, "sweep each mutation: tests/support/mutations.py"


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_done_or_not_done_whatever_call_fails(
    bench: Workbench, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    swept = bench.sweep(name, every)
    with capsys.disabled():
        print(f"\n{swept}", end="", flush=True)
    assert swept.problems == {}
    assert swept.tried.keys() == {fault.name for fault in FAULTS}
    assert all(tried or not there for tried, there in swept.tried.values())


@pytest.mark.parametrize("variant", ["in-place", "forgetful"])
def test_the_sweep_sees_what_an_unsafe_way_of_working_breaks(
    bench: Workbench, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    swept = bench.sweep("add", every, variant=variant, faults=[KILL])
    with capsys.disabled():
        print(f"\n{variant}, {swept}", end="", flush=True)
    assert swept.problems


def test_the_sweep_sees_every_file_of_a_mutation(bench: Workbench) -> None:
    _, known = bench.case("add")
    changed = {call.path.rpartition("/")[2] for call in known.calls}
    assert {"index.lock", "main.lock", "published.lock", "state.db-wal"} <= changed
    assert any(call.name == "renameat2+exchange" for call in known.calls)


def test_the_commit_point_is_on_the_disk_before_anybody_hears_of_it(bench: Workbench) -> None:
    _, known = bench.case("add")
    told = [(call.name, call.path.partition("/.git/")[2]) for call in known.calls]
    moved = told.index(("rename", "refs/heads/main.lock"))
    assert ("fsync", "refs/heads/main.lock") in told[:moved]
    assert any(name == "fsync" and path.startswith("objects/") for name, path in told[:moved])
    published = next(at for at, (name, _) in enumerate(told) if name == "renameat2+exchange")
    assert ("fsync", "refs/heads") in told[moved:published]
