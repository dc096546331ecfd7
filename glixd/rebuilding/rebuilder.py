# SPDX-License-Identifier: GPL-3.0-or-later
"""One rebuild: say what is pending, build the commit, compare, activate, remember the generation.

It builds a commit and never the work tree, and takes the repository for a moment only, to write a tag: changes are committed
beside it. Until the activator says that the caller may, everything can be stopped and nothing is changed.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, TypeVar

from glixd import api
from glixd.backends import activator
from glixd.backends.activator import Activated, Meanwhile, Order, Status
from glixd.backends.profile import Profile
from glixd.backends.repository import Repository
from glixd.backends.snapshot import FLAKE, LOCK
from glixd.culprit import Culprits, blamed
from glixd.errors import Failed, GlixError, Refused
from glixd.log import get_logger
from glixd.model.change import Rebuild, Remember
from glixd.model.generations import Built as BuiltGeneration
from glixd.model.generations import tag_of
from glixd.protocol import ErrorCode
from glixd.rebuilding import activation
from glixd.rebuilding.activation import Activation, Went
from glixd.rebuilding.building import Builder, Building
from glixd.rebuilding.errand import Errand, subject
from glixd.rebuilding.systems import Systems, told_units
from glixd.rebuilding.tags import Tags
from glixd.transaction import Result
from glixd.values import dataclass

log = get_logger()

PENDING: Final = 50
"""Commits since the last switch that are told."""
DERIVATIONS: Final = 1000
ATTEMPTS: Final = 3
"""How often a build begins again because somebody committed meanwhile."""


Told = TypeVar("Told")
_Found = Future[api.SystemChange]
"""What a system changes, as soon as it is known."""


@dataclass(frozen=True, slots=True)
class _Before:
    """The machine as it is before."""

    generation: int | None
    path: str | None
    """The system of the current generation."""
    active: str | None
    booted: str | None
    commit: str | None
    """What the current generation was built from."""


class Rebuilder:
    """Safe from any thread; the engine runs one at a time."""

    def __init__(
        self,
        repository: Repository,
        builder: Builder,
        systems: Systems,
        profile: Profile,
        activation: Activation,
        culprits: Culprits,
        *,
        machine: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._builder = builder
        self._systems = systems
        self._profile = profile
        self._activation = activation
        self._culprits = culprits
        self._tags = Tags(repository)
        self._machine = machine
        self._clock = clock
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="rebuild")

    def run(self, errand: Errand) -> Result:
        """Carry a rebuild out; raises the error that ended it."""
        errand.cancellation.check()
        try:
            with self._blaming(errand):
                return self._home(errand) if errand.request.user else self._system(errand)
        finally:
            self._builder.stay_ready()
            if self._switches(errand):
                self._activation.stay_ready()

    def _system(self, errand: Errand) -> Result:
        request = errand.request
        commit = self._newest(request, request.commit)
        self._builder.prepare(commit)
        before = self._before()
        pending = self._pending(before.commit, commit, request.host)
        left_out = self._beside.submit(self._left_out)
        for line in _told_pending(pending, before):
            errand.step(line)
        rebuilt = api.Rebuilt(action=request.action, host=request.host, commit=commit, activated=False, pending=pending)
        if self._switches(errand):
            self._beside.submit(self._catch_up)
            errand = replace(errand, heard=self._activation.knock)
        result = self._carry(errand, rebuilt, before)
        return replace(result, warnings=(*(_if_known(left_out) or ()), *result.warnings))

    def _carry(self, errand: Errand, rebuilt: api.Rebuilt, before: _Before) -> Result:
        """Build, and put it to use; again from the newest commit where somebody committed meanwhile."""
        request = errand.request
        if request.action is api.Action.DRY_BUILD:
            return self._planned(errand, rebuilt)
        for _ in range(ATTEMPTS):
            rebuilt = self._built(errand, rebuilt)
            if not self._moved_on(request, rebuilt.commit):
                try:
                    return self._put_to_use(errand, rebuilt, before)
                except Refused:
                    if not self._moved_on(request, rebuilt.commit):
                        raise
            rebuilt = rebuilt.model_copy(update={"commit": self._newest(request, rebuilt.commit)})
            errand.step("somebody committed meanwhile; building that")
        raise Refused(
            f"The branch moved {ATTEMPTS} times while {request.host} was built.",
            hint="Try again when nobody commits.",
        )

    def _home(self, errand: Errand) -> Result:
        """Build a home; its owner puts it into effect, and no system is switched."""
        request, action = errand.request, errand.request.action
        rebuilt = api.Rebuilt(
            action=action, host=request.host, commit=request.commit, activated=False, home=request.user
        )
        if action is api.Action.DRY_BUILD or errand.dry_run:
            return self._planned(errand, rebuilt.model_copy(update={"action": api.Action.DRY_BUILD}))
        errand.step(f"building the home of {request.user} at {request.commit[:7]}")
        building = Building(self._builder, errand.tell, user=request.user)
        built = building.build(request.commit, request.host, errand.cancellation)
        return _done(rebuilt.model_copy(update={"path": built.path, "builds": built.builds[:DERIVATIONS]}))

    def _planned(self, errand: Errand, rebuilt: api.Rebuilt) -> Result:
        errand.step(f"looking at what {rebuilt.host} needs")
        building = Building(self._builder, errand.tell, user=rebuilt.home or "")
        planned = building.plan(rebuilt.commit, rebuilt.host, errand.cancellation)
        return _done(
            rebuilt.model_copy(
                update={
                    "builds": planned.builds[:DERIVATIONS],
                    "fetches": planned.fetches[:DERIVATIONS],
                    "derivation": planned.derivation,
                    "output": planned.output,
                }
            )
        )

    def _built(self, errand: Errand, rebuilt: api.Rebuilt) -> api.Rebuilt:
        """Build the commit."""
        errand.building(rebuilt.commit)
        errand.step(f"building {rebuilt.host} at {rebuilt.commit[:7]}")
        built = Building(self._builder, errand.tell, heard=errand.heard).build(
            rebuilt.commit, rebuilt.host, errand.cancellation
        )
        return rebuilt.model_copy(update={"path": built.path, "builds": built.builds[:DERIVATIONS]})

    def _change(self, before: _Before, path: str) -> api.SystemChange:
        """What a system changes."""
        change = self._systems.change(before.active or before.path, path)
        return change.model_copy(update={"reboot": self._systems.reboot(before.booted, path)})

    def _newest(self, request: Rebuild, commit: str) -> str:
        """What is built to be activated: the newest commit, since the activator takes no other."""
        if request.action in (api.Action.BUILD, api.Action.DRY_BUILD):
            return commit
        return self._repository.snapshot().commit

    def _moved_on(self, request: Rebuild, commit: str) -> bool:
        return self._newest(request, commit) != commit

    def remember(self, host: str, number: int, path: str, commit: str, transaction: str) -> None:
        """Write the tag of a generation."""
        now = self._clock()
        when = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._tags.write(BuiltGeneration(host, number, commit, path, transaction, when), int(now))

    def built_from(self, host: str, number: int) -> str:
        """The commit that a generation was built from, as its tag says; empty where there is none."""
        tag = self._tags.of(host, number)
        return tag.commit if tag else ""

    def tag(self, request: Remember, *, dry_run: bool) -> Result:
        """Write the tag of another machine's generation, where it does not say so already."""
        host, number, commit, path = request.host, request.generation, request.commit, request.path
        known = self._tags.of(host, number)
        changed = known is None or (known.commit, known.path, known.transaction) != (commit, path, request.transaction)
        if changed and not dry_run:
            self.remember(host, number, path, commit, request.transaction)
        name = tag_of(host, number).removeprefix("refs/tags/")
        said = f"tagged {commit[:7]} as {name}, with {path}" if changed else f"nothing to do: {name} says so already"
        return Result(api.Outcome(summary=said, changed=changed))

    # -- steps -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _blaming(self, errand: Errand) -> Iterator[None]:
        """Let the error of an evaluation name the packages that cause it."""
        try:
            yield
        except Failed as error:
            if error.code is not ErrorCode.EVALUATION_FAILED:
                raise
            errand.step("looking for the package that breaks it")
            request = errand.request
            commit = str(error.details.get("commit", request.commit))
            found = self._culprits.of(commit, request.host, error.message, errand.cancellation)
            raise (blamed(error, found) if found else error) from None

    def _before(self) -> _Before:
        running = self._profile.running()
        number = self._profile.current()
        path = self._profile.path(number) if number else None
        tag = self._tags.of(self._machine, number) if number else None
        commit = tag.commit if tag and tag.path == path else self._profile.describe(path).commit if path else None
        return _Before(number, path, running.active, running.booted, commit)

    def _pending(self, since: str | None, commit: str, host: str) -> tuple[str, ...]:
        """The commits since the last switch that concern the host; none where that is not known."""
        git = self._repository.git
        if since is None or since == commit or git.read(since) is None:
            return ()
        paths = (f"hosts/{host}", FLAKE, LOCK)
        return tuple(
            f"{entry.oid[:7]} {entry.subject}" for entry in git.log(f"{since}..{commit}", limit=PENDING, paths=paths)
        )

    def _left_out(self) -> tuple[str, ...]:
        """What people edited is in no commit, and so is not built."""
        if not self._repository.shows_branch():
            return ()
        edited = list(self._repository.edits(self._repository.snapshot()))
        others = [path for path in self._repository.git.dirty() if path not in edited]
        told = []
        for paths, command in ((edited, "glixctl adopt"), (others, "glixctl adopt --all")):
            if paths:
                named = ", ".join(path if path.isprintable() else ascii(path) for path in paths[:5])
                more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
                told.append(f"Not built, since it is in no commit: {named}{more}. Commit it with: {command}")
        return tuple(told)

    def _catch_up(self) -> None:
        """Take note of what people committed, which writing the tag would otherwise begin with."""
        with suppress(GlixError), self._repository.locked():
            pass

    def _put_to_use(self, errand: Errand, rebuilt: api.Rebuilt, before: _Before) -> Result:
        request, path = errand.request, str(rebuilt.path)
        if self._switches(errand):
            order = self._order(errand, rebuilt, activator.Action(request.action.value))
            errand.step(f"activating {path}")
            found: list[_Found] = []  # by a nix that leaves the cores to the activator until it may go on
            went = self._activation.activate(
                order,
                errand.tell,
                errand.cancellation,
                Meanwhile(it_is_done=lambda: found.append(self._beside.submit(self._change, before, path))),
            )
            return self._activated(errand, rebuilt, before, order, went, found)
        errand.step("comparing it with what runs")
        rebuilt = rebuilt.model_copy(update={"change": self._change(before, path)})
        if request.action is api.Action.BUILD:
            return _done(rebuilt)
        if request.host != self._machine:
            host = request.host
            command = f"glixctl rebuild {request.action} --host {host} --target-host root@{host}"
            return _done(rebuilt.model_copy(update={"command": command}))
        if not self._activation.possible:
            command = self._profile.switch_command(path, request.action)
            return _done(rebuilt.model_copy(update={"command": command}))
        errand.step("asking what would change")
        went = self._activation.activate(
            self._order(errand, rebuilt, activator.Action.DRY_ACTIVATE), errand.tell, errand.cancellation
        )
        return _done(rebuilt.model_copy(update={"units": told_units(list(went.lines))}))

    def _switches(self, errand: Errand) -> bool:
        """Whether this machine is to run another system, or to boot it next, and not only to say what would be."""
        request = errand.request
        looks = errand.dry_run or request.action in (api.Action.BUILD, api.Action.DRY_ACTIVATE)
        return not looks and request.host == self._machine and self._activation.possible

    def _activated(
        self, errand: Errand, rebuilt: api.Rebuilt, before: _Before, order: Order, went: Went, found: list[_Found]
    ) -> Result:
        activated, request = went.activated, errand.request
        if activated.status in (Status.FAILED, Status.INTERRUPTED):
            previous = before.generation
            restores = request.rollback_on_failure and previous is not None and request.action.sets_profile
            if restores and previous is not None:
                errand.step(f"putting generation {previous} back")
                restored = self._activation.put_back(order, previous, errand.tell)
                raise activation.failure(went, previous if restored else None)
            raise activation.failure(went, None)
        rebuilt = rebuilt.model_copy(update={"change": _if_known(found[0]) if found else None})
        units = _units(went.lines, activated)
        reboot = rebuilt.change.reboot if rebuilt.change and request.action is not api.Action.BOOT else ()
        warned = activation.warnings(activated, units, reboot)
        if activated.generation is not None:
            warned = (*warned, *self._remembered(errand, activated.generation, order.path, order.commit))
        rebuilt = rebuilt.model_copy(
            update={
                "activated": True,
                "generation": activated.generation,
                "previous": before.generation,
                "units": units,
                "reboot_needed": activated.reboot_needed or activated.status is Status.REBOOT_NEEDED or bool(reboot),
            }
        )
        return replace(_done(rebuilt), warnings=warned)

    def _remembered(self, errand: Errand, generation: int, path: str, commit: str) -> tuple[str, ...]:
        """Write the tag; that it could not be written is no failure of the switch."""
        try:
            self.remember(errand.request.host, generation, path, commit, errand.transaction)
        except GlixError as error:
            log.warning("the tag of a generation could not be written", generation=generation, reason=error.message)
            return (
                f"Generation {generation} has no tag, so a rollback finds it by its revision only: {error.message}",
            )
        return ()

    def _order(self, errand: Errand, rebuilt: api.Rebuilt, action: activator.Action) -> Order:
        return Order(
            errand.transaction,
            rebuilt.commit,
            str(rebuilt.path),
            action,
            subject(errand.caller),
            interactive=errand.interactive,
        )


def _if_known(told: Future[Told]) -> Told | None:
    """What is told of a rebuild that is over: not knowing it makes no failure of it."""
    try:
        return told.result()
    except GlixError as error:
        log.warning("part of what a rebuild tells can't be found out", reason=error.message)
        return None


def _told_pending(pending: tuple[str, ...], before: _Before) -> tuple[str, ...]:
    """Several changes at once are shown; a single one is what the caller just asked for."""
    if len(pending) < 2:
        return ()
    return (f"{len(pending)} changes since generation {before.generation}:", *(f"  {line}" for line in pending))


def _units(lines: Iterable[str], activated: Activated) -> api.UnitChanges | None:
    """What became of units: as it was said, and as the activator found it afterwards."""
    units = told_units(list(lines))
    if activated.failed_units and not (units and units.failed):
        return (units or api.UnitChanges()).model_copy(update={"failed": activated.failed_units})
    return units


def told_afterwards(record: api.Transaction, commit: str, activated: Activated) -> api.Transaction:
    """The record of a switch that an earlier daemon did not see the end of, with what the activator wrote about it.

    `commit` is what the system was built from, empty where that is not known.
    """
    back = record.operation == "Rollback"
    rebuilt = api.Rebuilt(
        action=record.action or api.Action.SWITCH,
        host=record.host or "",
        commit=commit,
        activated=True,
        generation=activated.generation,
        units=_units(activated.tail, activated),
        reboot_needed=activated.reboot_needed or activated.status is Status.REBOOT_NEEDED,
    )
    said = _summary(rebuilt)
    if back:
        said = f"{rebuilt.host} is back at generation {activated.generation}"
    earlier = record.outcome or api.Outcome(summary="", changed=True)
    summary = "; ".join(filter(None, (earlier.summary, said)))
    outcome = earlier.model_copy(update={"summary": summary, "changed": True, "rebuild": rebuilt})
    warned = activation.warnings(activated, rebuilt.units, ())
    return record.model_copy(update={"outcome": outcome, "warnings": (*record.warnings, *warned)})


def _done(rebuilt: api.Rebuilt) -> Result:
    return Result(api.Outcome(summary=_summary(rebuilt), changed=True, rebuild=rebuilt))


def _summary(rebuilt: api.Rebuilt) -> str:
    """One sentence."""
    host, commit = rebuilt.host, rebuilt.commit[:7]
    if rebuilt.home:
        host = f"the home of {rebuilt.home}"
    if rebuilt.action == api.Action.DRY_BUILD:
        return f"{host} at {commit} needs {len(rebuilt.builds)} builds and {len(rebuilt.fetches)} downloads"
    if not rebuilt.activated:
        return f"built {host} at {commit}"
    number = f" (generation {rebuilt.generation})" if rebuilt.generation else ""
    match rebuilt.action:
        case api.Action.BOOT:
            return f"{host} boots {commit} next{number}"
        case api.Action.TEST:
            return f"{host} runs {commit} until the next boot"
        case _:
            return f"switched {host} to {commit}{number}"
