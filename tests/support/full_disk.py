# SPDX-License-Identifier: GPL-3.0-or-later
"""A change on a disk that is nearly full, in a mount namespace that takes the disk along when it ends.

    python -m tests.support.full_disk TASKS

TASKS is a file of pickled tasks. A tmpfs is mounted on a folder, and for each task a copy of its world is put there and the
disk is filled until so many KiB, or inodes, are left. What is wrong after the change, after a recovery while the disk is
still full, and once there is room again is printed as JSON, one line a task: {"told": …, "problems": […]}.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.faults import KILL
from tests.support.sweep import Case, Reference, Told, aside, examine, examine_full, tried

PAGE = 4096
READ_ONLY = "read-only"
SIZES = {"bytes": "size=24m", "inodes": "size=64m,nr_inodes=2000", READ_ONLY: "size=24m"}


@dataclass(frozen=True)
class Task:
    """One change at one level."""

    case: Case
    known: Reference
    kind: str
    free: int
    state_too: bool
    """Whether the state of the daemon is on the same disk."""


@contextmanager
def nearly_full(folder: Path, kind: str, free: int) -> Iterator[None]:
    """Fill the file system of `folder`, but for `free` KiB or inodes; or let nobody write to it."""
    if kind == READ_ONLY:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        return
    ballast = folder / "ballast"
    ballast.mkdir()
    try:
        if kind == "bytes":
            _fill_bytes(ballast / "file", free * 1024)
        else:
            _fill_inodes(ballast, free)
        yield
    finally:
        shutil.rmtree(ballast)


def _fill_bytes(file: Path, free: int) -> None:
    with file.open("wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(PAGE))
        except OSError:
            opened.truncate(max(opened.tell() - free, 0))


def _fill_inodes(ballast: Path, free: int) -> None:
    made: list[Path] = []
    try:
        while True:
            path = ballast / str(len(made))
            path.touch()
            made.append(path)
    except OSError:
        for path in made[len(made) - free :]:
            path.unlink()


def try_level(task: Task, disk: Path, place: Path) -> dict[str, Any]:
    """What was told, and what is wrong, at one level."""
    case = replace(task.case, without_room=True)
    copy = task.case.template.copy_to(disk / "world", place)
    if not task.state_too:
        shutil.move(copy.state, place / "state")
        copy.state.symlink_to(place / "state")
    with case.beside.standing(case.template, copy) as world:
        with nearly_full(disk, task.kind, task.free):
            told, status = tried(case, world, KILL, 0)
            problems = [] if status == 0 else [f"it ended with {status}"]
            problems += aside(place, lambda: examine_full(case, world, task.known, told))
        problems += aside(place, lambda: examine(case, world, task.known, told))
    return {"told": _word(told), "problems": problems}


def _word(told: Told) -> str:
    if told.ended is None:
        return told.error or "nothing"
    if "error" in told.ended:
        return str(told.ended["error"]["name"])
    pending = any("the work tree does not show it yet" in words for words in told.ended.get("warnings", ()))
    return "pending" if pending else "committed"


def main() -> None:
    """Try the tasks of a file."""
    file = Path(sys.argv[1])
    tasks: list[Task] = pickle.loads(file.read_bytes())
    disk = file.parent / "disk"
    disk.mkdir()
    for number, task in enumerate(tasks):
        place = file.parent / str(number)
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", SIZES[task.kind], "tmpfs", disk], check=True)
        found = try_level(task, disk, place)
        os.write(sys.stdout.fileno(), json.dumps(found).encode() + b"\n")
        subprocess.run(["umount", "--lazy", disk], check=True)  # whoever was killed may take a moment to go
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
