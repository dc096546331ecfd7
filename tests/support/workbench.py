# SPDX-License-Identifier: GPL-3.0-or-later
"""Where sweeps are carried: a folder in memory, a template of each case, and worker processes for all cores."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import pkgutil
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import pytest
from pydantic import BaseModel

import glixd
from glixd import log
from tests.support.blackout import moments, problems_after
from tests.support.daemon import RpcClient
from tests.support.faults import ABLE, FAULTS, Call, Fault, undisturbed
from tests.support.hermetic import HermeticNix
from tests.support.inprocess import SAFE, World, serve
from tests.support.mutations import Mutation, environment_of, make_world, mutations, own_store
from tests.support.repositories import Sources
from tests.support.sweep import Case, Reference, problems, reference

Answer = TypeVar("Answer")
WORKERS: Final = 2 * len(os.sched_getaffinity(0))
"""More than one for each core: a daemon that finds a lock waits for two seconds, in which its core would be idle."""
FULL: Final = os.environ.get("GLIX_FULL_SWEEP") == "1"
"""Whether every point is tried, and not a part of them."""
MARKS: Final = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ABLE, reason="faults are injected on x86_64 only"),
]
"""What every sweep is marked with."""
MEMORY: Final = Path("/dev/shm")
"""What a kill leaves is the same on any file system, and in memory nobody waits for a disk."""


@dataclass(frozen=True)
class Swept:
    """What a sweep over one case found."""

    case: str
    tried: dict[str, tuple[int, int]]
    """By fault the points that were tried, and how many there are."""
    problems: dict[str, list[str]]
    """By point what is wrong."""

    def __str__(self) -> str:
        tried = sum(count for count, _ in self.tried.values())
        parts = ", ".join(f"{fault} {count} of {total}" for fault, (count, total) in self.tried.items())
        return f"{self.case}: {tried - len(self.problems)} of {tried} points clean ({parts})"


class Workbench:
    """Carries sweeps; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="glix-", dir=memory))
        self._pool = ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), initializer=_warm)
        self._arranged: dict[tuple[str, str], Case] = {}
        self._references: dict[tuple[str, str], Reference] = {}
        self._number = 0

    def __enter__(self) -> Self:
        nix = HermeticNix(self.folder / "nix")
        sources = Sources.make(self.folder / "sources")
        self.mutations = mutations(sources)
        self.world = World(self.folder / "template" / "world", environment_of(nix))
        self.world.root.mkdir(parents=True)
        self._pool.submit(_make_template, self.world, nix, sources).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for folder, _, _ in os.walk(self.folder):  # a store is read-only
            os.chmod(folder, 0o700)
        shutil.rmtree(self.folder)

    def case(self, name: str, variant: str = SAFE) -> tuple[Case, Reference]:
        """A case, and what it does when nobody disturbs it."""
        case = self._case(name, variant)
        if (name, variant) not in self._references:
            self._references[name, variant] = self._pool.submit(reference, case, self.place()).result()
        return case, self._references[name, variant]

    def _case(self, name: str, variant: str) -> Case:
        if (name, variant) not in self._arranged:
            made = self._pool.submit(
                _arrange, name, self.mutations[name], self.world, self.place(), variant
            ).result()  # in a worker, since whoever forks has no threads
            self._arranged[name, variant] = made
        return self._arranged[name, variant]

    def sweep(
        self,
        name: str,
        choose: Callable[[Reference, Fault], Iterable[int]],
        *,
        variant: str = SAFE,
        faults: Sequence[Fault] = FAULTS,
    ) -> Swept:
        """Disturb a case at the points that are chosen, with each fault."""
        case, known = self.case(name, variant)
        tried: dict[str, tuple[int, int]] = {}
        running: dict[str, Future[list[str]]] = {}
        for fault in faults:
            points = {call.point: call for call in known.points(fault)}
            chosen = sorted(set(choose(known, fault)))
            tried[fault.name] = (len(chosen), len(points))
            for point in chosen:
                call = points[point]
                told = f"{fault.name} at {point}, {call.name} {os.path.relpath(call.path, case.template.root)}"
                running[told] = self._pool.submit(problems, case, known, fault, point, self.place())
        found = {told: future.result() for told, future in running.items()}
        return Swept(name, tried, {told: wrong for told, wrong in found.items() if wrong})

    def lose_power(self, name: str, step: int = 1, *, variant: str = SAFE) -> Swept:
        """Let the power go at each `step`-th moment of a case, for each disk."""
        case = self._case(name, variant)
        found = self._pool.submit(moments, case, self.place(), step).result()
        running = {str(moment): self._pool.submit(problems_after, case, found.known, moment) for moment in found.tried}
        tried = Counter(moment.keeps for moment in found.tried)
        return Swept(
            name,
            {f"a disk with {keeps}": (tried[keeps], count) for keeps, count in found.count.items()},
            {told: wrong for told, future in running.items() if (wrong := future.result())},
        )

    def place(self) -> Path:
        """A folder that is made by whoever uses it first."""
        self._number += 1
        return self.folder / str(self._number)


def spread(points: Sequence[Call], count: int, turn: int = 0) -> list[Call]:
    """All of these points, or where not every one is tried some of them, evenly spread; by `turn` others."""
    step = 1 if FULL else max(1, len(points) // count)
    return [call for number, call in enumerate(points, 1) if number % step == turn % step]


def _warm() -> None:
    """Have in this process whatever a daemon would load or make at its first request, for every child that is forked."""
    for module in pkgutil.walk_packages(glixd.__path__, "glixd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for model in _models(BaseModel):
        model.model_rebuild()
    importlib.import_module("tomlkit")
    log.configure("info")
    gc.collect()
    gc.freeze()


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _arrange(name: str, mutation: Mutation, world: World, place: Path, variant: str) -> Case:
    copy = world.copy_to(place / "world")
    if mutation.operation == "CollectGarbage":
        copy = own_store(copy, place / "nix")
    mutation.arrange(copy)
    return Case(name, copy, mutation.operation, mutation.parameters, mutation.next, variant, beside=mutation.beside)


def _make_template(world: World, nix: HermeticNix, sources: Sources) -> None:
    """Make the template, in a worker, since whoever forks has no threads."""

    def run(world: World, script: Callable[[RpcClient], None]) -> None:
        assert undisturbed(lambda: serve(world, script)) == 0

    make_world(world, nix, sources, run)
