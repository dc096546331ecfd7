# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor: looks at everything that can be wrong, says so in one line each, and names the command that mends it.

A check is a function from the patient to findings; the tuples of the modules here list them. A check that meets an error has
found something: the error is its finding. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from glixd import api
from glixd.doctor import inputs, machine, manifests, repository
from glixd.doctor.patient import Check, Patient, failed, has_user
from glixd.errors import GlixError
from glixd.protocol import VERSION

MACHINE: Final[tuple[Check, ...]] = machine.CHECKS
REPOSITORY: Final[tuple[Check, ...]] = (*repository.CHECKS, *manifests.CHECKS, *inputs.CHECKS)
"""Checks that need a repository with a commit."""


class Doctor:
    """Examines one daemon, its machine and its repository. Safe from any thread."""

    def __init__(self, patient: Patient) -> None:
        self._patient = patient

    def examine(self, asked: api.DoctorParameters) -> api.Diagnosis:
        """Make every check that can be made."""
        patient = replace(self._patient, verify=asked.verify)
        findings = list(_findings(patient))
        return api.Diagnosis(checks=tuple(findings), version=VERSION)


def _findings(patient: Patient) -> Iterator[api.Check]:
    for check in MACHINE:
        yield from _made(check, patient)
    there = list(_made(repository.there, patient))
    yield from there
    if all(finding.status != api.Status.FAIL for finding in there):
        for check in REPOSITORY:
            yield from _made(check, patient)


def _made(check: Check, patient: Patient) -> list[api.Check]:
    """What a check finds; an error is a finding too."""
    name = "repository" if check is repository.there else check.__name__.replace("_", "-")
    try:
        return list(check(patient))
    except GlixError as error:
        return [failed(name, error.message, error.hint or "Mend what it says; the log of glixd may say more.")]
    except (OSError, UnicodeDecodeError) as error:
        return [failed(name, f"This can't be looked at: {error}.", "Look at the permissions and the disk.")]


__all__ = ["Doctor", "Patient", "has_user"]
