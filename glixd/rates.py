# SPDX-License-Identifier: GPL-3.0-or-later
"""How often one uid may ask for what costs more than a lookup: a bucket that a call takes from and that time fills again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from glixd.errors import InvalidRequest
from glixd.protocol import CALLS_AT_ONCE, CALLS_PER_SECOND, ErrorCode

_KEPT: Final = 1024
"""Uids that are remembered; over that, those whose bucket is full again are forgotten."""


class Rates:
    """The buckets of all uids. A uid that nobody has heard of for a while has a full one, and takes no room."""

    def __init__(
        self,
        per_second: float = CALLS_PER_SECOND,
        at_once: int = CALLS_AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._full_at: dict[int, float] = {}
        """When the bucket of a uid is full again: all that there is to know of it."""

    def take(self, uid: int) -> None:
        """Count one call of a uid; raises LimitExceeded when its bucket is empty."""
        now = self._clock()
        empty = self._at_once / self._per_second
        full_at = max(now, self._full_at.get(uid, now)) + 1 / self._per_second
        if full_at - now > empty + 1e-9:
            raise self._too_often(uid, full_at - now - empty)
        self._full_at[uid] = full_at
        if len(self._full_at) > _KEPT:
            self._full_at = {other: moment for other, moment in self._full_at.items() if moment > now}

    def __len__(self) -> int:
        """How many uids are remembered."""
        return len(self._full_at)

    def _too_often(self, uid: int, wait: float) -> InvalidRequest:
        return InvalidRequest(
            f"uid {uid} asks too often: {self._per_second:g} requests a second is the most, and {self._at_once} at once.",
            code=ErrorCode.LIMIT_EXCEEDED,
            hint=f"Ask again in {max(wait, 0.01):.2g} s; a batch of changes is one request (Apply).",
            details={"limit": self._at_once, "milliseconds": math.ceil(wait * 1000)},
        )
