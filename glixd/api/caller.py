# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks, as the kernel or the bus says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel or the bus says it; never as the request says it."""

    uid: int
    login: str
    address: str
    """The unique bus name, or `socket:<n>`: the subject of an authorisation, and the key of limits per connection."""
