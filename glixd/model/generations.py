# SPDX-License-Identifier: GPL-3.0-or-later
"""The generations of a profile: which of them a rule gives up, never the current one, and the tags that say what they are.

A tag `glix/gen/<host>/<number>` names the commit that a generation was built from; its message says where in the store it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from glixd.values import dataclass

TAGS: Final = "refs/tags/glix/gen"
"""Below it a tag for each generation of a host: <host>/<number>."""


@dataclass(frozen=True, slots=True)
class Built:
    """What the tag of a generation says."""

    host: str
    number: int
    commit: str
    path: str
    transaction: str
    time: str
    """When it was made, RFC 3339 in UTC."""

    @property
    def ref(self) -> str:
        """The ref of the tag."""
        return tag_of(self.host, self.number)

    @property
    def message(self) -> str:
        """The message of the tag."""
        facts = {_PATH: self.path, _TIME: self.time, _TRANSACTION: self.transaction}
        trailers = "\n".join(f"{name}: {value}" for name, value in facts.items())
        return f"Generation {self.number} of {self.host}\n\n{trailers}\n"

    @classmethod
    def parse(cls, host: str, number: int, tag: str) -> Built | None:
        """What the object of a tag says; None where it says something else, such as a tag that people made."""
        facts = dict(
            line.split(" ", 1) for line in tag.splitlines() if line.startswith(("object ", "Glix-")) and " " in line
        )
        if not facts.keys() >= {"object", f"{_PATH}:", f"{_TIME}:", f"{_TRANSACTION}:"}:
            return None
        return cls(host, number, facts["object"], facts[f"{_PATH}:"], facts[f"{_TRANSACTION}:"], facts[f"{_TIME}:"])


_PATH: Final = "Glix-Store-Path"
_TIME: Final = "Glix-Time"
_TRANSACTION: Final = "Glix-Transaction"


def tag_of(host: str, number: int) -> str:
    """The ref that names a generation."""
    return f"{TAGS}/{host}/{number}"


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
