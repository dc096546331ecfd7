# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is: one uid after the other, and within a uid one connection after the other."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

One = TypeVar("One")


class Turns(Generic[One]):
    """The connections that have something to do. Whoever had a turn stands at the end again, if there is more."""

    def __init__(self) -> None:
        self._uids: OrderedDict[int, OrderedDict[One, None]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether anybody has something to do."""
        return bool(self._uids)

    def add(self, uid: int, one: One) -> None:
        """A connection of that uid has something to do."""
        self._uids.setdefault(uid, OrderedDict())[one] = None

    def take(self) -> One:
        """Whose turn it is; raises KeyError when it is nobody's."""
        uid, ones = self._uids.popitem(last=False)
        one, _ = ones.popitem(last=False)
        if ones:
            self._uids[uid] = ones
        return one

    def drop(self, uid: int, one: One) -> None:
        """A connection has nothing to do any more, or is gone."""
        ones = self._uids.get(uid)
        if ones is not None:
            ones.pop(one, None)
            if not ones:
                del self._uids[uid]
