# SPDX-License-Identifier: GPL-3.0-or-later
"""What would change with another system, told: packages, sizes, units, and whether only a reboot makes it whole."""

from __future__ import annotations

from typing import Final

from glixd import api
from glixd.backends.profile import Profile
from glixd.backends.store import Store
from glixd.model import closure
from glixd.protocol import PAGE_SIZE


class Systems:
    """Compares systems that are in the store. Safe from any thread."""

    def __init__(self, store: Store, profile: Profile) -> None:
        self._store = store
        self._profile = profile

    def change(self, before: str | None, after: str) -> api.SystemChange:
        """What differs between two systems; without a first one, everything is new. The reboot is from the first one."""
        *old, new = self._store.requisites(*([before] if before else []), after)
        found = closure.compare(old[0] if old else {}, new)
        return api.SystemChange(
            packages=tuple(map(_told, found.packages[:PAGE_SIZE])),
            rebuilt=found.rebuilt,
            size_before=found.size_before,
            size_after=found.size_after,
            reboot=self.reboot(before, after),
        )

    def reboot(self, before: str | None, after: str) -> tuple[str, ...]:
        """What a switch from one to the other leaves to the next boot."""
        return closure.needs_reboot(self._profile.reboots(before), self._profile.reboots(after))

    def size(self, path: str) -> int:
        """The bytes of a system with all that it needs."""
        return sum(self._store.requisites(path)[0].values())


def told_units(lines: list[str]) -> api.UnitChanges | None:
    """What was said about units; None where nothing was."""
    found = closure.units(lines)
    told = api.UnitChanges(
        stopped=found.stopped,
        restarted=(*found.restarted, *(SYSTEMD if found.restarts_systemd else ())),
        reloaded=found.reloaded,
        started=found.started,
        failed=found.failed,
    )
    return None if told == api.UnitChanges() else told


SYSTEMD: Final = ("systemd",)


def _told(change: closure.PackageChange) -> api.PackageChange:
    return api.PackageChange(name=change.name, kind=change.kind, before=change.before, after=change.after)
