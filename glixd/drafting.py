# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change makes of the files of a commit: planned, with the edits that it takes over, and locked. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from glixd.backends.objects import Content, Entry
from glixd.backends.repository import Repository
from glixd.backends.snapshot import FLAKE, LOCK, Snapshot
from glixd.backends.worktree import LINK, adopted_blob
from glixd.draft import Draft, Job
from glixd.errors import Refused
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
from glixd.model.plans import Plans
from glixd.protocol import ErrorCode
from glixd.undo import Undoer, Undone, plan_restored, plan_undone, restored, still_undoable

TEMPLATES: Final = Path(__file__).parent / "templates"
Expected = dict[str, str | None]
"""The blob that each file of the work tree is before a change is published over it; None where it is gone."""


class Drafter:
    """Drafts changes of one repository. Where the owner of the files asks, their edits by hand are taken over."""

    def __init__(
        self, repository: Repository, locker: Locker, plans: Plans, *, default_system: str, owner_adopts: bool
    ) -> None:
        self._repository = repository
        self._plans = plans
        self._locker = locker
        self._default_system = default_system
        self._owner_adopts = owner_adopts

    def draft(self, snapshot: Snapshot, job: Job, expected: Expected, shown: Snapshot | None) -> Draft:
        """What becomes of the files of `snapshot`; `shown` is what the work tree shows, where its edits count.

        Adds to `expected` what the files of the work tree are that it takes over. Raises what refuses the change.
        """
        adopted = self._adopted(shown, job) if shown else {}
        texts = {
            path: _text(data, path) for path, data in adopted.items() if data is not None and path in snapshot.managed
        }
        base = snapshot.base(texts, self._default_system)
        expected |= {path: adopted_blob(data, snapshot.commit) for path, data in adopted.items()}
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
            raise edited(path, "it would be lost", "Commit the edit first: glixctl adopt --all")

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
                return self._plans.plan(base, request)

    def _adopted(self, snapshot: Snapshot, job: Job) -> dict[str, bytes | None]:
        """The files that people edited by hand and that this change takes over: managed ones, unless more is asked for."""
        everything = isinstance(job.request, Adopt) and job.request.everything
        edits = self._repository.edits(snapshot, everything=everything)
        unresolved = self._repository.worktree.unresolved(edits)
        for path, data in edits.items():
            reason = self._why_not_adopted(snapshot, path, data, job, unresolved)
            if reason:
                raise edited(path, *reason)
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


def templates() -> dict[str, str]:
    """The files that `init` fills in, by name."""
    return {path.name: path.read_text() for path in TEMPLATES.iterdir() if path.is_file()}


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


def edited(path: str, reason: str, hint: str) -> Refused:
    """A file was edited by hand in a way that stops a change; says why, and what to do."""
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
        raise edited(
            path, f"it is no UTF-8 text (byte {error.start})", f"Put it back with: git checkout -- {path}"
        ) from None
