# SPDX-License-Identifier: GPL-3.0-or-later
"""One change: prepare → commit point → publish.

Everything before the commit point happens in memory, in a scratch folder and in objects that nothing refers to. The commit
point is one compare-and-swap of the branch. After it no error is a failure: the answer is "committed, publish pending", and
recovery finishes the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from glixd import api
from glixd.backends.ahead import Ahead
from glixd.backends.held import Held
from glixd.backends.publishing import Published
from glixd.backends.refs import BranchMoved
from glixd.backends.repository import Repository
from glixd.backends.snapshot import Snapshot
from glixd.concern import concerned
from glixd.draft import Draft, Job, commit_of, outcome_of
from glixd.drafting import Drafter, edited
from glixd.errors import Failed, GlixError, Refused
from glixd.model.change import (
    Push,
)
from glixd.model.refusal import Refusal
from glixd.protocol import ErrorCode
from glixd.replay import replay, told
from glixd.values import dataclass

ATTEMPTS: Final = 3
"""How often a change is computed anew because somebody committed meanwhile."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a transaction went: without a commit it was a dry run, or there was nothing to do."""

    outcome: api.Outcome
    commit: str | None = None
    warnings: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """The hosts whose configuration may have changed."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A commit that is made and that nobody can see yet."""

    job: Job
    draft: Draft
    outcome: api.Outcome
    commit: str
    base: Snapshot
    """What it was computed on."""
    warnings: tuple[str, ...] = ()


class Unfit(Failed):
    """A host would not evaluate with a change, so there is none."""

    def __init__(self, commit: str, host: str, error: Failed) -> None:
        super().__init__(
            f"{error.message}\nNothing was changed.",
            code=error.code,
            hint="Mend what the change brings, or choose something else.",
            details={"host": host},
        )
        self.commit = commit
        self.host = host


def refused(error: Unfit, packages: Sequence[str]) -> GlixError:
    """The refusal of a change with the packages that break the host; ConsentNeeded where that is what they lack."""
    if not packages:
        return error
    _, _, words = error.message.partition(": ")
    if refusal := Refusal.in_words(words):
        need = "needs" if len(packages) == 1 else "need"
        return Refused(
            f"This needs your consent: {', '.join(packages)} {need} {refusal.package}, which is {refusal.consent.value}.",
            code=ErrorCode.CONSENT_NEEDED,
            hint=f"Consent with {refusal.consent.flag}; it is recorded in the manifest, for what these packages need only.",
            details={**error.details, "packages": list(packages), "options": [refusal.consent.setting]},
        )
    return Failed(
        f"{error.host} does not evaluate because of {', '.join(packages)}: {words}",
        code=error.code,
        hint="Leave it out, or choose another version of it.",
        details={**error.details, "packages": list(packages)},
    )


Examine = Callable[..., object]
"""Evaluates a host at a commit (`commit, host, cancellation=`); raises EvaluationFailed."""


class Transactor:
    """Carries one change at a time through to its commit."""

    def __init__(
        self,
        repository: Repository,
        drafter: Drafter,
        *,
        machine: str,
        examine: Examine | None = None,
    ) -> None:
        self._repository = repository
        self._drafter = drafter
        self.machine = machine
        self._examine = examine

    @property
    def examines(self) -> bool:
        """Whether hosts have to evaluate before a commit is seen; that takes long, and each change by itself."""
        return self._examine is not None

    def run(self, job: Job) -> Result:
        """Carry a job through; raises the error that ended it, and then nothing was changed."""
        job.cancellation.check()
        with self._repository.locked(job.cancellation) as held:
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._attempt(job, held)
                except BranchMoved:
                    job.step("somebody committed meanwhile; starting again from there")
            return self._attempt(job, held)

    def run_together(self, jobs: Sequence[Job]) -> list[Result | GlixError]:
        """Carry jobs that wait through in their order: a commit for each, one commit point and one publish for all.

        Answers with how each ended. Raises what stopped them all before the commit point; then nothing was changed.
        """
        with self._repository.locked() as held:
            return self._carry(jobs, held)

    def _attempt(self, job: Job, held: Held) -> Result:
        (ended,) = self._carry((job,), held)
        if isinstance(ended, GlixError):
            raise ended
        return ended

    def _carry(self, jobs: Sequence[Job], held: Held) -> list[Result | GlixError]:
        held.expected = {}
        base = newest = self._repository.snapshot()
        ended: list[Result | GlixError | _Made] = []
        made: list[_Made] = []
        for job in jobs:
            one = self._tried(job, held, newest, base if not made else None)
            ended.append(one)
            if isinstance(one, _Made):
                made.append(one)
                newest = self._repository.at(one.commit)
        published = self._commit(made, held, base, newest) if made else Published()
        return [self._result(one, published) if isinstance(one, _Made) else one for one in ended]

    def _tried(self, job: Job, held: Held, snapshot: Snapshot, shown: Snapshot | None) -> _Made | Result | GlixError:
        try:
            return self._make(job, held, snapshot, shown)
        except GlixError as error:
            return error

    def _make(self, job: Job, held: Held, snapshot: Snapshot, shown: Snapshot | None) -> _Made | Result:
        """Make the commit of a job on top of `snapshot`; `shown` is what the work tree shows, where its edits count."""
        job.cancellation.check()
        job.step("computing the change")
        newest = self._replayed(job, snapshot)
        finished = self._drafter.draft(newest, job, held.expected, shown if newest is snapshot else None)
        draft = told(snapshot, newest, job.request, finished) if isinstance(job.request, Push) else finished
        if not draft.changed:
            if job.before:
                job.before(snapshot.commit, None)
            if job.point:
                job.point(snapshot.commit)
            return Result(api.Outcome(summary=draft.plan.summary, changed=False))
        outcome = outcome_of(draft)
        examine = self._examine if job.evaluate else None
        if job.dry_run and examine is None and job.check is None:
            return Result(outcome)
        job.step("writing the commit")
        commit = newest.commit
        if finished.changed:
            commit = self._repository.make(commit_of(job, finished, newest.commit, self.machine))
        self._verify(commit, finished, newest)
        warnings: tuple[str, ...] = ()
        if examine or job.check:
            self._repository.refs.show(held, commit)
            try:
                if job.check:
                    job.check(commit)
                if examine:
                    hosts = self._concerned(snapshot, commit, draft)
                    warnings = _broken_before(examine, snapshot, commit, hosts, job)
            finally:
                self._repository.refs.hide()
        return (
            Result(outcome, warnings=warnings)
            if job.dry_run
            else _Made(job, draft, outcome, commit, snapshot, warnings)
        )

    def _replayed(self, job: Job, snapshot: Snapshot) -> Snapshot:
        """The newest of the commits that a clone brings, on top of `snapshot`; that one where the job brings none."""
        if not isinstance(job.request, Push):
            return snapshot
        for path in self._repository.edits(snapshot):
            raise edited(path, "the commits would be published over it", "Commit the edit first: glixctl adopt")
        return replay(self._repository, snapshot, job.request, job)

    def _commit(self, made: Sequence[_Made], held: Held, base: Snapshot, newest: Snapshot) -> Published:
        """Pass the commit point, and publish: the commits stand, and from here on whatever happens is a warning."""
        for one in made:
            if one.job.point:
                self._repository.refs.show(held, one.commit)
                one.job.point(one.commit)

        def before(ahead: Ahead) -> None:
            for one in made:
                if one.job.before:
                    one.job.before(one.commit, ahead)
                one.job.cancellation.seal()

        paths = dict.fromkeys(path for one in made for path in one.draft.changed)
        changes = {path: (base.entry(path), newest.entry(path)) for path in paths}
        self._repository.commit_point(held, newest.commit, base.commit, changes, before)
        for one in made:
            one.job.committed(one.commit)
            one.job.step("publishing")
        return self._repository.publish(held, newest.commit, changes)

    def _verify(self, commit: str, draft: Draft, base: Snapshot) -> None:
        """Read the written manifests again, and compare them with what was meant.

        Of a long one that differs from the one in `base` in a part, this reads the part with tomllib and makes sure of the
        rest byte by byte (see `reading`): reading all of ten thousand packages would be two thirds of the time of a change.
        """
        written = self._repository.at(commit)
        for host, manifest in draft.plan.manifests.items():
            if written.manifest_after(host, base) != manifest:
                raise Failed(
                    f"The manifest of {host} does not read back as it was meant; nothing was changed.",
                    hint=f"Look at hosts/{host}/glix.toml for an unusual layout.",
                )

    def _concerned(self, snapshot: Snapshot, commit: str, draft: Draft) -> tuple[str, ...]:
        """The hosts whose configuration may be another one with a commit that is written, those that people wait for first."""
        found = concerned(snapshot, self._repository.at(commit), draft.changed.keys())
        return tuple(sorted(found, key=lambda host: (host != draft.plan.host, host != self.machine, host)))

    def _result(self, made: _Made, published: Published) -> Result:
        """How a job went that has its commit."""
        warnings = [*made.warnings, *(f"Took over the edit of {path}." for path in made.draft.adopted)]
        if published.pending:
            warnings.append(f"Committed; the work tree does not show it yet: {published.pending}")
        warnings += [
            f"{path} was edited meanwhile and conflicts with the change; your edit stays in the work tree, resolve it there."
            for path in published.diverged
            if path in made.draft.changed
        ]
        hosts = self._concerned(made.base, made.commit, made.draft)
        return Result(made.outcome, made.commit, tuple(warnings), hosts)


def _broken_before(examine: Examine, base: Snapshot, commit: str, hosts: Sequence[str], job: Job) -> tuple[str, ...]:
    """Warnings about hosts that do not evaluate with a commit, and did not before; raises Unfit for one that did."""
    warnings = []
    for host in hosts:
        job.step(f"evaluating {host}")
        try:
            examine(commit, host, cancellation=job.cancellation)
        except Failed as error:
            if error.code is not ErrorCode.EVALUATION_FAILED:
                raise
            if host not in base.hosts or _evaluates(examine, base.commit, host, job):
                raise Unfit(commit, host, error) from error
            warnings.append(f"{error.message}\n{host} did not evaluate before this change either.")
    return tuple(warnings)


def _evaluates(examine: Examine, commit: str, host: str, job: Job) -> bool:
    try:
        examine(commit, host, cancellation=job.cancellation)
    except Failed as error:
        if error.code is not ErrorCode.EVALUATION_FAILED:
            raise
        return False
    return True
