# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a TOML document that an edit touched, to be read alone: reading the whole of a long manifest takes long.

The part reaches from one header of a package to another (or to an end of the document), so that what stands before and
behind it is the same, and means the same, whatever the part says. That holds only where such a header can't be the inside
of something else: not in a document with strings over several lines.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_HEADER: Final = re.compile(
    r"""^[ \t]*\[[ \t]*packages[ \t]*\.[ \t]*(?:[A-Za-z0-9_-]+|"[^"\\\]\n]*"|'[^'\]\n]*')[ \t]*\][ \t]*(?:\#[^\n]*)?\r?$""",
    re.MULTILINE,
)
"""The header of a package's own table, and of none below it."""


class Region(NamedTuple):
    """The text of the part, before and after an edit."""

    before: str
    after: str


def touched(before: str, after: str) -> Region | None:
    """The part in which two versions of a document differ; None where only the whole can be read."""
    if _has_long_strings(before):
        return None
    same = common_start(before, after)
    tail = common_end(before, after, min(len(before), len(after)) - same)
    start = _header_before(before, same)
    end = _header_behind(before, len(before) - tail)
    if start is None or (end is not None and end < start):
        return None
    rest = 0 if end is None else len(before) - end
    region = Region(before[start : len(before) - rest], after[start : len(after) - rest])
    ends_as_before = end is None or region.after.endswith("\n")
    return region if ends_as_before and not _has_long_strings(region.after) else None


def _has_long_strings(text: str) -> bool:
    """Whether there may be strings over several lines, in which a line that looks like a header is none."""
    return '"""' in text or "'''" in text


def _header_before(text: str, position: int) -> int | None:
    """Where the last header of a package starts that ends before a position, with the end of its line."""
    step = 512  # a few packages; searching ten times as much would be a fifth of the time of an edit
    while True:
        start = text.rfind("\n", 0, max(position - step, 0)) + 1
        found = [match for match in _HEADER.finditer(text, start, position) if match.end() < position]
        if found:
            return found[-1].start()
        if start == 0:
            return None
        step *= 2


def _header_behind(text: str, position: int) -> int | None:
    """Where the first header of a package starts at or behind a position; None: there is none up to the end."""
    line = text.rfind("\n", 0, position) + 1
    found = _HEADER.search(text, line if line == position else text.find("\n", position) + 1 or len(text))
    return found.start() if found else None


def common_start(one: str, other: str) -> int:
    """How many characters two texts have in common at the beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_end(one: str, other: str, limit: int) -> int:
    """How many characters two texts have in common at the end, at most `limit`."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    return low
