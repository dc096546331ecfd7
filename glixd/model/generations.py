# SPDX-License-Identifier: GPL-3.0-or-later
"""The generations of a profile, and which of them a rule gives up: never the current one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a profile."""

    number: int
    created: float
    """Seconds of the epoch."""
    current: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """Which generations may go: those that are named by every part that is said; none where nothing is said."""

    keep: int | None = None
    """The newest so many stay."""
    older_than: int | None = None
    """Only those that were out of use before that many seconds go."""
    delete_old: bool = False
    """All but the current one go."""

    @property
    def empty(self) -> bool:
        """Whether nothing is given up."""
        return self.keep is None and self.older_than is None and not self.delete_old


def expendable(generations: Iterable[Generation], rule: Rule, now: float) -> list[Generation]:
    """The generations that the rule gives up, the oldest first."""
    if rule.empty:
        return []
    ordered = sorted(generations, key=lambda generation: generation.number)
    gone = ordered if rule.keep is None else ordered[: max(len(ordered) - rule.keep, 0)]
    if rule.older_than is not None:
        gone = [generation for generation in gone if _unused_since(generation, ordered) < now - rule.older_than]
    return [generation for generation in gone if not generation.current]


def _unused_since(generation: Generation, ordered: list[Generation]) -> float:
    """When the next generation took its place; the last one, if it was rolled back, was never in use for long."""
    following = ordered[ordered.index(generation) + 1 :]
    return following[0].created if following else generation.created
