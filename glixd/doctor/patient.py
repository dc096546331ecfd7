# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check looks at, and how it says what it found."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from glixd import api
from glixd.backends.nix import Nix
from glixd.backends.repository import Repository
from glixd.backends.state import Database
from glixd.health import HealthKeeper
from glixd.locking import Locker
from glixd.resolvers.asking import Facts
from glixd.values import dataclass

LOW_BYTES: Final = 1024**3
"""Free bytes below which a build may not fit."""
REGENERATE: Final = "Regenerate"
"""The operation that mends what glixd itself writes."""


@dataclass(frozen=True, slots=True)
class Patient:
    """The daemon with its machine and its repository."""

    repository: Repository
    nix: Nix
    locker: Locker
    facts: Facts
    health: HealthKeeper
    database: Database
    machine: str
    """The host that this machine is."""
    state: Path
    bus: Callable[[], str | None]
    """Why the daemon can't be reached on its bus; None where it can, or should not be."""
    authority: Callable[[], str | None]
    """Why nobody but root can be authorised; None where all is well."""
    has_user: Callable[[str], bool]
    """Whether this machine has a user of that name."""
    low_bytes: int = LOW_BYTES
    verify: bool = False
    """Whether to lock everything once more, which may need the network."""


Check = Callable[[Patient], Iterable[api.Check]]
"""One check; it is named like its function, unless it says otherwise."""


def fine(name: str, message: str) -> api.Check:
    """Nothing to do."""
    return api.Check(name=name, status=api.Status.OK, message=message)


def doubtful(
    name: str, message: str, remedy: str | None = None, *, path: str | None = None, fix: str | None = None
) -> api.Check:
    """It works, and deserves a look."""
    return api.Check(name=name, status=api.Status.WARN, message=message, remedy=remedy, path=path, fix=fix)


def failed(
    name: str, message: str, remedy: str | None = None, *, path: str | None = None, fix: str | None = None
) -> api.Check:
    """Something does not work."""
    return api.Check(name=name, status=api.Status.FAIL, message=message, remedy=remedy, path=path, fix=fix)


def has_user(name: str) -> bool:
    """Whether this machine has a user of that name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
