# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading TOML documents no more than once: tomllib takes a tenth of a second and more for ten thousand packages.

What the last few texts say is kept. What a text says that differs from one of them in a part is told from that part alone,
by reading it with tomllib, where that is as good as reading the whole. It is, because all of this is looked at:

- the rest is the same byte by byte, and was read whole; the part reaches from one header of a package to another (see
  `tomlregion`), so that neither can be the inside of something in the other;
- the part says something of packages alone, and does not declare the table `packages` itself;
- what the part said before is all that the known document says of these packages, so that no other place adds to them:
  each is a table of plain values with one table `config` of plain values, which TOML lets nobody declare twice;
- what the part says now names no package that stands somewhere else.

In doubt it says nothing, and the whole has to be read.
"""

from __future__ import annotations

import threading
import tomllib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

from glixd.model import tomlregion

Value = TypeVar("Value")

LONG: Final = 2 * 1024
"""Characters from which on a text is read by a part, where that can be; 20 packages have as many.

Reading all of 200 packages takes 3 ms, and a batch of a hundred edits would do it four hundred times.
"""
REMEMBERED: Final = 8
"""Documents that are kept: a change has two of each host that it touches."""


class Part(NamedTuple):
    """In what a text differs from a known one."""

    text: str
    """The part as it is now, and as the known text has it."""
    before: str
    was: tuple[str, ...]
    """The packages in it before, one behind the other in the whole."""
    now: Mapping[str, Any]
    """The tables of the packages in it now."""
    document: Mapping[str, Any]
    """What the whole says now."""


class _Documents:
    """What the last few texts say. Safe from any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._using = threading.Lock()

    def get(self, text: str) -> Mapping[str, Any] | None:
        """What a text says, where it is known."""
        with self._using:
            if text in self._known:
                self._known.move_to_end(text)
            return self._known.get(text)

    def remember(self, text: str, document: Mapping[str, Any]) -> None:
        """Keep what a text says."""
        with self._using:
            self._known[text] = document
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


_KNOWN: Final = _Documents()


def read_toml(text: str) -> Mapping[str, Any]:
    """The document as tomllib reads it, never to be changed."""
    document = _KNOWN.get(text)
    if document is None:
        document = tomllib.loads(text)
        _KNOWN.remember(text, document)
    return document


def read_part(text: str, known: str) -> Part | None:
    """What a text says by the part in which it differs from a known one; None where only reading the whole tells."""
    document = _KNOWN.get(known) if len(known) > LONG else None
    region = tomlregion.touched(known, text) if document is not None else None
    if document is None or region is None:
        return None
    was, now = _packages(region.before), _packages(region.after)
    packages = document["packages"]
    if was is None or now is None or any(packages.get(name) != table for name, table in was.items()):
        return None
    if any(name in packages for name in now if name not in was):
        return None
    after = spliced(packages, tuple(was), now)
    if after is None:
        return None
    told = {**document, "packages": after}
    _KNOWN.remember(text, told)
    return Part(region.after, region.before, tuple(was), now, told)


def spliced(whole: Mapping[str, Value], was: tuple[str, ...], now: Mapping[str, Value]) -> dict[str, Value] | None:
    """`whole` with `now` in the place of `was`; None where these do not stand one behind the other."""
    names = list(whole)
    if was == tuple(now)[: len(was)] and (len(now) == len(was) or tuple(names[-1:]) == was[-1:]):
        return {**whole, **now}  # in their places, and new ones at the end
    first = names.index(was[0]) if was else 0
    if tuple(names[first : first + len(was)]) != was:
        return None
    items = list(whole.items())
    return dict([*items[:first], *now.items(), *items[first + len(was) :]])


def _packages(part: str) -> Mapping[str, Any] | None:
    """The tables of packages in a part; None where it says anything else, or in another way than tables of plain values."""
    try:
        document = tomllib.loads(f"[packages]\n{part}")  # which may not be declared twice
    except (ValueError, RecursionError):
        return None
    packages: Mapping[str, Any] = document.pop("packages")
    return packages if not document and all(map(_is_plain, packages.values())) else None


def _is_plain(table: object) -> bool:
    """Whether a package is a table of plain values, but for one table `config` of such."""
    if not isinstance(table, dict):
        return False
    config = table.get("config", {})
    values = [value for key, value in table.items() if key != "config"]
    values += config.values() if isinstance(config, dict) else [config]
    return not any(isinstance(value, dict | list) for value in values)
