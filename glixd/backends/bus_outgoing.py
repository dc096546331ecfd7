# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits to be written to the bus: each destination has its turn.

The bus takes 2 KiB of a connection before it looks after the next one, so that the answers to five thousand calls of one caller wait
for a tenth of a second, and whoever asked last would wait behind all of them.
"""

from __future__ import annotations

from collections import OrderedDict, deque


class Outgoing:
    """Messages by destination; the order is kept among those of one destination, and the others go past them."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[bytes]] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return self._size

    def add(self, destination: str, message: bytes) -> None:
        """Let a message wait; signals for everybody have a destination of their own, the empty one."""
        self._waiting.setdefault(destination, deque()).append(message)
        self._size += len(message)

    def take(self, size: int) -> bytes:
        """Messages of `size` bytes together or a little more, one of each destination in turn; nothing when none wait."""
        taken: list[bytes] = []
        while self._waiting and size > 0:
            destination, messages = self._waiting.popitem(last=False)
            message = messages.popleft()
            taken.append(message)
            size -= len(message)
            self._size -= len(message)
            if messages:
                self._waiting[destination] = messages
        return b"".join(taken)
