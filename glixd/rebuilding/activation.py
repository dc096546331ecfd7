# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a built system the running one, through the activator; and putting the one before back where that fails."""

from __future__ import annotations

import time
from dataclasses import replace

from glixd import api
from glixd.backends.activator import NOTHING, Action, Activated, Activator, Meanwhile, Order, Status
from glixd.backends.process import Cancellation
from glixd.backends.profile import Profile
from glixd.errors import Failed, GlixError
from glixd.model.progress import Phase, Progress
from glixd.protocol import ErrorCode
from glixd.rebuilding.building import News, Tell
from glixd.values import dataclass

FAILED_TAIL = 10


@dataclass(frozen=True, slots=True)
class Went:
    """How an activation went, with all that was said."""

    activated: Activated
    lines: tuple[str, ...]


class Abandoned(Exception):
    """This daemon ends in the middle of an activation, maybe because of it; the next one learns how it went."""


class Activation:
    """Activates systems. Safe from any thread; the activator does one thing at a time."""

    def __init__(self, activator: Activator | None, profile: Profile) -> None:
        self._activator = activator
        self._profile = profile

    @property
    def possible(self) -> bool:
        """Whether this daemon has an activator."""
        return self._activator is not None

    def result(self, transaction: str) -> Activated | None:
        """How the activation of an earlier transaction ended."""
        return self._activator.result(transaction) if self._activator else None

    def knock(self) -> None:
        """Let the activator start beside what comes before its order."""
        if self._activator:
            self._activator.knock()

    def stay_ready(self) -> None:
        """Let it start in a moment, for the way back from what was just activated."""
        if self._activator:
            self._activator.stay_ready()

    def activate(self, order: Order, tell: Tell, cancellation: Cancellation, meanwhile: Meanwhile = NOTHING) -> Went:
        """Carry an order out; once it is allowed, the cancellation is sealed. Raises what forbids it."""
        if self._activator is None:
            raise Failed("This daemon has no activator.", code=ErrorCode.UNSUPPORTED_HERE)
        began, lines = time.monotonic(), list[str]()

        def hear(line: str) -> None:
            lines.append(line)
            tell(News(Progress(Phase.ACTIVATING, elapsed=time.monotonic() - began), (line,)))

        activated = self._activator.activate(order, hear, cancellation, meanwhile)
        if cancellation.abandoned:
            raise Abandoned
        return Went(activated, tuple(lines) or activated.tail)

    def put_back(self, order: Order, previous: int, tell: Tell) -> bool:
        """Go back to the generation before; whether that went well."""
        try:
            path = self._profile.path(previous)
            back = replace(order, path=path, commit="", action=Action.SWITCH, generation=previous)
            went = self.activate(back, tell, Cancellation())
        except (GlixError, OSError):
            return False
        return went.activated.status in (Status.DONE, Status.UNITS_FAILED, Status.REBOOT_NEEDED)


def failure(went: Went, restored: int | None) -> Failed:
    """The error of an activation that failed."""
    tail = list(went.lines)[-FAILED_TAIL:]
    said = "".join(f"\n  {line}" for line in tail)
    if went.activated.status is Status.INTERRUPTED:
        what, hint = "The activation was interrupted.", "See what runs: glixctl generations"
    else:
        what = "The activation script failed; what runs is between the two systems" + (f":{said}" if said else ".")
        hint = "Go back with: glixctl rollback --to GENERATION   or mend it and: glixctl rebuild"
    if restored is not None:
        what = f"The activation script failed, and generation {restored} was put back" + (f":{said}" if said else ".")
        hint = "Mend the configuration, or undo the change: glixctl rollback"
    details: dict[str, str | int | bool | list[str]] = {"log": tail}
    if restored is not None:
        details["restored"] = restored
    return Failed(what, code=ErrorCode.ACTIVATION_FAILED, hint=hint, details=details)


def warnings(activated: Activated, units: api.UnitChanges | None, reboot: tuple[str, ...]) -> tuple[str, ...]:
    """What went through but deserves a look."""
    failed = (units.failed if units else ()) or activated.failed_units
    told = []
    if activated.status is Status.UNITS_FAILED:
        named = ", ".join(failed) or "some units"
        told.append(f"The system is switched, and {named} failed. See: systemctl status {' '.join(failed)}".rstrip())
    if activated.reboot_needed or activated.status is Status.REBOOT_NEEDED or reboot:
        named = ", ".join(reboot)
        told.append("A reboot is needed to complete the switch" + (f": {named} changed." if named else "."))
    return tuple(told)
