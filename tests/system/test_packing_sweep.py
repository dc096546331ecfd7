# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault at every system call of the housekeeping loses no object that anybody can refer to.

By default a part of the points is tried, with GLIX_FULL_SWEEP=1 in the environment every one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from glixd.backends.packs import GRACE, Packs
from glixd.backends.process import Cancellation
from glixd.errors import GlixError
from tests.support.faults import FAULTS, KILL, KILLED, Call, Fault, Watch, calls, follow, hit
from tests.support.hermetic import git
from tests.support.plain import Workshop, add, make_plain_repository
from tests.support.workbench import MARKS, spread

SOME = {fault: 5 if fault is KILL else 2 for fault in FAULTS}
MANY = 2
"""Packs that are merged, so that one tidying packs, merges and prunes."""
pytestmark = MARKS


class Careless(Packs):
    """Deletes the old packs before the new one has its place: what the sweep must be able to see."""

    def _place(self, index: Path) -> None:
        for path in (self._objects / "pack").glob("pack-*"):
            path.unlink()
        super()._place(index)


class Bench:
    """A repository with loose objects, packs and waste, of which each point gets a copy."""

    def __init__(self, folder: Path, variant: type[Packs] = Packs) -> None:
        self._folder = folder
        self._variant = variant
        self._template = folder / "template"
        root = self._template / "repository"
        make_plain_repository(root)
        with_parts = Workshop(root, self._template / "state")
        with_parts.recover()
        for number in range(3):
            with_parts.run(add(f"package-{number}"))
            if number < 2:
                Packs(with_parts.git, needed=(0, 0)).tidy(Cancellation())
        with_parts.close()
        self.young, self.old = self._waste(root, "young"), self._waste(root, "old")
        moment = time.time() - GRACE - 3600
        os.utime(root / ".git" / "objects" / self.old[:2] / self.old[2:], (moment, moment))
        self.objects = self._objects(root)

    def calls(self) -> list[Call]:
        """The calls of an undisturbed tidying."""
        place = self._place("whole")
        log = place / "log"
        assert self._follow(place, Watch(place / "repository", log=log), KILL, 0) == 0
        assert self.objects - self._objects(place / "repository") == {self.old}
        return calls(log)

    def problems(self, fault: Fault, point: int) -> list[str]:
        """What is wrong after a fault at one point."""
        place = self._place(f"{fault.name.replace(' ', '-')}-{point}")
        root = place / "repository"
        status = self._follow(place, Watch(root), fault, point)
        found = [] if status == 0 or (fault.kills and status == KILLED) else [f"it ended with {status}"]
        found += self._look(root)
        if not found:
            found += self._go_on(place, root)
        shutil.rmtree(place)
        return found

    def _follow(self, place: Path, watch: Watch, fault: Fault, point: int) -> int:
        def work() -> None:
            workshop = Workshop(place / "repository", place / "state")
            try:
                self._variant(workshop.git, many=MANY, needed=(0, 0)).tidy(Cancellation())
            except GlixError:
                pass  # it is logged, and tried again
            finally:
                workshop.close()

        return follow(work, watch, fault, point)

    def _look(self, root: Path) -> list[str]:
        lost = self.objects - {self.old} - self._objects(root)
        done = subprocess.run(
            ["git", "-C", os.fspath(root), "fsck", "--strict", "--no-dangling", "--no-progress"],
            capture_output=True,
            text=True,
            check=False,
        )
        damage = f"{done.stdout}{done.stderr}".strip() if done.returncode else ""
        return [*([f"lost: {sorted(lost)}"] if lost else []), *([damage] if damage else [])]

    def _go_on(self, place: Path, root: Path) -> list[str]:
        """The next change works, and the next tidying does what this one did not."""
        workshop = Workshop(root, place / "state")
        try:
            workshop.recover()
            commit = workshop.run(add("next")).commit
            packs = Packs(workshop.git, many=MANY, needed=(0, 0))
            packs.tidy(Cancellation())
            loose = packs.loose()
        except GlixError as error:
            return [f"what comes next fails: {error}"]
        finally:
            workshop.close()
        problems = [] if git(root, "rev-parse", "HEAD") == commit else ["the next change is not there"]
        problems += [] if loose == 1 else [f"{loose} objects are loose still, of which one is young waste"]
        problems += ["scratch was left"] if (root / ".git" / "glix" / "packing").exists() else []
        return [*problems, *self._look(root)]

    def _place(self, name: str) -> Path:
        place = self._folder / name
        shutil.copytree(self._template, place, symlinks=True)
        return place

    @staticmethod
    def _waste(root: Path, text: str) -> str:
        argv = ["git", "-C", os.fspath(root), "hash-object", "-w", "--stdin"]
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout.strip()

    @staticmethod
    def _objects(root: Path) -> set[str]:
        return set(git(root, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").splitlines())


def chosen(points: list[Call], fault: Fault) -> list[int]:
    """Every call that the fault can hit, or some of them, evenly spread, by their number among those of its kind."""
    return [call.point for call in spread(hit(points, fault), SOME[fault], turn=1)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_housekeeping_loses_nothing_whatever_call_fails(
    fault: Fault, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path)
    points = bench.calls()
    tried = chosen(points, fault)
    problems = {point: told for point in tried if (told := bench.problems(fault, point))}
    with capsys.disabled():
        print(
            f"\nhousekeeping, {fault.name}: {len(tried) - len(problems)} of {len(tried)} points clean, {len(points)} calls"
        )
    assert problems == {}


def test_the_sweep_sees_a_housekeeping_that_deletes_too_early(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Careless)
    place = [call.point for call in Bench(tmp_path / "safe").calls() if call.name.startswith("link")]
    assert any(bench.problems(KILL, point) for point in place)
