# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks, as the kernel or the bus says it, and whether they are still there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Protocol

from glixd.values import dataclass


class Process(Protocol):
    """The process at the other end of a socket, held so that its pid can't come to mean another one unnoticed."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def start(self) -> int:
        """When it started, in the kernel's ticks; 0 where the kernel hides that."""

    @property
    def alive(self) -> bool:
        """Whether it still runs: as long as it does, its pid means nobody else."""


class Presence:
    """Whether the connection of a caller is still there. It ends once. Lives on the event loop."""

    def __init__(self) -> None:
        self._here = True
        self._waiting: list[Callable[[], object]] = []

    @property
    def here(self) -> bool:
        """Whether the caller could still be told the answer."""
        return self._here

    def leave(self) -> None:
        """The connection is gone: whoever does something in its name hears of it."""
        self._here = False
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    @contextmanager
    def watched(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call back when the caller leaves, now where it has left already, until the end of the context."""
        if self._here:
            self._waiting.append(callback)
        else:
            callback()
        try:
            yield
        finally:
            if callback in self._waiting:
                self._waiting.remove(callback)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel or the bus says it; never as the request says it."""

    uid: int
    login: str
    address: str
    """The unique bus name, or `socket:<n>`: the key of limits per connection."""
    process: Process | None = field(default=None, compare=False, repr=False)
    """Of a peer of the socket: the subject of an authorisation. On the bus that is the unique name."""
    presence: Presence = field(default_factory=Presence, compare=False, repr=False)
