# SPDX-License-Identifier: GPL-3.0-or-later
"""One other machine on its way: look at it, copy, switch, have it confirmed, and go back where that failed."""

from __future__ import annotations

import shlex
import time

from glixctl.errors import ClientError
from glixctl.machine import LOST, PROFILE, Before, Machine
from glixd.protocol import Activation, ErrorCode, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from glixctl.programs import Done, Programs

AGAIN = 2.0
"""Seconds between two attempts to confirm."""
ACTIONS = {
    "switch": "switched",
    "boot": "boots it next",
    "test": "runs it until the next boot",
    "dry-activate": "dry run",
}
"""What can be done with another machine, and what became of it then."""


class Wanted:
    """What is to be done with every machine."""

    __slots__ = ("action", "build_host", "confirm_within", "dry_run", "parallel", "rollback_on_failure")

    def __init__(
        self,
        action: str,
        *,
        build_host: str | None = None,
        confirm_within: int | None = None,
        parallel: int = 4,
        rollback_on_failure: bool = False,
        dry_run: bool = False,
    ) -> None:
        self.action = action
        self.build_host = build_host
        self.confirm_within = confirm_within
        self.parallel = parallel
        self.rollback_on_failure = rollback_on_failure
        self.dry_run = dry_run

    @property
    def sets_profile(self) -> bool:
        """Whether there is a new generation."""
        return self.action in ("switch", "boot")

    @property
    def goes_back(self) -> bool:
        """Whether a machine whose activation failed gets its earlier system again."""
        return self.rollback_on_failure or self.confirm_within is not None


class Switching:
    """One machine; `facts` is told what is known of it, and `run` raises the error that ended it."""

    def __init__(
        self,
        machine: Machine,
        builder: Machine | None,
        wanted: Wanted,
        facts: dict[str, Any],
        programs: Programs,
        say: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._builder = builder
        self._wanted = wanted
        self._facts = facts
        self._programs = programs
        self._say = say
        self._path = str(facts["path"])

    def run(self) -> None:
        """Build elsewhere where that is wanted, copy, and switch."""
        before = self._look()
        self._facts["previous"] = before.generation
        if self._wanted.dry_run:
            self._facts |= {"state": "dry run", "commands": [shlex.join(words) for words in self._plan(before)]}
            return
        for machine, words, what in self._copies():
            self._do(words, what, machine, stoppable=True)
        if self._wanted.action == "dry-activate":
            self._do(self._activate(self._path, before), "asking what would change", self._machine, hear=True)
        else:
            self._switch(before)
        self._facts["state"] = ACTIONS[self._wanted.action]

    # -- what there is to do -------------------------------------------------------------------------------------------

    def _plan(self, before: Before) -> Iterator[Sequence[str]]:
        """All commands, in order; those that go back are left out, since only a failure asks for them."""
        yield from (words for _, words, _ in self._copies())
        if self._wanted.confirm_within and before.generation:
            yield self._watch(self._wanted.confirm_within, before.generation)
        if self._wanted.sets_profile:
            yield self._machine.set_profile(self._path)
        yield self._activate(self._path, before)
        if self._wanted.confirm_within:
            yield self._machine.confirm(self._path, self._token)

    def _copies(self) -> Iterator[tuple[Machine, Sequence[str], str]]:
        derivation = str(self._facts.get("derivation"))
        if builder := self._builder:
            yield builder, builder.receive_derivation(derivation), f"copying {derivation} to {builder.address}"
            yield builder, builder.build(derivation), f"building on {builder.address}"
        if builder is None or builder.address != self._machine.address:
            yield self._machine, self._machine.receive(self._path, builder), f"copying {self._path}"

    def _activate(self, system: str, before: Before) -> Sequence[str]:
        return self._machine.activate(system, self._wanted.action, systemd=before.systemd)

    def _watch(self, seconds: int, generation: int) -> Sequence[str]:
        return self._machine.watch(seconds, generation, self._wanted.action, self._token)

    @property
    def _token(self) -> str:
        return str(self._facts["transaction"])

    # -- doing it ------------------------------------------------------------------------------------------------------

    def _look(self) -> Before:
        done = self._programs.run(self._machine.look(), stoppable=True)
        if done.status not in (0, 1):
            raise self._machine.failure(done.status, done.said, "Looking at it")
        before = Before(done.status, done.output)
        if self._wanted.confirm_within and not (before.systemd and before.generation):
            lacks = "generation to go back to" if before.systemd else "systemd, which would go back by itself"
            raise ClientError(
                f"{self._machine.address} has no {lacks}.",
                name=ErrorCode.UNSUPPORTED_HERE,
                exit_code=Exit.FAILED,
                hint="Switch it without --confirm-within.",
            )
        return before

    def _switch(self, before: Before) -> None:
        """From here on nothing is interrupted: half a switch is worse than a whole one."""
        if self._wanted.confirm_within and before.generation:
            what = f"generation {before.generation} comes back unless this is confirmed"
            self._do(self._watch(self._wanted.confirm_within, before.generation), what, self._machine, stoppable=True)
        if self._wanted.sets_profile:
            self._do(self._machine.set_profile(self._path), "setting the profile", self._machine)
        self._say(f"activating {self._path}")
        done = self._programs.run(self._activate(self._path, before), hear=self._say, stoppable=False)
        if done.status == LOST and not self._wanted.confirm_within:
            raise self._lost(done)
        activation = Activation.DONE if done.status == LOST else Activation.of(done.status)
        if activation is Activation.FAILED:
            raise self._failed(done, before)
        if self._wanted.confirm_within:
            self._facts["reconnected"] = done.status == LOST
            self._confirm(self._wanted.confirm_within, before)
        self._facts |= {
            "activation": activation.value,
            "failed_units": self._failed_units() if activation is Activation.UNITS_FAILED else [],
            "generation": self._generation() if self._wanted.sets_profile else None,
        }

    def _confirm(self, seconds: int, before: Before) -> None:
        """Reach it once more and confirm, as often as it takes until it goes back by itself."""
        deadline = time.monotonic() + seconds
        while True:
            done = self._programs.run(self._machine.confirm(self._path, self._token), stoppable=False)
            if done.status == 0:
                self._say("confirmed")
                return
            if done.status != LOST or time.monotonic() + AGAIN >= deadline:
                break
            time.sleep(AGAIN)
        cause = self._machine.failure(done.status, done.said, "Confirming")
        raise ClientError(
            f"The switch of {self._machine.address} was not confirmed within {seconds} seconds, so it goes back to generation {before.generation} by itself: {cause.message}",
            name="NotConfirmed",
            exit_code=Exit.FAILED,
            hint=f"See what runs: ssh {self._machine.address} readlink {PROFILE} /run/current-system",
            details=cause.details,
        )

    def _failed(self, done: Done, before: Before) -> ClientError:
        """The error of an activation that failed; its machine has its earlier system again, where that is wanted."""
        error = self._machine.failure(done.status, done.said, f"The activation on {self._machine.address}")
        if not self._wanted.goes_back or before.generation is None:
            error.hint = f"What runs is between the two systems. Mend it, or go back there: nixos-rebuild switch --rollback --target-host {self._machine.address}"
            return error
        self._say(f"going back to generation {before.generation}")
        try:
            if self._wanted.sets_profile:
                self._do(self._machine.go_back(before.generation), "setting the profile back", self._machine)
            went = self._programs.run(self._activate(PROFILE, before), hear=self._say, stoppable=False)
            if Activation.of(went.status) is Activation.FAILED:
                raise self._machine.failure(went.status, went.said, "Going back")
            if self._wanted.confirm_within:
                self._do(self._machine.confirm("", self._token), "no confirmation is needed any more", self._machine)
        except ClientError as again:
            error.hint = f"Generation {before.generation} could not be put back: {again.message}"
        else:
            self._facts["restored"] = before.generation
            error.hint = "Mend the configuration, or undo the change: glixctl rollback"
        return error

    def _lost(self, done: Done) -> ClientError:
        error = self._machine.failure(done.status, done.said, "Activating it")
        error.hint = f"It goes on without a connection. See what runs: ssh {self._machine.address} readlink {PROFILE} /run/current-system"
        return error

    def _generation(self) -> int | None:
        """The generation that it became; that this could not be asked any more is no failure of the switch."""
        done = self._programs.run(self._machine.look(), stoppable=False)
        return Before(done.status, done.output).generation

    def _failed_units(self) -> list[str]:
        done = self._programs.run(self._machine.failed_units(), stoppable=False)
        return [line.split()[0] for line in done.output.splitlines() if line.strip()] if done.status == 0 else []

    def _do(
        self, words: Sequence[str], what: str, machine: Machine, *, stoppable: bool = False, hear: bool = False
    ) -> None:
        self._say(what)
        done = self._programs.run(words, stoppable=stoppable, hear=self._say if hear else None)
        if done.status:
            raise machine.failure(done.status, done.said, what[:1].upper() + what[1:])
