# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a generation: its manifest as one commit and its system as it was built then, both or neither.

The commit is made up to its commit point, then the system is activated, which takes seconds and builds nothing; only if that
went well the commit point follows. Its objects are written while the activator looks at its order, which does not go on before
they are on the disk. The commit point moves a branch that nobody else can move meanwhile, but it can fail as a disk can: then
the error says what runs, and doing the same again only commits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from glixd import api
from glixd.backends.activator import Meanwhile, Order, Status
from glixd.backends.ahead import Ahead
from glixd.backends.process import Cancellation
from glixd.backends.profile import Profile
from glixd.backends.repository import Repository
from glixd.draft import Job
from glixd.errors import GlixError
from glixd.model.change import Restore
from glixd.rebuilding import activation
from glixd.rebuilding.activation import Activation, Went
from glixd.rebuilding.building import Tell
from glixd.rebuilding.systems import told_units
from glixd.transaction import Result, Transactor
from glixd.undo import unrestored

SHOWN: Final = 10
"""Files that a warning names."""


class Restoring:
    """One way back."""

    def __init__(
        self,
        repository: Repository,
        activation: Activation,
        profile: Profile,
        order: Order,
        tell: Tell,
        step: Callable[[str], None],
        cancellation: Cancellation,
        on_commit: Callable[[str], object],
    ) -> None:
        """`on_commit` is told of the commit before anything is activated: whoever finishes this after a crash has to know."""
        self._repository = repository
        self._activation = activation
        self._profile = profile
        self._order = order
        self._tell = tell
        self._step = step
        self._cancellation = cancellation
        self._on_commit = on_commit
        self._previous = profile.current()
        self._went: Went | None = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="way-back")
        self._kept: tuple[str, Future[tuple[str, ...]]] | None = None
        """What a commit does not restore, found out while the system is activated."""

    def run(self, transactor: Transactor, job: Job, request: Restore) -> Result:
        """Do both; raises the error because of which neither was done."""

        def go(commit: str, ahead: Ahead | None) -> None:
            self._on_commit(commit)
            if self._went is None:  # else somebody committed meanwhile, so the commit was made again
                self._went = self._activated(
                    Meanwhile(
                        it_is_checked=ahead.write if ahead else lambda: None,
                        it_is_done=lambda: self._get_on(request, commit, ahead),
                    )
                )

        try:
            result = transactor.run(replace(job, before=None if job.dry_run else go))
        except GlixError as error:
            if self._went is None:
                raise
            raise type(error)(
                f"Generation {request.generation} runs again, and its manifest could not be committed: {error.message}",
                code=error.code,
                hint=f"Do the same again, which then only commits: glixctl rollback --to {request.generation}",
                details=error.details,
            ) from error
        finally:
            if not job.dry_run:
                self._activation.stay_ready()
            self._beside.shutdown(wait=False)
        result = replace(result, warnings=(*result.warnings, *self._left(request, result.commit)))
        return result if self._went is None else self._told(result, request, self._went)

    def _left(self, request: Restore, commit: str | None) -> tuple[str, ...]:
        """What the next build takes from today, although the system of then runs."""
        commit = commit or self._repository.snapshot().commit
        known = self._kept if self._kept and self._kept[0] == commit else None
        paths = known[1].result() if known else self._unrestored(request, commit)
        if not paths:
            return ()
        named = ", ".join(path if path.isprintable() else ascii(path) for path in paths[:SHOWN])
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        kept = f"Not restored, since only the manifest and the lock are: {named}{more}."
        then = f"Generation {request.generation} runs with these files as they were"
        return (f"{kept} {then}; the next rebuild takes them as they are. See: git diff {request.commit[:7]}",)

    def _unrestored(self, request: Restore, commit: str) -> tuple[str, ...]:
        return unrestored(self._repository.at(request.commit), self._repository.at(commit), request.host)

    def _get_on(self, request: Restore, commit: str, ahead: Ahead | None) -> None:
        """What comes after the activation and needs nothing of it; the activator has the other core."""
        if ahead:
            ahead.make_ready()
        self._kept = (commit, self._beside.submit(self._unrestored, request, commit))

    def _activated(self, meanwhile: Meanwhile) -> Went:
        """Activate; raises why that failed, with what runs then."""
        self._step(f"activating generation {self._order.generation}")
        went = self._activation.activate(self._order, self._tell, self._cancellation, meanwhile)
        if went.activated.status in (Status.FAILED, Status.INTERRUPTED):
            restored = self._previous is not None and self._activation.put_back(self._order, self._previous, self._tell)
            raise activation.failure(went, self._previous if restored else None)
        return went

    def _told(self, result: Result, request: Restore, went: Went) -> Result:
        activated, units = went.activated, told_units(list(went.lines))
        rebuilt = api.Rebuilt(
            action=api.Action.BOOT if request.boot else api.Action.SWITCH,
            host=request.host,
            commit=request.commit,
            activated=True,
            path=request.path,
            generation=request.generation,
            previous=self._previous,
            units=units,
            reboot_needed=activated.reboot_needed or activated.status is Status.REBOOT_NEEDED,
        )
        how = "at the next boot" if request.boot else "now"
        summary = f"{request.host} is back at generation {request.generation} {how}"
        outcome = result.outcome.model_copy(update={"summary": summary, "changed": True, "rebuild": rebuilt})
        warned = activation.warnings(activated, units, ())
        return replace(result, outcome=outcome, warnings=(*result.warnings, *warned))
