# SPDX-License-Identifier: GPL-3.0-or-later
"""The power goes in the middle of a mutation: what each disk holds then must be old or new, as after a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.faults import Call
from tests.support.inprocess import World
from tests.support.powerloss import Disk, Keeps
from tests.support.sweep import HEARD, Case, Facts, Reference, Told, aside, asides, examine, undisturbed_run


@dataclass(frozen=True)
class Blackout:
    """A moment at which the power went, and the world that one disk has then."""

    call: Call
    keeps: Keeps
    world: World
    told: Told

    def __str__(self) -> str:
        return f"after {self.call.point}, {self.call.name} {os.path.basename(self.call.path)}, with {self.keeps}"


@dataclass(frozen=True)
class Moments:
    """Those of the moments of a case that are tried, and how many there are for each disk."""

    known: Reference
    tried: Sequence[Blackout]
    count: Mapping[Keeps, int]


def moments(case: Case, place: Path, step: int) -> Moments:
    """Run a case undisturbed; the moments after which a disk has something else than before, with the worlds of the disks.

    Only each `step`-th is tried, and all at which the client has heard how it ended.
    """
    world = case.template.copy_to(place / "world")
    old = Facts.of(world.repository)
    copies = place / "copies"
    copies.mkdir()
    known, told = undisturbed_run(case, world, old, copies)
    disk = Disk(case.template.root, world.root, copies, leaving=asides(world))
    so_far = Told(begun=told.begun)
    found: list[Blackout] = []
    count = dict.fromkeys(Keeps, 0)
    for call in known.calls:
        if not disk.follow(call):
            continue
        heard = os.path.basename(call.path) == HEARD
        if heard:
            so_far = told
        for keeps in Keeps if heard or call.synchronises else (Keeps.NAMES,):
            count[keeps] += 1
            if so_far.ended or sum(count.values()) % step == len(known.calls) % step:
                left = _world(disk, keeps, case, place / f"{call.point}-{keeps.name}")
                found.append(Blackout(call, keeps, left, so_far))
    shutil.rmtree(world.root)
    shutil.rmtree(copies)
    return Moments(known, found, count)


def _world(disk: Disk, keeps: Keeps, case: Case, place: Path) -> World:
    place.mkdir()
    world = replace(case.template, root=place / "world", place=None)
    disk.write(world.root, keeps)
    for folder in asides(case.template):
        if folder.is_dir():
            shutil.copytree(folder, world.root / folder.relative_to(case.template.root), symlinks=True)
    return world


def problems_after(case: Case, known: Reference, blackout: Blackout) -> list[str]:
    """What is wrong with what a disk has once the power is back; its world is removed."""
    place = blackout.world.beside
    found = aside(place, lambda: examine(case, blackout.world, known, blackout.told))
    shutil.rmtree(place)
    return found
