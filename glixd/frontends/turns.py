# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is: one uid after the other, and within a uid one connection after the other."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

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

    def take(self) -> tuple[int, One]:
        """Whose turn it is; raises KeyError when it is nobody's."""
        uid, ones = self._uids.popitem(last=False)
        one, _ = ones.popitem(last=False)
        if ones:
            self._uids[uid] = ones
        return uid, one

    def drop(self, uid: int, one: One) -> None:
        """A connection has nothing to do any more, or is gone."""
        ones = self._uids.get(uid)
        if ones is not None:
            ones.pop(one, None)
            if not ones:
                del self._uids[uid]


SLICE: Final = 0.001
"""Seconds of turns that are taken before the rest of the daemon has its own."""
AT_ONCE: Final = 4
"""Turns that are taken in that time at the most: what is only begun in them takes time afterwards."""


class Turner(Protocol):
    """A connection that has something to do."""

    def turn(self) -> bool:
        """Do one thing; whether there is more."""


class Rounds:
    """Gives everybody who asks one turn after the other, for a short time at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turns: Turns[Turner] = Turns()
        self._next: asyncio.Handle | None = None

    def ask(self, uid: int, one: Turner) -> None:
        """Ask for a turn."""
        self._turns.add(uid, one)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._take)

    def drop(self, uid: int, one: Turner) -> None:
        """Want none any more."""
        self._turns.drop(uid, one)

    def _take(self) -> None:
        self._next = None
        until = self._clock() + SLICE
        for _ in range(AT_ONCE):
            if not self._turns:
                return
            uid, one = self._turns.take()
            if one.turn():
                self._turns.add(uid, one)
            if self._clock() >= until:
                break
        if self._turns:
            self._next = asyncio.get_running_loop().call_soon(self._take)
