# SPDX-License-Identifier: GPL-3.0-or-later
"""Collecting garbage: old generations where a rule gives them up, what nothing uses any more, and tags of what is gone.

It changes no file of the repository, and so it neither waits for changes nor lets one wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from glixd import api
from glixd.backends import store
from glixd.backends.process import Cancellation
from glixd.backends.repository import Repository
from glixd.backends.store import Store, generation_link
from glixd.errors import Cancelled
from glixd.model.change import Collect
from glixd.model.generations import TAGS, Generation, expendable
from glixd.transaction import Result
from glixd.values import dataclass

ROOTS_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Errand:
    """One time that garbage is collected."""

    request: Collect
    dry_run: bool
    cancellation: Cancellation
    step: Callable[[str], None]


class Collector:
    """Collects garbage with the rights of the daemon's own user. Safe from any thread."""

    def __init__(
        self,
        store: Store,
        repository: Repository,
        *,
        machine: str,
        folders: tuple[Path, ...],
        system_profile: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._repository = repository
        self._machine = machine
        self._folders = folders
        self._system_profile = system_profile
        self._clock = clock

    def run(self, errand: Errand) -> Result:
        """Collect, or in a dry run say what would be collected."""
        errand.cancellation.check()
        errand.step("looking at generations")
        old = self._old_generations(errand.request)
        tags = self._stale_tags(old)
        errand.step("looking for what nothing uses")
        roots = self._store.roots(errand.cancellation)
        dead = self._dead(old, roots, errand.cancellation)
        warnings: tuple[str, ...] = ()
        if not errand.dry_run:
            try:
                tags, warnings = self._sweep(errand, old, tags)
            except Cancelled:
                raise Cancelled("Collecting garbage was stopped; what was deleted stays deleted.") from None
            dead = {path: size for path, size in dead.items() if not Path(path).exists()}
        links = [str(generation_link(profile, one)) for profile, ones in old.items() for one in ones]
        kept = [f"{link} -> {target}" for link, target in sorted(roots.items()) if link not in links]
        garbage = api.Garbage(
            freed=sum(dead.values()),
            paths=len(dead),
            generations=tuple(links),
            tags=tuple(tags),
            roots=tuple(kept[:ROOTS_LIMIT]),
        )
        outcome = api.Outcome(
            summary=_summary(garbage, dry_run=errand.dry_run), changed=bool(dead or links or tags), garbage=garbage
        )
        return Result(outcome, warnings=warnings)

    def _old_generations(self, request: Collect) -> dict[Path, list[Generation]]:
        """By profile the generations that the rule gives up."""
        found = {
            profile: expendable(generations, request.rule, self._clock())
            for profile, generations in store.profiles(self._folders).items()
        }
        return {profile: generations for profile, generations in found.items() if generations}

    def _dead(
        self, old: dict[Path, list[Generation]], roots: dict[str, str], cancellation: Cancellation
    ) -> dict[str, int]:
        """What would be deleted, with its size: what is dead, and what old generations alone keep alive."""
        links = {str(generation_link(profile, one)) for profile, ones in old.items() for one in ones}
        dead = dict.fromkeys(self._store.dead(cancellation))
        if links:
            kept = self._store.closure((to for link, to in roots.items() if link not in links), cancellation)
            held = self._store.closure((to for link, to in roots.items() if link in links), cancellation)
            dead |= dict.fromkeys(sorted(held - kept))
        return store.sizes(dead)

    def _sweep(
        self, errand: Errand, old: dict[Path, list[Generation]], tags: list[str]
    ) -> tuple[list[str], tuple[str, ...]]:
        """Delete; the tags that are gone now, and what did not go."""
        for profile, generations in old.items():
            errand.step(f"deleting {len(generations)} generations of {profile.name}")
            numbers = [generation.number for generation in generations]
            self._store.delete_generations(profile, numbers, errand.cancellation)
        warnings: tuple[str, ...] = ()
        if tags and not self._delete_tags(tags, errand.cancellation):
            warnings = (f"git could not delete {len(tags)} tags of generations that are gone; they stay.",)
            tags = []
        errand.step("deleting what nothing uses")
        self._store.sweep(errand.cancellation)
        return tags, warnings

    def _stale_tags(self, old: dict[Path, list[Generation]]) -> list[str]:
        """The tags of generations that this machine does not have any more; none where it has no system profile."""
        if not self._repository.exists:
            return []
        generations = store.profiles([self._system_profile.parent]).get(self._system_profile, [])
        there = {one.number for one in generations if one not in old.get(self._system_profile, [])}
        prefix = f"{TAGS}/{self._machine}/"
        numbers = {tag: tag.removeprefix(prefix) for tag in self._repository.git.refs(prefix)} if generations else {}
        return [tag for tag, number in numbers.items() if number.isdecimal() and int(number) not in there]

    def _delete_tags(self, tags: list[str], cancellation: Cancellation) -> bool:
        with self._repository.locked(cancellation) as held:
            oids = {tag: oid for tag in tags if (oid := self._repository.git.ref(tag))}
            return self._repository.refs.delete(held, oids)


def _summary(garbage: api.Garbage, *, dry_run: bool) -> str:
    if not (garbage.paths or garbage.generations or garbage.tags):
        return "nothing to collect"
    parts = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in (
            (garbage.paths, "store path"),
            (len(garbage.generations), "generation"),
            (len(garbage.tags), "tag"),
        )
        if count
    ]
    return f"{'would delete' if dry_run else 'deleted'} {' and '.join(parts)}, {_size(garbage.freed)} in all"


def _size(count: int) -> str:
    number, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
