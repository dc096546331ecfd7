# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request is made from, and what it becomes: resolved, told apart for the policy, with a digest."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import rfc8785

from glixd import api, hashes, policy
from glixd.api import Caller, Policy, Scope
from glixd.backends.process import Cancellation
from glixd.backends.snapshot import Snapshot
from glixd.model.change import Aside, Base, Request
from glixd.policy import Target
from glixd.values import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a request touches, for the policy."""

    policy: Policy
    targets: tuple[Target, ...] = ()
    sources: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """The keys that change, without their values."""
    author: str = ""
    """Who wrote what a caller brings, where that is not the caller."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be authorised and carried out as it is."""

    request: Request | Aside
    parts: tuple[Part, ...]
    digest: str

    @property
    def trusted(self) -> bool:
        """Whether all that the request brings comes from trusted sources; what takes away brings nothing."""
        return bool(self.parts) and all(map(_is_trusted, self.parts))

    def concerns_home_of(self, login: str) -> bool:
        """Whether the request touches packages of that user's home and nothing else."""
        targets = [target for part in self.parts for target in part.targets]
        return bool(targets) and all(target.scope == Scope.HOME and target.user == login for target in targets)


@dataclass(frozen=True, slots=True)
class Context:
    """What a request is prepared on: the newest commit, with the edits that the change would take over."""

    snapshot: Snapshot
    base: Base
    caller: Caller
    cancellation: Cancellation


Made = tuple[Request, tuple[Part, ...]]


def to_authorise(
    row: api.Operation, prepared: Prepared, transaction: str, *, skips_evaluation: bool
) -> list[policy.Request]:
    """What the policy is asked about a mutation, part by part."""
    return [
        policy.Request(
            policy=part.policy,
            host=prepared.request.host,
            transaction=transaction,
            digest=prepared.digest,
            targets=part.targets,
            skips_evaluation=skips_evaluation,
            sources=part.sources,
            keys=part.keys,
            author=part.author,
        )
        for part in prepared.parts
    ]


def _is_trusted(part: Part) -> bool:
    match part.policy:
        case Policy.REMOVE:
            return True
        case Policy.INSTALL | Policy.CONFIGURE | Policy.UPDATE:
            return bool(part.targets) and all(target.trusted for target in part.targets)
        case _:
            return False


def digest_of(operation: str, request: Request | Aside) -> str:
    """sha256 over the canonical JSON (RFC 8785) of a resolved request."""
    return hashes.sha256(rfc8785.dumps({"operation": operation, "request": _plain(request)}))


def _plain(value: Any) -> Any:
    """A value of the kinds that JSON has: enumerations as their text, tuples as lists, bytes as their sha256.

    `dataclasses.asdict` would copy every value deeply first, which took half the time of the digest of a batch.
    """
    if isinstance(value, str):
        return str(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return hashes.sha256(value)
    return value
