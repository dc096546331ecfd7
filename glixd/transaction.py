# SPDX-License-Identifier: GPL-3.0-or-later
"""One change: prepare → commit point → publish.

Everything before the commit point happens in memory, in a scratch folder and in objects that nothing refers to. The commit
point is one compare-and-swap of the branch. After it no error is a failure: the answer is "committed, publish pending", and
recovery finishes the rest.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from glixd import api
from glixd.api import Caller
from glixd.backends.git import Commit, Person
from glixd.backends.process import Cancellation
from glixd.backends.repository import FLAKE, LOCK, SCRATCH_REF, BranchMoved, Held, Repository, Snapshot, adopted_blob
from glixd.errors import Failed, Refused
from glixd.locking import Locker, moved_folders
from glixd.model.change import Base, Init, Plan, Regenerate, RemoveHost, RenameHost, Request, manifest_path
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import LockFile
from glixd.model.operations import plan, plan_host, plan_renamed_host, plan_without_host, regenerated
from glixd.protocol import ErrorCode

COMMITTER: Final = Person("glixd", "glixd@localhost")
ATTEMPTS: Final = 3
"""How often a change is computed anew because somebody committed meanwhile."""
TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Job:
    """A resolved and authorised request with all that its transaction needs."""

    id: str
    request: Request
    digest: str
    caller: Caller
    branch: str = "main"
    dry_run: bool = False
    reason: str | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    step: Callable[[str], None] = lambda _title: None
    committed: Callable[[str], None] = lambda _commit: None


@dataclass(frozen=True, slots=True)
class Result:
    """How a transaction went: without a commit it was a dry run, or there was nothing to do."""

    outcome: api.Outcome
    commit: str | None = None
    warnings: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """The hosts whose configuration may have changed."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The change in full, before anything of it is written."""

    plan: Plan
    before: Mapping[str, str | None]
    after: Mapping[str, str]
    adopted: Mapping[str, bytes]

    @property
    def changed(self) -> dict[str, str]:
        """The files that the commit changes."""
        return {path: text for path, text in self.after.items() if self.before.get(path) != text}


class Transactor:
    """Carries one change at a time through to its commit."""

    def __init__(
        self, repository: Repository, locker: Locker, *, machine: str, default_system: str, owner_adopts: bool
    ) -> None:
        self._repository = repository
        self._locker = locker
        self._default_system = default_system
        self.machine = machine
        self._owner_adopts = owner_adopts

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

    def _attempt(self, job: Job, held: Held) -> Result:
        snapshot = self._repository.snapshot()
        job.step("computing the change")
        draft = self._draft(snapshot, job, held)
        if not draft.changed:
            return Result(api.Outcome(summary=draft.plan.summary, changed=False))
        outcome = outcome_of(draft)
        if job.dry_run:
            return Result(outcome)
        job.step("writing the commit")
        commit = self._repository.write(held, commit_of(job, draft, snapshot.commit, self.machine), job.cancellation)
        self._verify(commit, draft)
        job.cancellation.seal()
        self._repository.commit_point(held, commit, snapshot.commit)
        return self._publish(job, draft, outcome, held, snapshot.commit, commit)

    # -- preparing -----------------------------------------------------------------------------------------------

    def _draft(self, snapshot: Snapshot, job: Job, held: Held) -> Draft:
        adopted = self._adopted(snapshot, job)
        base = snapshot.base({path: _text(data, path) for path, data in adopted.items()}, self._default_system)
        held.expected = {path: adopted_blob(data, snapshot.commit) for path, data in adopted.items()}
        request = job.request
        if isinstance(request, Init):
            self._refuse_untracked(request.host)
        else:
            snapshot.manifest(request.host)  # an unknown host is refused before anything else
        planned = self._planned(base, request)
        before = {path: snapshot.text(path) for path in {FLAKE, LOCK, *planned.files, *adopted}}
        after = {path: data.decode() for path, data in adopted.items()} | dict(planned.files)
        after[FLAKE] = regenerated(base, planned.manifests) if planned.regenerates or adopted else base.flake
        after |= self._lock(snapshot, before, after, base.lock, job)
        _compare(planned, LockFile.parse(after.get(LOCK, before[LOCK])))
        return Draft(planned, before, after, adopted)

    def _planned(self, base: Base, request: Request) -> Plan:
        match request:
            case RemoveHost():
                return plan_without_host(base, request)
            case RenameHost():
                return plan_renamed_host(base, request)
            case Init():
                return plan_host(base, request, templates())
            case _:
                return plan(base, request)

    def _adopted(self, snapshot: Snapshot, job: Job) -> dict[str, bytes]:
        """The managed files that the owner edited by hand and that this change takes over."""
        if not self._repository.shows_branch():
            return {}
        edits = self._repository.worktree.edits(snapshot.managed)
        unresolved = self._repository.worktree.unresolved(edits)
        for path, data in edits.items():
            reason = self._why_not_adopted(snapshot, path, data, job, unresolved)
            if reason:
                raise _edited(path, *reason)
        return {path: data for path, data in edits.items() if data is not None}

    def _why_not_adopted(
        self, snapshot: Snapshot, path: str, data: bytes | None, job: Job, unresolved: list[str]
    ) -> tuple[str, str] | None:
        """Why an edit can't be taken over, and what to do about it."""
        put_back = f"Put it back with: git checkout -- {path}"
        if not self._owner_adopts:
            return "it differs from the commit", put_back
        if data is None:
            return "it is gone", put_back
        if path in unresolved:
            resolve = f"See: git diff -- {path}   Edit it until it says what you want, or put it back with: git checkout -- {path}"
            return "it was edited while a change was published, and the two conflict", resolve
        if path == FLAKE and not isinstance(job.request, Regenerate):
            now, then = FlakeFile.parse(_text(data, path)), FlakeFile.parse(snapshot.text(path) or "")
            if (now.inputs_region, now.hosts_region) != (then.inputs_region, then.hosts_region):
                return "a region that glixd writes was edited", f"{put_back}   or write it anew with: glixctl regen"
        return None

    def _refuse_untracked(self, host: str) -> None:
        """A folder that git does not know yet is somebody's work: `init` never writes into it."""
        folder = self._repository.root / "hosts" / host
        for name in ("glix.toml", "default.nix"):
            if os.path.lexists(folder / name):
                raise Refused(
                    f"hosts/{host}/{name} exists already.",
                    hint=f"Move it away, or commit it: git add hosts/{host} && git commit",
                    details={"path": f"hosts/{host}/{name}"},
                )

    def _lock(
        self,
        snapshot: Snapshot,
        before: Mapping[str, str | None],
        after: Mapping[str, str],
        lock: str | None,
        job: Job,
    ) -> dict[str, str]:
        """The new flake.lock where the inputs may have changed; nothing where they can't."""
        if (
            after[FLAKE] == before[FLAKE]
            and lock is not None
            and LOCK not in after
            and not moved_folders(snapshot, lock)
        ):
            return {}
        job.step("locking the inputs")
        locked = self._locker.lock(snapshot, after[FLAKE], lock, job.cancellation)
        return {LOCK: locked} if locked else {}

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

    def _publish(self, job: Job, draft: Draft, outcome: api.Outcome, held: Held, base: str, commit: str) -> Result:
        """The commit stands: from here on whatever happens is a warning."""
        job.committed(commit)
        job.step("publishing")
        published = self._repository.publish(held, base, commit)
        warnings = [f"Took over the edit of {path}." for path in draft.adopted]
        if published.pending:
            warnings.append(f"Committed; the work tree does not show it yet: {published.pending}")
        warnings += [
            f"{path} was edited meanwhile and conflicts with the change; your edit stays in the work tree, resolve it there."
            for path in published.diverged
        ]
        hosts = (
            (draft.plan.host,)
            if set(draft.changed) <= {manifest_path(draft.plan.host)}
            else tuple(self._repository.at(commit).hosts)
        )
        return Result(outcome, commit, tuple(warnings), hosts)


def templates() -> dict[str, str]:
    """The files that `init` fills in, by name."""
    return {path.name: path.read_text() for path in TEMPLATES.iterdir() if path.is_file()}


def commit_of(job: Job, draft: Draft, base: str | None, machine: str) -> Commit:
    """The commit of a change, by the caller and through glixd."""
    author = Person(job.caller.login, f"{job.caller.login}@{machine}")
    contents = {path: text.encode() for path, text in draft.changed.items()}
    return Commit(SCRATCH_REF, base, author, COMMITTER, _message(job, draft), contents)


def _message(job: Job, draft: Draft) -> str:
    """Subject, one line a package, and the trailers by which a commit is known as ours."""
    changes = draft.plan.changes
    subject = (
        draft.plan.subject
        if changes or not draft.adopted
        else f"glix adopt {draft.plan.host}: {', '.join(draft.adopted)}"
    )
    trailers = [
        *(f"Glix-Adopted: {path}" for path in draft.adopted),
        *([f"Glix-Reason: {job.reason}"] if job.reason else []),
        f"Glix-Transaction: {job.id}",
        f"Glix-Request-Digest: {job.digest}",
        f"Glix-Uid: {job.caller.uid}",
    ]
    paragraphs = [subject, "\n".join(draft.plan.body), "\n".join(trailers)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def outcome_of(draft: Draft) -> api.Outcome:
    """What a change does, told to the caller."""
    before = LockFile.parse(draft.before.get(LOCK))
    after = LockFile.parse(draft.after.get(LOCK, draft.before.get(LOCK)))
    names = sorted({*before.inputs, *after.inputs})
    lock = [
        api.LockChange(input=name, before=before.revision(name), after=after.revision(name))
        for name in names
        if before.revision(name) != after.revision(name)
    ]
    summary = (
        draft.plan.summary if draft.plan.changes else f"took over the edits of {', '.join(draft.adopted) or FLAKE}"
    )
    diff = "".join(unified(path, draft.before.get(path), text) for path, text in sorted(draft.changed.items()))
    return api.Outcome(summary=summary, changed=True, changes=draft.plan.changes, lock=tuple(lock), diff=diff)


def unified(path: str, before: str | None, after: str) -> str:
    """The unified diff of one file; equal ends are cut off first, since long manifests differ in few lines."""
    old, new = (before or "").splitlines(keepends=True), after.splitlines(keepends=True)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    head, tail = max(head - 3, 0), max(tail - 3, 0)
    source = "/dev/null" if before is None else f"a/{path}"
    lines = list(difflib.unified_diff(old[head : len(old) - tail], new[head : len(new) - tail], source, f"b/{path}"))
    return "".join(_shifted(line, head) if line.startswith("@@") else _ended(line) for line in lines)


def _common(first: list[str], second: list[str]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _shifted(line: str, by: int) -> str:
    """A hunk header of the middle of a file as that of the whole file."""
    words = line.split(" ")
    for place in (1, 2):
        start, comma, length = words[place][1:].partition(",")
        words[place] = f"{words[place][0]}{int(start) + by}{comma}{length}"
    return " ".join(words)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


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
