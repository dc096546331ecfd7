# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of flake inputs: one input for each pair of package name and URL, over all hosts of the repository."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

INPUT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,191}", re.ASCII)
"""What every nix takes as the name of an input to update; long enough for a package name with prefix and suffix."""

RESERVED_INPUTS: Final = frozenset({"self", "nixpkgs", "home-manager", "glixos-core"})
"""Inputs that the flake declares itself, outside the managed region."""

_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_DIGEST_DIGITS: Final = 8


def assign_input(name: str, url: str, taken: Mapping[str, str]) -> str:
    """The input for package `name` from `url`, where `taken` maps the inputs of all hosts to their URLs.

    An input that already stands for the pair is found again. The first URL under a name gets the fitted name itself,
    another one gets `<name>-<8 hex digits of the sha256 of the URL>`.
    """
    plain = fitted(name)
    digest = hashlib.sha256(url.encode()).hexdigest()
    candidates = [plain, *(f"{plain}-{digest[:digits]}" for digits in range(_DIGEST_DIGITS, len(digest) + 1, 8))]
    for candidate in candidates:
        if taken.get(candidate) == url:
            return candidate
    return next(candidate for candidate in candidates if candidate not in taken)


def fitted(name: str) -> str:
    """A package name as an input name: other characters become `-`, and `p-` goes before a digit, `_` or a reserved name."""
    plain = _UNFIT.sub("-", name)
    return f"p-{plain}" if plain in RESERVED_INPUTS or not plain[:1].isalpha() else plain
