# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault sweep of one mutation: disturb it at every point, then look whether the repository is exactly old or new.

Each point has a copy of one repository of its own, in which a person has work of all kinds under way. What is wrong
afterwards is told in sentences, so that a sweep over an unsafe way of working can be seen to find something.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from glixd.errors import GlixError
from tests.support.faults import KILL, KILLED, Call, Ended, Fault, calls, disturbed, python
from tests.support.hermetic import git, write_files
from tests.support.one_mutation import VARIANTS
from tests.support.plain import HOST, MANIFEST, Workshop, add, make_plain_repository

AROUND: Final = 4
"""Calls before and after the commit point that are tried in any case."""
WORKERS: Final = len(os.sched_getaffinity(0))
ADDED: Final = "firefox"
MANAGED: Final = ("flake.nix", "flake.lock", MANIFEST)
TRACKED: Final = {"notes/tracked.txt": "as committed\n", "notes/staged.txt": "as committed\n"}
UNDER_WAY: Final = {
    "notes/tracked.txt": "changed by hand\n",
    "notes/staged.txt": "staged by hand\n",
    "notes/new-and-staged.txt": "new\n",
    "notes/untracked.txt": "nobody else has this\n",
    f"hosts/{HOST}/default.nix": "{ } # changed by hand\n",
}
"""What a person has in the work tree and has not committed."""
STAGED: Final = ("notes/staged.txt", "notes/new-and-staged.txt")


@dataclass(frozen=True)
class Sweep:
    """One mutation in one variant, under one kind of fault."""

    template: Path
    """A repository as `prepare` makes it."""
    folder: Path
    fault: Fault = KILL
    variant: str = "safe"

    def calls(self) -> list[Call]:
        """The points of the sweep."""
        place = self._place(0)
        try:
            return calls(self._command(place), self.fault, below=place / "repository")
        finally:
            shutil.rmtree(place)

    def problems(self, points: Iterable[int]) -> dict[int, list[str]]:
        """What is wrong after a fault at each of these points; nothing for a point that is clean."""
        chosen = list(points)
        with ThreadPoolExecutor(WORKERS) as pool:
            found = dict(zip(chosen, pool.map(self._problems, chosen), strict=True))
        return {point: problems for point, problems in found.items() if problems}

    def _place(self, point: int) -> Path:
        place = self.folder / f"{self.variant}-{self.fault.name.replace(' ', '-')}-{point}"
        shutil.copytree(self.template, place / "repository", symlinks=True)
        return place

    def _command(self, place: Path) -> list[str]:
        arguments = (place / "repository", place / "state", self.variant, ADDED)
        return python("tests.support.one_mutation", *arguments)

    def _problems(self, point: int) -> list[str]:
        place = self._place(point)
        before = Facts.of(place / "repository")
        ended = disturbed(self._command(place), self.fault, point, below=place / "repository")
        workshop = Workshop(place / "repository", place / "state", make=VARIANTS[self.variant])
        problems = list(_look(workshop, before, ended, self.fault))
        if not problems:
            shutil.rmtree(place)
        return problems


@dataclass(frozen=True)
class Facts:
    """What of a repository must be the same whatever happens, or exactly old or new."""

    head: str
    commits: int
    status: str
    others: dict[str, bytes]
    """The files that are not glixd's."""

    @classmethod
    def of(cls, root: Path) -> Facts:
        """The facts of a repository as it is now."""
        others = {
            os.fspath(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(root).parts
        }
        for path in MANAGED:
            others.pop(path, None)
        return cls(
            git(root, "rev-parse", "HEAD"),
            int(git(root, "rev-list", "--count", "HEAD")),
            git(root, "--no-optional-locks", "status", "--porcelain", "--untracked-files=all"),
            others,
        )


def prepare(folder: Path) -> Path:
    """Make the repository that sweeps copy: one that glixd has written to, with a person's work under way."""
    root = folder / "template"
    make_plain_repository(root, TRACKED)
    workshop = Workshop(root, folder / "state")
    workshop.recover()
    workshop.run(add("ripgrep"))
    workshop.close()
    write_files(root, UNDER_WAY)
    git(root, "add", "--", *STAGED)
    return root


def _look(workshop: Workshop, before: Facts, ended: Ended, fault: Fault) -> Iterator[str]:
    """Everything that is wrong after a fault, before and after recovery."""
    told = _told(ended)
    if told is None and not (fault.kills and ended.status == KILLED):
        yield f"it ended with {ended.status} and told nothing: {ended.stderr.decode()[-800:]}"
    try:
        for _ in range(2):  # recovery is idempotent
            workshop.recover()
            yield from old_or_new(workshop.root, before, told)
            yield from shows_head(workshop.root, before)
        yield from next_works(workshop)
    except (GlixError, OSError) as error:
        yield f"the next command fails: {error}"
    finally:
        workshop.close()


def _told(ended: Ended) -> dict[str, Any] | None:
    """What a client was told."""
    lines = ended.stdout.decode().splitlines()
    return json.loads(lines[0]) if lines else None


def old_or_new(root: Path, before: Facts, told: dict[str, Any] | None) -> Iterator[str]:
    """What is wrong with a repository that must be exactly old or new, as the client was told; also while a disk is full."""
    after = Facts.of(root)
    has = f"[packages.{ADDED}]" in git(root, "show", f"HEAD:{MANIFEST}")
    if after.commits - before.commits not in (0, 1):
        yield f"HEAD moved by {after.commits - before.commits} commits"
    if has is not (after.head != before.head):
        yield f"HEAD is neither old nor new: moved {after.head != before.head}, package there {has}"
    if told and "error" in told and has:
        yield f"an error was told, and the change is there: {told}"
    if told and told.get("commit") and told["commit"] != after.head:
        yield f"success was told, and the change is not there: {told}"
    if after.others != before.others:
        changed = {path for path in before.others | after.others if before.others.get(path) != after.others.get(path)}
        yield f"files that are not glixd's changed: {sorted(changed)}"
    for path in MANAGED:
        if (root / path).read_text().strip() not in {
            git(root, "show", f"{head}:{path}") for head in (before.head, "HEAD")
        }:
            yield f"the work tree is neither old nor new: {path}"
    yield from (f"a lock was left: {path.relative_to(root)}" for path in (root / ".git").rglob("*.lock"))
    yield from _damage(root)


def shows_head(root: Path, before: Facts) -> Iterator[str]:
    """What is wrong with a work tree that must show HEAD, with a person's work in it as it was."""
    for path in MANAGED:
        if (root / path).read_text().strip() != git(root, "show", f"HEAD:{path}"):
            yield f"the work tree does not show HEAD: {path}"
    status = Facts.of(root).status
    if status != before.status:
        yield f"git status was {before.status!r} and is {status!r}"
    yield from (f"scratch was left: {path.name}" for path in (root / ".git" / "glix" / "tmp").glob("*"))


def next_works(workshop: Workshop) -> Iterator[str]:
    """Whether the next mutation works, and does what it says."""
    root = workshop.root
    old = git(root, "rev-parse", "HEAD")
    result = workshop.run(add("next"))
    if result.warnings:
        yield f"the next mutation warns: {result.warnings}"
    if git(root, "rev-parse", "HEAD~1") != old or git(root, "rev-parse", "HEAD") != result.commit:
        yield "the next mutation did not make one commit"
    if "[packages.next]" not in (root / MANIFEST).read_text():
        yield "the next mutation is not in the work tree"


def _damage(root: Path) -> Iterator[str]:
    done = subprocess.run(
        ["git", "-C", os.fspath(root), "fsck", "--strict", "--no-dangling", "--no-progress"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or done.stderr:
        yield f"git fsck: {done.stdout}{done.stderr}"


def commit_point(points: Sequence[Call]) -> int:
    """The number of the call that moves the branch."""
    moves = [call.point for call in points if call.name == "rename" and call.path.endswith("/refs/heads/main.lock")]
    assert len(moves) == 1, points
    return moves[0]


def some(points: Sequence[Call], step: int, around: Callable[[Sequence[Call]], int] | None = None) -> list[int]:
    """Every `step`th point, and all around one of them."""
    chosen = {call.point for call in points[::step]}
    if around:
        middle = around(points)
        chosen |= {call.point for call in points if abs(call.point - middle) <= AROUND}
    return sorted(chosen)
