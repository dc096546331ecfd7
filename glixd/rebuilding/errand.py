# SPDX-License-Identifier: GPL-3.0-or-later
"""What one rebuild is about, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable

from glixd.api import Caller
from glixd.backends.process import Cancellation
from glixd.errors import Cancelled
from glixd.model.change import Rebuild
from glixd.rebuilding.building import Tell
from glixd.values import dataclass


@dataclass(frozen=True, slots=True)
class Errand:
    """One rebuild of one commit."""

    transaction: str
    request: Rebuild
    dry_run: bool
    caller: Caller
    interactive: bool
    cancellation: Cancellation
    step: Callable[[str], None]
    tell: Tell
    building: Callable[[str], None] = lambda _commit: None
    """Called with the commit that is built, whenever that is another one."""
    heard: Callable[[], None] = lambda: None
    """Called whenever nix says something."""


def subject(caller: Caller) -> str:
    """Whom the activator asks polkit about, said at the last moment: a connection of the bus, or a process.

    A pid says who asked only as long as that process runs; a build takes long enough for it to mean somebody else.
    """
    if caller.process is None:
        return caller.address
    if not caller.process.alive:
        raise Cancelled("Whoever asked has ended, so nobody can be authorised to put it into effect.")
    return f"pid:{caller.process.pid}"
