# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the machine: the programs, the disk, the bus and the daemon's own state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from glixd import api
from glixd.backends import files
from glixd.doctor.patient import Check, Patient, doubtful, failed, fine
from glixd.errors import GlixError

ROOT_EQUIVALENT: Final = frozenset({"*", "@wheel"})
"""Entries of nix's trusted-users that make everybody, or every administrator, root without a password."""


def nix(patient: Patient) -> Iterator[api.Check]:
    """Nix is there."""
    yield fine("nix", patient.nix.version())


def flakes(patient: Patient) -> Iterator[api.Check]:
    """A flake evaluates: asked of nix itself, since no version says so."""
    scratch = patient.state / "scratch"
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=scratch) as folder:
        patient.nix.probe_flakes(Path(folder))
    yield fine("flakes", "nix evaluates flakes and writes its store")


def git(patient: Patient) -> Iterator[api.Check]:
    """Git is there."""
    yield fine("git", patient.repository.git.version())


def trusted_users(patient: Patient) -> Iterator[api.Check]:
    """Nix trusts nobody by the dozen."""
    risky = sorted(ROOT_EQUIVALENT & set(patient.nix.trusted_users()))
    if risky:
        yield doubtful(
            "trusted-users",
            f"nix trusts {' and '.join(risky)}: whoever that is becomes root without a password, whatever glixd asks for",
            'In the configuration of the machine: nix.settings.trusted-users = [ "root" ];',
        )
    else:
        yield fine("trusted-users", "nix trusts no group of people")


def disk(patient: Patient) -> Iterator[api.Check]:
    """There is room for a change, and for a build."""
    remedy = "glixctl gc"
    for folder in (patient.repository.root, patient.state):
        if folder.exists():
            try:
                files.require_space(folder, *patient.repository.needed)
            except GlixError as error:
                yield failed("disk", error.message, remedy)
                return
    store = patient.nix.store
    facts = os.statvfs(store if store.exists() else patient.state)
    free = facts.f_bavail * facts.f_frsize
    if free < patient.low_bytes:
        yield doubtful("disk", f"the file system of {store} has {free // 1024**2} MiB free: little for a build", remedy)
    else:
        yield fine("disk", f"{free // 1024**3} GiB are free for the store")


def bus(patient: Patient) -> Iterator[api.Check]:
    """The daemon can be reached on its bus."""
    problem = patient.bus()
    if problem:
        yield doubtful("bus", problem, "Programs that use the bus don't find glixd; glixctl asks by its socket.")
    else:
        yield fine("bus", "nothing keeps the daemon from its bus")


def authorisation(patient: Patient) -> Iterator[api.Check]:
    """Whoever decides what callers may do can be asked, about everything."""
    problem = patient.authority()
    if problem:
        yield failed(
            "authorisation",
            f"only root can change anything: {problem}",
            "systemctl status polkit; pkaction | grep org.glixos.glix1",
        )
    else:
        yield fine("authorisation", "whoever decides what callers may do can be asked")


def state(patient: Patient) -> Iterator[api.Check]:
    """The database of the daemon can be read and written."""
    problem = patient.database.problem()
    if problem:
        remedy = f"Look at the permissions of {patient.state}, or move state.db away: only the log of old transactions is in it."
        yield failed("state", f"the state database: {problem}", remedy)
    else:
        yield fine("state", "the log of transactions is sound")


CHECKS: Final[tuple[Check, ...]] = (nix, flakes, git, trusted_users, disk, bus, authorisation, state)
