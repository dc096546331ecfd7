# SPDX-License-Identifier: GPL-3.0-or-later
"""What nixpkgs refuses is known by its words."""

from __future__ import annotations

import pytest

from glixd.api import Consent
from glixd.model.refusal import Refusal


@pytest.mark.parametrize(
    ("words", "package", "consent"),
    [
        (
            (
                "Package ‘steam-1.0.0.83’ in /nix/store/x-source/pkgs/steam/default.nix:12 has an unfree license "
                "(‘unfreeRedistributable’), refusing to evaluate.\n\na) To temporarily allow unfree packages, …"
            ),
            "steam-1.0.0.83",
            Consent.UNFREE,
        ),
        ("Package ‘old-0.9’ in /x is marked as insecure, refusing to evaluate.", "old-0.9", Consent.INSECURE),
        ("… while …\nerror: Package 'bad-1' in /x is marked as broken, refusing to evaluate.", "bad-1", Consent.BROKEN),
        ("Refusing to evaluate package 'new-2' in /x because it has an unfree license (‘y’)", "new-2", Consent.UNFREE),
    ],
)
def test_what_is_refused_and_why(words: str, package: str, consent: Consent) -> None:
    assert Refusal.in_words(words) == Refusal(package, consent)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "attribute 'package' missing",
        "Package ‘x-1’ in /x is not available on the requested hostPlatform, refusing to evaluate.",
        "the option says: package 'x' is marked as broken",
        "Package ‘x’ " + "y" * 600 + " is marked as broken, refusing to evaluate",
    ],
)
def test_other_words_are_no_refusal(words: str) -> None:
    assert Refusal.in_words(words) is None
