# SPDX-License-Identifier: GPL-3.0-or-later
"""What one caller may make a front-end hold."""

from __future__ import annotations

from glixd.protocol import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID, MAX_JSON_MESSAGE
from glixd.values import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the socket."""

    message: int = MAX_JSON_MESSAGE
    batch: int = 64
    batch_bytes: int = 4 * 1024 * 1024
    """Bytes that the answers of one batch may have together; those beyond are refused."""
    under_way: int = 64
    """Requests of one connection that run; with so many, reading pauses."""
    high_water: int = 256 * 1024
    """Bytes that wait to be read by the peer, from which on no progress is sent and no request is read."""
    hard: int = 16 * 1024 * 1024
    """Bytes that wait to be read by the peer, over which it is cut off."""
    hard_per_uid: int = 32 * 1024 * 1024
    """The same, of all connections of one uid together."""
    arrival: float = 30.0
    """Seconds for one message to arrive completely."""
    stalled: float = 60.0
    """Seconds without reading anything, over the high-water mark, after which a peer is cut off."""
    connections_per_uid: int = MAX_CONNECTIONS_PER_UID
    connections: int = MAX_CONNECTIONS
    """Connections of all uids but 0, which has its own beyond them."""


@dataclass(frozen=True, slots=True)
class BusLimits:
    """Of the bus."""

    under_way: int = 64
    """Calls of one connection that run at the same time; more of them wait."""
    under_way_per_uid: int = 512
    waiting: int = 256
    """Calls of one connection that wait; more of them are refused."""
    waiting_bytes: int = 512 * 1024
    waiting_bytes_per_uid: int = 2 * 1024 * 1024
    waiting_bytes_in_all: int = 8 * 1024 * 1024
    connections_per_uid: int = MAX_CONNECTIONS_PER_UID
    connections: int = MAX_CONNECTIONS
    """Connections of all uids but 0 that have called us, and are still on the bus."""
