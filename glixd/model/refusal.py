# SPDX-License-Identifier: GPL-3.0-or-later
"""What nixpkgs refuses to evaluate, as its own words tell it: nix has no other way to say so of a package that others need."""

from __future__ import annotations

import re
from typing import Final, Self

from glixd.api import Consent
from glixd.values import dataclass

_REASONS: Final = {
    "unfree license": Consent.UNFREE,
    "marked as insecure": Consent.INSECURE,
    "marked as broken": Consent.BROKEN,
}
_WORDS: Final = re.compile(
    rf"package [‘'\"](?P<name>[^’'\"\n]{{1,200}})[’'\"].{{0,500}}?(?P<reason>{'|'.join(_REASONS)})",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Refusal:
    """One package that nixpkgs refuses, and the consent without which it does."""

    package: str
    consent: Consent

    @classmethod
    def in_words(cls, words: str) -> Self | None:
        """What is refused where `words` are about that."""
        found = _WORDS.search(words)
        if found is None or "refusing to evaluate" not in words.casefold():
            return None
        return cls(found["name"], _REASONS[found["reason"].lower()])

    def remedy(self, package: str = "NAME") -> str:
        """What consents, for the package of a manifest that needs it."""
        return f"glixctl enable {package} {self.consent.flag}"
