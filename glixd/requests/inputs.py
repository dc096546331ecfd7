# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that change what the inputs are locked at."""

from __future__ import annotations

import datetime
from collections.abc import Container, Iterable
from typing import Final

from glixd import api
from glixd.errors import Failed, NotFound, invalid
from glixd.model.change import Update
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest
from glixd.near import did_you_mean, near
from glixd.policy import Target
from glixd.protocol import ErrorCode
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part

TRUSTED_INPUTS: Final = frozenset({"nixpkgs", "home-manager", "glixos-core"})
"""Inputs that the repository itself was made with."""


def update(tools: Tools, row: api.Operation, asked: api.UpdateParameters, context: Context) -> Made:
    """Find the inputs, and what they would be locked at."""
    known = LockFile.parse(context.base.lock)
    if asked.unattended:
        asked = _by_the_settings(tools, asked, known)
        if not asked.inputs:
            return Update(tools.label(asked, context), ()), (Part(row.policy),)
    inputs = _inputs(tools, asked, known, context)
    locked = tools.locker.lock(
        context.snapshot,
        context.base.flake,
        context.base.lock,
        context.cancellation,
        update=inputs,
        fresh=True,
    )
    after = LockFile.parse(locked)
    request = Update(tools.label(asked, context), inputs, tuple(after.revision(name) or "" for name in inputs))
    targets = [
        Target(name, known.inputs[name].url or "", trusted=name in TRUSTED_INPUTS, revision=after.revision(name) or "")
        for name in inputs
        if after.revision(name) != known.revision(name)
    ]
    return request, (Part(row.policy, tuple(targets)),)


def _by_the_settings(tools: Tools, asked: api.UpdateParameters, known: LockFile) -> api.UpdateParameters:
    """The inputs that an update may touch which nobody watches: those that the settings name, and that are old enough."""
    unattended = tools.unattended
    if unattended.action == "off":
        raise Failed(
            "Updates that nobody watches are off.",
            code=ErrorCode.UNSUPPORTED_HERE,
            hint='Set auto_update to "stage" or "switch" in the configuration of glixd.',
        )
    if asked.inputs:
        raise invalid("inputs", "the settings name the inputs of an unattended update")
    newest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=unattended.age)
    named = unattended.inputs or tuple(known.inputs)
    old = [name for name in named if name not in known.inputs or _made(known.inputs[name].modified) <= newest]
    return asked.model_copy(update={"inputs": tuple(old)})


def _made(modified: str | None) -> datetime.datetime:
    return datetime.datetime.fromisoformat(modified) if modified else datetime.datetime.min.replace(tzinfo=datetime.UTC)


def _inputs(tools: Tools, asked: api.UpdateParameters, known: LockFile, context: Context) -> tuple[str, ...]:
    """The inputs that were named: by themselves, or by a package; packages of a host that was named come first."""
    own = _input_names([tools.host(asked, context)[1]]) if asked.host else {}
    of_packages = _input_names(context.base.manifests.values())
    found = []
    for name in asked.inputs or tuple(known.inputs):
        candidates = (own.get(name), name, of_packages.get(name))
        matching = [candidate for candidate in candidates if candidate in known.inputs]
        if not matching:
            raise _unknown_input(name, known, of_packages)
        found.append(str(matching[0]))
    return tuple(dict.fromkeys(found))


def _input_names(manifests: Iterable[Manifest]) -> dict[str, str]:
    """The input of each package that may have one, by the package's name."""
    return {name: one.input_name(package) for one in manifests for name, package in one.packages.items()}


def _unknown_input(name: str, known: LockFile, packages: Container[str]) -> NotFound:
    closest = near(name, known.inputs)
    helps = did_you_mean(closest, f"There are: {', '.join(known.inputs)}.")
    if name in packages:
        helps = f"{name} comes from the nixpkgs of all packages; update that with: glixctl update nixpkgs"
    return NotFound(
        f"flake.lock has no input {name}.",
        code=ErrorCode.UNKNOWN_INPUT,
        hint=helps,
        details={"input": name, "closest": closest},
    )
