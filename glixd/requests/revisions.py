# SPDX-License-Identifier: GPL-3.0-or-later
"""The revisions that the inputs of a request would be locked at: they are what gets authorised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from glixd.model.change import Add, Batch, Change, Plan, Request, Resolved
from glixd.model.lockfile import LockFile
from glixd.model.operations import plan, regenerated
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Part


def with_revisions(tools: Tools, request: Request, context: Context) -> Request:
    """The request with the revision that each new input would be locked at; that is what gets authorised."""
    if not isinstance(request, Add | Change | Batch) or not any(one.url for one in _resolved(request)):
        return request
    planned = plan(context.base, request)
    flake = regenerated(context.base, planned.manifests)
    text = tools.locker.lock(context.snapshot, flake, context.base.lock, context.cancellation, fresh=True)
    locked = LockFile.parse(text)
    return cast(Request, _locked_request(request, planned, locked))


def _resolved(request: Request) -> list[Resolved]:
    match request:
        case Add():
            return list(request.packages)
        case Change() if request.resolved:
            return [request.resolved]
        case Batch():
            return [one for part in request.parts for one in _resolved(part)]
        case _:
            return []


def _locked_request(request: Any, planned: Plan, locked: LockFile) -> Any:
    """The request with what was locked written into whatever it resolved."""
    if isinstance(request, Batch):
        return replace(request, parts=tuple(_locked_request(part, planned, locked) for part in request.parts))
    if isinstance(request, Add):
        return replace(
            request, packages=tuple(_locked_at(one, request.host, planned, locked) for one in request.packages)
        )
    if isinstance(request, Change) and request.resolved:
        return replace(request, resolved=_locked_at(request.resolved, request.host, planned, locked))
    return request


def _locked_at(one: Resolved, host: str, planned: Plan, locked: LockFile) -> Resolved:
    manifest = planned.manifests.get(host)
    package = manifest.packages.get(one.name) if manifest else None
    if one.url is None or manifest is None or package is None:
        return one
    return replace(one, revision=locked.revision(manifest.input_name(package)))


def with_locked(parts: tuple[Part, ...], request: Request) -> tuple[Part, ...]:
    """The targets with the revisions that were locked for them."""
    revisions = {one.name: one.revision for one in _resolved(request) if one.revision}
    return tuple(
        replace(part, targets=tuple(replace(to, revision=revisions.get(to.name, to.revision)) for to in part.targets))
        for part in parts
    )
