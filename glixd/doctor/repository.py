# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the repository: that it is there, whose it is, what it shows, and that flake.nix says what the manifests say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from glixd import api
from glixd.backends.snapshot import FLAKE, Snapshot
from glixd.doctor.patient import REGENERATE, Check, Patient, doubtful, failed, fine
from glixd.errors import GlixError
from glixd.model.change import listed
from glixd.model.flakefile import FlakeFile
from glixd.model.operations import regenerated

WRITABLE_BY_OTHERS: Final = 0o022


def there(patient: Patient) -> Iterator[api.Check]:
    """The repository is there, with a commit."""
    snapshot = patient.repository.snapshot()
    yield fine("repository", f"{patient.repository.root} at {snapshot.commit[:7]}, {len(snapshot.hosts)} hosts")


def permissions(patient: Patient) -> Iterator[api.Check]:
    """The repository is the daemon's own, and nobody else writes it."""
    root, directory = patient.repository.root, patient.repository.git.directory
    found = False
    for folder in (root, directory):
        facts = folder.stat()
        if facts.st_uid != os.geteuid():
            found = True
            remedy = f"chown --recursive {os.geteuid()} {root}"
            yield failed("permissions", f"{folder} belongs to uid {facts.st_uid}, the daemon is {os.geteuid()}", remedy)
        elif not os.access(folder, os.W_OK | os.X_OK):
            found = True
            yield failed("permissions", f"{folder} can't be written", f"chmod u+rwx {folder}")
        if facts.st_mode & WRITABLE_BY_OTHERS:
            found = True
            message = f"others may write {folder} (mode {facts.st_mode & 0o777:03o}): they decide what is installed"
            yield failed("permissions", message, f"chmod go-w {folder}")
    if not found:
        yield fine("permissions", "the daemon alone writes the repository")


def branch(patient: Patient) -> Iterator[api.Check]:
    """HEAD is on the branch that glixd moves."""
    repository = patient.repository
    name = repository.branch.removeprefix("refs/heads/")
    head = repository.git.head_ref()
    if head == repository.branch:
        yield fine("branch", f"{name} is checked out")
        return
    elsewhere = f"on {head.removeprefix('refs/heads/')}" if head else "detached"
    yield doubtful(
        "branch",
        f"HEAD is {elsewhere}, and changes are committed on {name}: the files do not show them",
        f"git -C {repository.root} checkout {name}",
    )


def index(patient: Patient) -> Iterator[api.Check]:
    """The index of git can be read, and nobody holds it."""
    lock = patient.repository.git.directory / "index.lock"
    if patient.repository.index.is_damaged:
        yield failed(
            "index", "git's index is damaged; nothing is lost by writing it anew", "glixctl regen", fix=REGENERATE
        )
    elif lock.exists():
        remedy = f"Finish the git command or editor that is open there; if none is: rm {lock}"
        yield doubtful("index", f"somebody holds the index: {lock} exists", remedy)
    else:
        yield fine("index", "git's index is sound")


def published(patient: Patient) -> Iterator[api.Check]:
    """The files show the newest commit."""
    if patient.repository.is_published:
        yield fine("published", "the files show the newest commit")
    else:
        message = "the files do not show the newest commit yet"
        yield doubtful("published", message, "glixctl doctor --fix", fix=REGENERATE)


def edits(patient: Patient) -> Iterator[api.Check]:
    """Nobody edited a managed file, and no edit conflicts with a change."""
    repository = patient.repository
    edited = repository.edits(_snapshot(patient))
    unresolved = set(repository.worktree.unresolved(edited))
    for path, data in edited.items():
        if data is None:
            yield failed("edits", f"{path} is gone", f"git -C {repository.root} checkout -- {path}", path=path)
        elif path in unresolved:
            message = f"{path} was edited while a change was published, and the two conflict"
            yield failed("edits", message, f"git -C {repository.root} diff -- {path}", path=path)
        else:
            yield doubtful("edits", f"{path} was edited by hand and is in no commit", "glixctl adopt", path=path)
    others = [path for path in repository.git.dirty() if path not in edited]
    if others:
        remedy = "glixctl adopt --all, or git add and commit; nix sees no file that git does not know"
        yield doubtful("edits", f"{len(others)} other files are in no commit: {listed(others)}", remedy)
    if not edited and not others:
        yield fine("edits", "every file is as it was committed")


def markers(patient: Patient) -> Iterator[api.Check]:
    """The markers of the managed regions are in order, in the commit and in the file."""
    snapshot = _snapshot(patient)
    texts = [snapshot.text(FLAKE) or "", *_edited_flake(patient, snapshot)]
    for text in texts:
        FlakeFile.parse(text)
    yield fine("markers", "flake.nix has both managed regions")


def regions(patient: Patient) -> Iterator[api.Check]:
    """The managed regions say what the manifests say; without their markers there are none, and that is told already."""
    snapshot = _snapshot(patient)
    if not all(map(_has_markers, [snapshot.text(FLAKE) or "", *_edited_flake(patient, snapshot)])):
        return
    base = snapshot.base(patient.repository.edited_texts(snapshot), patient.nix.system())
    try:
        wanted = regenerated(base, {})
    except GlixError as error:
        yield doubtful("regions", f"what flake.nix should say can't be told: {error.message}", error.hint or None)
        return
    if wanted == base.flake:
        yield fine("regions", "flake.nix says what the manifests say")
    else:
        message = "a managed region of flake.nix does not say what the manifests say"
        yield failed("regions", message, "glixctl regen", path=FLAKE, fix=REGENERATE)


def _snapshot(patient: Patient) -> Snapshot:
    return patient.repository.snapshot()


def _edited_flake(patient: Patient, snapshot: Snapshot) -> list[str]:
    text = patient.repository.edited_texts(snapshot).get(FLAKE)
    return [] if text is None else [text]


def _has_markers(text: str) -> bool:
    try:
        FlakeFile.parse(text)
    except GlixError:
        return False
    return True


CHECKS: Final[tuple[Check, ...]] = (permissions, branch, index, published, edits, markers, regions)
