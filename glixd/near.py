# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that are spelt like one that nobody knows, and the hint that asks whether one of them was meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

CLOSE: Final = 0.6
"""How alike a name has to be to be suggested."""


LONGEST: Final = 255
"""Characters of a name. To compare a text of a mebibyte with all of them takes seconds."""


def near(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that are spelt most like `name`, the likest first; a text that is no name is like none."""
    if len(name) > LONGEST:
        return []
    import difflib  # slow to load, and needed where something went wrong

    return difflib.get_close_matches(name, dict.fromkeys(known), n=count, cutoff=CLOSE)


def did_you_mean(names: Sequence[str], otherwise: str) -> str:
    """Whether one of these was meant, or where there are none what else helps."""
    return f"Did you mean {' or '.join(names)}?" if names else otherwise
