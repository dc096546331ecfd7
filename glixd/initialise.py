# SPDX-License-Identifier: GPL-3.0-or-later
"""The making of a new repository: built beside its place, then renamed into it in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from glixd.backends import files
from glixd.backends.repository import Repository
from glixd.backends.snapshot import FLAKE, LOCK
from glixd.draft import Draft, Job, commit_of, outcome_of
from glixd.drafting import templates
from glixd.errors import Failed, Refused
from glixd.locking import Locker
from glixd.log import get_logger
from glixd.model.change import Base, Init
from glixd.model.operations import new_flake, plan_host, regenerated
from glixd.protocol import ErrorCode
from glixd.transaction import Result

log = get_logger()


def make_repository(
    target: Path,
    request: Init,
    job: Job,
    locker: Locker,
    machine: str,
    build: Callable[[Path], Repository],
    check: Callable[[Repository, str], None],
) -> Result:
    """Make the repository of `request` at `target`; raises Conflict when something is there, and then leaves it alone.

    `build` gives the repository object of a folder: it works in a sibling of `target` until all is on the disk. There
    `check` looks at the commit, and raises what speaks against it.
    """
    _check_free(target)
    files_made = templates()
    planned = plan_host(None, request, files_made)
    base = Base(new_flake(request, files_made), None, {}, {}, request.system)
    after = {**planned.files, FLAKE: regenerated(base, planned.manifests)}
    job.step("locking the inputs")
    after[LOCK] = locker.lock_new(after[FLAKE], job.cancellation)
    draft = Draft(planned, dict.fromkeys(after), {path: text.encode() for path, text in after.items()}, {})
    outcome = outcome_of(draft)
    if job.dry_run:
        if request.files:
            _check_elsewhere(build, draft, job, machine, check)
        return Result(outcome)
    job.step("writing the repository")
    with files.translating(target):
        beside = _beside(target, job.id)
    try:
        commit = _build(build(beside), draft, job, machine)
        with closing(build(beside)) as made:
            check(made, commit)
        job.cancellation.seal()
        _move(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    job.committed(commit)
    _sync(target.parent)
    return Result(outcome, commit, hosts=(request.host,))


def _check_elsewhere(
    build: Callable[[Path], Repository],
    draft: Draft,
    job: Job,
    machine: str,
    check: Callable[[Repository, str], None],
) -> None:
    """Check the repository of a dry run, in a folder that goes again: where it would be, nothing is written."""
    with tempfile.TemporaryDirectory(prefix="glixd-") as folder:
        commit = _build(build(Path(folder)), draft, job, machine)
        with closing(build(Path(folder))) as made:
            check(made, commit)


def _build(repository: Repository, draft: Draft, job: Job, machine: str) -> str:
    """A whole repository with its first commit, its work tree and its index, on the disk."""
    repository.git.initialise(job.branch)
    try:
        with repository.locked(job.cancellation) as held:
            commit = repository.make(commit_of(job, draft, None, machine))
            repository.commit_point(held, commit, None)
            published = repository.publish(held, commit, repository.git.changed_paths(None, commit))
            if published.pending:
                raise Failed(f"The new work tree can't be written: {published.pending}", code=ErrorCode.READ_ONLY)
    finally:
        repository.close()
    return commit


def _check_free(target: Path) -> None:
    if not os.path.lexists(target):
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise Refused(
        f"{target} is there already and is no repository of glixd.",
        hint="Choose another place with --dir, or move it away.",
        details={"path": str(target)},
    )


def _beside(target: Path, identifier: str) -> Path:
    """An empty folder beside `target`, on the same file system; those of interrupted attempts go away."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.require_space(target.parent)
    prefix = f".{target.name}.glixd-"
    for old in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = target.parent / f"{prefix}{identifier}"
    folder.mkdir(mode=0o755)
    return folder


def _move(beside: Path, target: Path) -> None:
    with files.translating(target):
        files.sync_tree(beside)
        if target.is_dir():
            target.rmdir()
        try:
            if not files.rename_new(beside, target):
                beside.rename(target)
        except FileExistsError:
            raise Refused(f"{target} came into being meanwhile.", hint="Look at it, then try again.") from None


def _sync(folder: Path) -> None:
    """Wait until the name of the repository is on the disk; it is there already, so a disk that fails is no failure of ours."""
    try:
        files.sync_folder(folder)
    except OSError as error:
        log.warning("the repository is made, and that may not be on the disk yet", reason=str(error))
