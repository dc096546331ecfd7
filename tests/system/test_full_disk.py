# SPDX-License-Identifier: GPL-3.0-or-later
"""On a disk that is full, or nearly, the repository stays exactly old or becomes exactly new, and recovers in place."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.full_disk import READ_ONLY, Task
from tests.support.hermetic import PROJECT
from tests.support.mutations import mutations
from tests.support.repositories import Sources
from tests.support.workbench import FULL, MARKS, WORKERS, Workbench

ALONE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
NAMESPACES = ((*ALONE, "--propagation", "private"), (*ALONE, "--propagation", "unchanged"))
"""A mount namespace of one's own; below a changed root that is no mount point only the second can be had."""
LEVELS = {
    "bytes": (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 256),
    "inodes": (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 40),
}
WITH_STATE = {"bytes": (0, 40, 400), "inodes": (0, 5, 40)}
"""The levels at which the state of the daemon is on the same disk."""
SOME = (6, 8)
"""The levels of which one or the other is tried of each mutation, where not every one is: a change ends in the middle of them."""
OTHERS = [name for name in mutations(Sources("", "", "", "", "")) if name not in ("init", "add")]
"""The first init asks for room of its own, whatever the repository does."""

pytestmark = MARKS


def _namespace(folder: Path) -> tuple[str, ...] | None:
    """The words that start a program where a tmpfs can be mounted on `folder` and goes away with the program."""
    mount = ("mount", "-t", "tmpfs", "tmpfs", os.fspath(folder))
    for namespace in NAMESPACES:
        mounted = subprocess.run([*namespace, *mount], capture_output=True, check=False).returncode == 0
        if mounted and not folder.is_mount():
            return namespace
        if mounted:  # it went further than its namespace
            subprocess.run(["umount", os.fspath(folder)], check=True)
    return None


@pytest.fixture(scope="module")
def namespace(bench: Workbench) -> tuple[str, ...]:
    """The words in front of a program that mounts a disk of its own."""
    folder = bench.place()
    folder.mkdir()
    found = _namespace(folder)
    if found is None:
        pytest.skip("no tmpfs can be mounted here")
    return found


def _run(namespace: tuple[str, ...], tasks: list[Task], bench: Workbench) -> list[dict[str, Any]]:
    """What was found of each task; a namespace for each core."""
    shares = [tasks[number::WORKERS] for number in range(WORKERS)]
    files = []
    for share in shares:
        folder = bench.place()
        folder.mkdir()
        files.append(folder / "tasks")
        files[-1].write_bytes(pickle.dumps(share))
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(lambda file: _found(namespace, file), files))
    return [found[number % WORKERS][number // WORKERS] for number in range(len(tasks))]


def _found(namespace: tuple[str, ...], file: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*namespace, sys.executable, "-m", "tests.support.full_disk", os.fspath(file)],
        env={**os.environ, "PYTHONPATH": os.fspath(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", LEVELS)
def test_a_full_disk_leaves_the_old_state_or_the_new_one(
    bench: Workbench, namespace: tuple[str, ...], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, known = bench.case("add")
    levels = [(free, False) for free in LEVELS[kind]] + [(free, True) for free in WITH_STATE[kind]]
    found = _run(namespace, [Task(case, known, kind, *level) for level in levels], bench)
    told = [one["told"] for one in found]
    with capsys.disabled():
        print(
            f"\nadd, {kind} left: " + ", ".join(f"{level[0]}: {word}" for level, word in zip(levels, told, strict=True))
        )
    assert {level: one["problems"] for level, one in zip(levels, found, strict=True) if one["problems"]} == {}
    assert told[0] == "NoSpace"
    assert told[len(LEVELS[kind]) - 1] == "committed"


@pytest.mark.parametrize("kind", LEVELS)
def test_no_mutation_minds_a_full_disk(
    bench: Workbench, namespace: tuple[str, ...], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = LEVELS[kind] if FULL else [LEVELS[kind][number] for number in SOME]
    turns = [levels if FULL else levels[number % len(SOME) :][:1] for number in range(len(OTHERS))]
    wanted = [(name, free) for name, turn in zip(OTHERS, turns, strict=True) for free in turn]
    found = _run(namespace, [Task(*bench.case(name), kind, free, False) for name, free in wanted], bench)
    counted = Counter(one["told"] for one in found)
    with capsys.disabled():
        print(f"\n{len(OTHERS)} other changes, {len(wanted)} times at {len(levels)} levels of {kind}: {dict(counted)}")
    assert {at: one["problems"] for at, one in zip(wanted, found, strict=True) if one["problems"]} == {}


def test_a_repository_on_a_disk_that_nobody_can_write_stays_as_it_is_and_is_named(
    bench: Workbench, namespace: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    names = (
        [name for name in OTHERS if name not in ("build", "collect garbage")]
        if FULL
        else ["add", "rename host", "rollback"]
    )
    found = _run(namespace, [Task(*bench.case(name), READ_ONLY, 0, False) for name in names], bench)
    with capsys.disabled():
        print(
            f"\n{len(found)} changes of a repository that can't be written: {dict(Counter(one['told'] for one in found))}"
        )
    assert {name: one["problems"] for name, one in zip(names, found, strict=True) if one["problems"]} == {}
    assert {one["told"] for one in found} == {"ReadOnly"}
