# SPDX-License-Identifier: GPL-3.0-or-later
"""The commits of a clone on top of the branch: each again, merged file by file where the branch has moved on.

They keep their authors, times and words, and say who brought them. A file that both sides changed in the same place is a
conflict, and then nothing happens.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from glixd.backends.files import translating
from glixd.backends.objects import GLIXD, PROGRAM, Commit, Content, Person
from glixd.backends.repository import Repository
from glixd.backends.snapshot import Snapshot
from glixd.draft import Draft, Job
from glixd.errors import Refused
from glixd.model.change import Plan, Push, PushedCommit, PushedFile
from glixd.protocol import ErrorCode


def replay(repository: Repository, snapshot: Snapshot, request: Push, job: Job) -> Snapshot:
    """The newest of the commits, all made on top of `snapshot`; raises Conflict with the files, or ManifestInvalid."""
    newest = snapshot
    for commit in request.commits:
        newest = _one(repository, newest, commit, job)
    for host in newest.hosts:
        newest.manifest(host)
    return newest


def told(snapshot: Snapshot, newest: Snapshot, request: Push, finished: Draft) -> Draft:
    """All that the commits change together, with what follows from it, as one difference."""
    paths = {file.path for commit in request.commits for file in commit.files} | set(finished.after)
    after: dict[str, Content] = {path: newest.data(path) for path in paths}
    after |= finished.after
    programs = {path for path in paths if newest.is_program(path)}
    subject = request.commits[-1].message.split("\n", 1)[0]
    count = len(request.commits)
    plan = Plan("push", request.host, note=f"pushed {count} commit{'s' if count > 1 else ''}: {subject}")
    return Draft(plan, {path: snapshot.data(path) for path in paths}, after, {}, {}, programs)


def _one(repository: Repository, newest: Snapshot, commit: PushedCommit, job: Job) -> Snapshot:
    files: dict[str, Content] = {}
    conflicts: list[str] = []
    for file in commit.files:
        now = newest.data(file.path)
        try:
            merged = _merged(repository, file, now)
        except _Conflicting:
            conflicts.append(file.path)
            continue
        if merged != now or (merged is not None and newest.is_program(file.path) != (file.mode == PROGRAM)):
            files[file.path] = merged
    if conflicts:
        raise _conflict(commit, conflicts)
    if not files:
        return newest  # somebody made the same change already
    programs = frozenset(file.path for file in commit.files if file.mode == PROGRAM)
    author = Person(commit.author, commit.email)
    made = Commit(newest.commit, author, GLIXD, _message(commit, job), files, programs, commit.when)
    return repository.at(repository.make(made))


class _Conflicting(Exception):
    """Both sides changed the same place."""


def _merged(repository: Repository, file: PushedFile, now: bytes | None) -> bytes | None:
    if now in (file.before, file.after):
        return file.after
    if now is None or file.before is None or file.after is None or b"\0" in now + file.after:
        raise _Conflicting
    with (
        translating(repository.scratch),
        tempfile.TemporaryDirectory(dir=repository.scratch, prefix="merge-") as folder,
    ):
        paths = [Path(folder) / name for name in ("now", "before", "after")]
        for path, data in zip(paths, (now, file.before, file.after), strict=True):
            path.write_bytes(data)
        merged = repository.git.merge(*paths)
    if merged is None:
        raise _Conflicting
    return merged


def _message(commit: PushedCommit, job: Job) -> str:
    """What the person said, and who brought it."""
    trailers = [
        *([f"Glix-Reason: {job.reason}"] if job.reason else []),
        f"Glix-Pushed: {job.id}",
        f"Glix-Request-Digest: {job.digest}",
        f"Glix-Uid: {job.caller.uid}",
    ]
    return f"{commit.message.rstrip()}\n\n" + "\n".join(trailers) + "\n"


def _conflict(commit: PushedCommit, paths: list[str]) -> Refused:
    subject = commit.message.split("\n", 1)[0][:80]
    return Refused(
        f"The commit “{subject}” and the repository changed the same places of {', '.join(paths[:10])}.",
        code=ErrorCode.CONFLICT,
        hint="Put your commits on top of the newest state and resolve it there: git rebase glixd/main, then glixctl push",
        details={"paths": paths[:100], "commit": subject},
    )
