# SPDX-License-Identifier: GPL-3.0-or-later
"""One change: prepare → commit point → publish.

Everything before the commit point happens in memory, in a scratch folder and in objects that nothing refers to. The commit
point is one compare-and-swap of the branch. After it no error is a failure: the answer is "committed, publish pending", and
recovery finishes the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from glixd import api
from glixd.backends.objects import Content, Entry
from glixd.backends.repository import SCRATCH_REF, BranchMoved, Held, Published, Repository, adopted_blob
from glixd.backends.snapshot import FLAKE, LOCK, Snapshot
from glixd.backends.worktree import LINK
from glixd.concern import concerned
from glixd.draft import Draft, Job, commit_of, outcome_of
from glixd.errors import Failed, GlixError, Refused
from glixd.locking import Locker, moved_folders
from glixd.model.change import (
    ALL_HOSTS,
    Adopt,
    Base,
    Init,
    Plan,
    Push,
    Regenerate,
    RemoveHost,
    RenameHost,
    Request,
    Restore,
    Rollback,
    manifest_path,
)
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import LockFile
from glixd.model.operations import plan, plan_host, plan_renamed_host, plan_without_host, regenerated
from glixd.protocol import ErrorCode
from glixd.replay import replay, told
from glixd.undo import Undoer, Undone, plan_restored, plan_undone, restored, still_undoable

ATTEMPTS: Final = 3
"""How often a change is computed anew because somebody committed meanwhile."""
TEMPLATES: Final = Path(__file__).parent / "templates"


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


def refused(error: Unfit, packages: Sequence[str]) -> Failed:
    """The refusal of a change with the packages that break the host."""
    if not packages:
        return error
    _, _, words = error.message.partition(": ")
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
        locker: Locker,
        *,
        machine: str,
        default_system: str,
        owner_adopts: bool,
        examine: Examine | None = None,
    ) -> None:
        self._repository = repository
        self._locker = locker
        self._default_system = default_system
        self.machine = machine
        self._owner_adopts = owner_adopts
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
        finished = self._draft(newest, job, held, shown if newest is snapshot else None)
        draft = told(snapshot, newest, job.request, finished) if isinstance(job.request, Push) else finished
        if not draft.changed:
            if job.point:
                job.point(snapshot.commit)
            return Result(api.Outcome(summary=draft.plan.summary, changed=False))
        outcome = outcome_of(draft)
        examine = self._examine if job.evaluate else None
        if job.dry_run and examine is None:
            return Result(outcome)
        job.step("writing the commit")
        commit = newest.commit
        if finished.changed:
            commit = self._repository.make(commit_of(job, finished, newest.commit, self.machine))
        self._verify(commit, finished)
        warnings: tuple[str, ...] = ()
        if examine:
            self._repository.show(held, commit)
            try:
                hosts = self._concerned(snapshot, commit, draft)
                warnings = _broken_before(examine, snapshot, commit, hosts, job)
            finally:
                self._repository.git.delete_ref(SCRATCH_REF)
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
            raise _edited(path, "the commits would be published over it", "Commit the edit first: glixctl adopt")
        return replay(self._repository, snapshot, job.request, job)

    def _commit(self, made: Sequence[_Made], held: Held, base: Snapshot, newest: Snapshot) -> Published:
        """Pass the commit point, and publish: the commits stand, and from here on whatever happens is a warning."""
        for one in made:
            if one.job.point:
                self._repository.show(held, one.commit)
                one.job.point(one.commit)
        for one in made:
            one.job.cancellation.seal()
        self._repository.commit_point(held, newest.commit, base.commit)
        for one in made:
            one.job.committed(one.commit)
            one.job.step("publishing")
        paths = dict.fromkeys(path for one in made for path in one.draft.changed)
        changes = {path: (base.entry(path), newest.entry(path)) for path in paths}
        return self._repository.publish(held, newest.commit, changes)

    # -- preparing -----------------------------------------------------------------------------------------------

    def _draft(self, snapshot: Snapshot, job: Job, held: Held, shown: Snapshot | None) -> Draft:
        adopted = self._adopted(shown, job) if shown else {}
        texts = {
            path: _text(data, path) for path, data in adopted.items() if data is not None and path in snapshot.managed
        }
        base = snapshot.base(texts, self._default_system)
        held.expected |= {path: adopted_blob(data, snapshot.commit) for path, data in adopted.items()}
        if isinstance(job.request, Init):
            if job.request.files and job.request.host not in snapshot.hosts:
                self._refuse_taken(snapshot, job.request.host)
            elif job.request.host not in snapshot.hosts:
                self._refuse_untracked(snapshot, job.request.host)
        elif job.request.host != ALL_HOSTS:
            snapshot.manifest(job.request.host)  # an unknown host is refused before anything else
        undone = self._undone(snapshot, base, adopted, job.request)
        planned = self._planned(base, job.request, undone)
        if isinstance(job.request, Init):  # a folder that people made keeps its files, and gets a manifest beside them
            kept = {path: text for path, text in planned.files.items() if snapshot.data(path) is None}
            planned = replace(planned, files=kept)
        before = {path: snapshot.data(path) for path in {FLAKE, LOCK, *planned.files, *adopted}}
        after: dict[str, Content] = {**adopted, **{path: text.encode() for path, text in planned.files.items()}}
        if undone:
            self._refuse_edited(snapshot, [path for path, data in undone.files.items() if data is None])
        moved, renamed = self._moved_files(snapshot, planned, job.request, before)
        after |= moved
        lock = base.lock
        if undone:
            lock = undone.lock
            for path, data in undone.files.items():
                before.setdefault(path, snapshot.data(path))
                after[path] = undone.entries.get(path, data)
            if undone.files.get(FLAKE):
                base = replace(base, flake=_text(undone.files[FLAKE] or b"", FLAKE))
        flake = base.flake
        if planned.regenerates or adopted:
            flake = regenerated(base, planned.manifests, planned.gone)
        after[FLAKE] = flake.encode()
        locked = self._lock(snapshot, planned, flake, lock, before[LOCK], job)
        if locked is not None:
            after[LOCK] = locked.encode()
        _compare(planned, LockFile.parse(locked if locked is not None else lock))
        programs = {path for path, data in before.items() if data is not None and snapshot.is_program(path)}
        return Draft(planned, before, after, adopted, renamed, programs)

    def _moved_files(
        self, snapshot: Snapshot, planned: Plan, request: Request, before: dict[str, bytes | None]
    ) -> tuple[dict[str, Content], dict[str, str]]:
        """The files of a host that goes or gets another name, and which becomes which.

        That is all that git tracks in its folder; one with an open edit is refused.
        """
        moved: dict[str, Content] = {}
        renamed: dict[str, str] = {}
        if isinstance(request, RenameHost):
            self._refuse_taken(snapshot, request.to)
        for host in () if isinstance(request, Rollback | Restore) else planned.gone:
            entries = snapshot.below(f"hosts/{host}")
            _refuse_unmovable(entries)
            self._refuse_edited(snapshot, entries)
            for path, entry in entries.items():
                before[path] = snapshot.data(path)
                moved[path] = None
                target = f"hosts/{request.to}/{path.split('/', 2)[2]}" if isinstance(request, RenameHost) else ""
                if target and target not in planned.files:
                    before[target] = None
                    moved[target] = entry
                    renamed[target] = path
        return moved, renamed

    def _refuse_edited(self, snapshot: Snapshot, paths: Iterable[str]) -> None:
        """Refuse a change that takes files away, where one of them has an open edit."""
        entries = {path: entry for path in paths if (entry := snapshot.entry(path)) and entry.is_regular}
        for path in self._repository.worktree.edits(entries):
            raise _edited(path, "it would be lost", "Commit the edit first: glixctl adopt --all")

    def _undone(
        self, snapshot: Snapshot, base: Base, adopted: Mapping[str, bytes | None], request: Request
    ) -> Undone | None:
        if isinstance(request, Restore):
            return restored(self._repository.at(request.commit), request)
        if not isinstance(request, Rollback):
            return None
        entries = still_undoable(snapshot.git, snapshot.commit, request.commits)
        missing = [oid for oid in request.commits if oid not in entries]
        if missing:
            raise Refused(f"Commit {missing[0][:7]} was undone already.", hint="See: glixctl history")
        undoer = Undoer(snapshot, base, adopted, self._repository.scratch)
        return undoer.undo([entries[oid] for oid in request.commits])

    def _planned(self, base: Base, request: Request, undone: Undone | None) -> Plan:
        match request:
            case Rollback():
                return plan_undone(base, request, undone or Undone())
            case Restore():
                return plan_restored(base, request, undone or Undone())
            case RemoveHost():
                return plan_without_host(base, request)
            case RenameHost():
                return plan_renamed_host(base, request)
            case Init():
                return plan_host(base, request, templates())
            case Push():  # whose commits are made: what is left is what follows from them
                return plan(base, Regenerate(request.host))
            case _:
                return plan(base, request)

    def _adopted(self, snapshot: Snapshot, job: Job) -> dict[str, bytes | None]:
        """The files that people edited by hand and that this change takes over: managed ones, unless more is asked for."""
        everything = isinstance(job.request, Adopt) and job.request.everything
        edits = self._repository.edits(snapshot, everything=everything)
        unresolved = self._repository.worktree.unresolved(edits)
        for path, data in edits.items():
            reason = self._why_not_adopted(snapshot, path, data, job, unresolved)
            if reason:
                raise _edited(path, *reason)
        return edits

    def _why_not_adopted(
        self, snapshot: Snapshot, path: str, data: bytes | None, job: Job, unresolved: list[str]
    ) -> tuple[str, str] | None:
        """Why an edit can't be taken over, and what to do about it."""
        put_back = f"Put it back with: git checkout -- {path}"
        if isinstance(job.request, Adopt) and path not in snapshot.managed:
            return None if is_plain(path) else ("its name is no plain text", "Commit it yourself, with git.")
        if not self._owner_adopts and not isinstance(job.request, Adopt):
            return "it differs from the commit", put_back
        if data is None:
            return "it is gone", put_back
        if path in unresolved and not isinstance(job.request, Adopt):
            resolve = f"See: git diff -- {path}   Edit it until it says what you want, or put it back with: git checkout -- {path}"
            return "it was edited while a change was published, and the two conflict", resolve
        if path == FLAKE and not isinstance(job.request, Regenerate | Adopt):
            now, then = FlakeFile.parse(_text(data, path)), FlakeFile.parse(snapshot.text(path) or "")
            if (now.inputs_region, now.hosts_region) != (then.inputs_region, then.hosts_region):
                return "a region that glixd writes was edited", f"{put_back}   or write it anew with: glixctl regen"
        return None

    def _refuse_taken(self, snapshot: Snapshot, host: str) -> None:
        """A folder that is there already, known to git or not, is no place for the files of a host."""
        folder = f"hosts/{host}"
        if snapshot.below(folder) or os.path.lexists(self._repository.root / folder):
            raise Refused(
                f"{folder} exists already.",
                hint="Move it away, or choose another name.",
                details={"path": folder},
            )

    def _refuse_untracked(self, snapshot: Snapshot, host: str) -> None:
        """A file that git does not know yet is somebody's work: `init` never writes over it."""
        for path in (manifest_path(host), f"hosts/{host}/default.nix"):
            if snapshot.data(path) is None and os.path.lexists(self._repository.root / path):
                raise Refused(
                    f"{path} exists already, and git does not know it.",
                    hint=f"Move it away, or commit it: git add {path} && git commit -m 'Add {path}' -- {path}",
                    details={"path": path},
                )

    def _lock(
        self, snapshot: Snapshot, planned: Plan, flake: str, lock: str | None, before: bytes | None, job: Job
    ) -> str | None:
        """The new flake.lock where the inputs may have changed; None where they can't."""
        same = flake.encode() == snapshot.data(FLAKE) and lock is not None and lock.encode() == before
        if isinstance(job.request, Regenerate | Push):  # which mends a lock that lost an input, too
            known = LockFile.parse(lock).inputs
            same = same and all(name in known for name in ("nixpkgs", *FlakeFile.parse(flake).input_names))
        if same and not planned.updates and not moved_folders(snapshot, lock):
            return None
        job.step("locking the inputs")
        return self._locker.lock(snapshot, flake, lock, job.cancellation, update=planned.updates)

    # -- committing ----------------------------------------------------------------------------------------------

    def _verify(self, commit: str, draft: Draft) -> None:
        """Read the written manifests again, and compare them with what was meant."""
        written = self._repository.at(commit)
        for host, manifest in draft.plan.manifests.items():
            if written.manifest(host) != manifest:
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


def templates() -> dict[str, str]:
    """The files that `init` fills in, by name."""
    return {path.name: path.read_text() for path in TEMPLATES.iterdir() if path.is_file()}


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


def _compare(planned: Plan, locked: LockFile) -> None:
    """What was locked must be what was resolved and authorised."""
    for name, revision in planned.expected.items():
        found = locked.revision(name)
        if found != revision:
            raise Refused(
                f"The input {name} moved while the change was prepared: {revision} was resolved, {found} was locked.",
                code=ErrorCode.REFERENCE_MOVED,
                hint="Try again, or pin it with --pin.",
                details={"input": name, "resolved": revision, "locked": found or "nothing"},
            )


def _refuse_unmovable(entries: Mapping[str, Entry]) -> None:
    """Refuse a folder with something in it that glixd does not keep: a submodule, or a name that is no plain text."""
    for path, entry in entries.items():
        if not is_plain(path) or not (entry.is_regular or entry.mode == LINK):
            raise Refused(
                f"{path!a} is a submodule, or its name is no plain text; glixd moves neither.",
                hint="Move or remove it with git first, and commit that.",
            )


def is_plain(path: str) -> bool:
    """Whether the path of a file can stand in a commit message, a diff and what a client prints."""
    return path.isprintable() and "\ufffd" not in path and not path.startswith('"')


def _edited(path: str, reason: str, hint: str) -> Refused:
    return Refused(
        f"{path} was edited by hand: {reason}.",
        code=ErrorCode.MANAGED_FILE_EDITED,
        hint=hint,
        details={"path": path, "reason": reason},
    )


def _text(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _edited(
            path, f"it is no UTF-8 text (byte {error.start})", f"Put it back with: git checkout -- {path}"
        ) from None
