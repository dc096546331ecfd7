# SPDX-License-Identifier: GPL-3.0-or-later
"""What one rebuild is about, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glixd.backends.process import Cancellation
from glixd.model.change import Rebuild
from glixd.rebuilding.building import Tell


@dataclass(frozen=True, slots=True)
class Errand:
    """One rebuild of one commit."""

    transaction: str
    request: Rebuild
    dry_run: bool
    subject: str
    """Whom the activator asks polkit about: a unique bus name, or a process."""
    interactive: bool
    cancellation: Cancellation
    step: Callable[[str], None]
    tell: Tell
