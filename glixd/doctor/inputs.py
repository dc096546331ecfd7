# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the inputs: that what flake.nix asks for is locked, can be fetched elsewhere, and is still what it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from glixd import api
from glixd.backends.process import Cancellation
from glixd.backends.snapshot import FLAKE, LOCK, Snapshot
from glixd.doctor.patient import REGENERATE, Check, Patient, doubtful, failed, fine
from glixd.errors import GlixError
from glixd.model.change import listed
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import LockFile
from glixd.protocol import DEFAULT_CORE_URL
from glixd.resolvers.asking import Asking

OWN: Final = ("nixpkgs", "glixos-core")
"""Inputs without which nothing works."""
NEEDED_FEATURES: Final = frozenset({"host-attributes", "attribute-paths", "module-config", "follows", "consents"})
_PINNED: Final = re.compile(r"(?:[/=]|rev=)[0-9a-f]{40}(?:[?&]|$)")


def lock(patient: Patient) -> Iterator[api.Check]:
    """Everything that flake.nix asks for is locked."""
    snapshot = patient.repository.snapshot()
    locked = _lock(snapshot)
    missing = [name for name in (*OWN, *_declared(snapshot.text(FLAKE) or "")) if name not in locked.inputs]
    if missing:
        message = f"flake.lock does not have {listed(missing)}, which flake.nix asks for"
        yield failed("lock", message, "glixctl regen", path=LOCK, fix=REGENERATE)
    else:
        yield fine("lock", f"{len(locked.inputs)} inputs are locked")


def _declared(flake: str) -> list[str]:
    """The inputs of the managed region; none where its markers are broken, which is told already."""
    try:
        return FlakeFile.parse(flake).input_names
    except GlixError:
        return []


def portable(patient: Patient) -> Iterator[api.Check]:
    """No input stands outside the repository on this machine alone."""
    found = False
    for entry in _lock(patient.repository.snapshot()).inputs.values():
        url = entry.url or ""
        if url.startswith(("path:/", "git+file:", "/")):
            found = True
            message = f"the input {entry.name} is at {url}, which no other machine has"
            remedy = "Keep it in the repository (path:./FOLDER) or publish it, and change its URL in flake.nix."
            yield doubtful("portable", message, remedy, path=FLAKE)
    if not found:
        yield fine("portable", "every input can be fetched by another machine")


def core(patient: Patient) -> Iterator[api.Check]:
    """The locked core understands what glixd writes."""
    snapshot = patient.repository.snapshot()
    asking = Asking(patient.facts, snapshot, patient.machine, patient.nix.system(), Cancellation())
    missing = sorted(NEEDED_FEATURES - asking.core_features())
    if missing:
        yield doubtful(
            "core",
            f"the locked glixos-core does not understand {listed(missing)}; changes that need it are refused",
            f"Let glixos-core point to {DEFAULT_CORE_URL} in flake.nix, then: glixctl update glixos-core",
        )
    else:
        yield fine("core", "the locked core understands everything that glixd writes")


def lock_verified(patient: Patient) -> Iterator[api.Check]:
    """With --verify: locking once more gives the same, and from nothing only what is not pinned moves."""
    if not patient.verify:
        return
    snapshot = patient.repository.snapshot()
    flake, text = snapshot.text(FLAKE) or "", snapshot.text(LOCK)
    before = _lock(snapshot)
    again = _moved(before, LockFile.parse(patient.locker.lock(snapshot, flake, text, Cancellation(), fresh=True)))
    if again:
        message = f"flake.lock does not fit flake.nix: {listed(again)} would be locked anew"
        yield failed("lock-verified", message, "glixctl regen", path=LOCK, fix=REGENERATE)
        return
    moved = _moved(before, LockFile.parse(patient.locker.lock(snapshot, flake, None, Cancellation(), fresh=True)))
    pinned = [
        name for name in moved if _PINNED.search((before.inputs[name].url or "") if name in before.inputs else "")
    ]
    loose = [name for name in moved if name not in pinned]
    if pinned:
        message = f"{listed(pinned)} is pinned to a commit, and locked at another"
        yield failed("lock-verified", message, f"glixctl update {' '.join(pinned)}", path=LOCK)
    if loose:
        message = f"not pinned, and moved on since it was locked: {', '.join(loose)}"
        remedy = "glixctl update " + " ".join(loose)
        yield doubtful("lock-verified", message, f"{remedy}, or pin what should not move: glixctl set NAME pin=REV")
    if not moved:
        yield fine("lock-verified", "locking everything from nothing gives the same revisions")


def _lock(snapshot: Snapshot) -> LockFile:
    return LockFile.parse(snapshot.text(LOCK))


def _moved(before: LockFile, after: LockFile) -> list[str]:
    names = sorted({*before.inputs, *after.inputs})
    return [name for name in names if before.revision(name) != after.revision(name)]


CHECKS: Final[tuple[Check, ...]] = (lock, portable, core, lock_verified)
