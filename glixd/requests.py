# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a caller said to a request in which nothing is left to look up: names resolved, defaults filled in, a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import rfc8785

from glixd import api, policy
from glixd.api import Caller, Scope
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation
from glixd.backends.repository import Repository, Snapshot
from glixd.errors import Refused, invalid
from glixd.locking import Locker
from glixd.model.change import Add, Init, Regenerate, Remove, Request, Resolved, Switch
from glixd.model.flakeref import FlakeRef
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest
from glixd.model.operations import features, not_installed, plan, regenerated
from glixd.policy import Target
from glixd.protocol import DEFAULT_CORE_URL, DEFAULT_HOME_MANAGER_URL, DEFAULT_NIXPKGS_URL, ErrorCode
from glixd.resolvers.asking import Asking, Facts
from glixd.resolvers.chain import resolve


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be authorised and carried out as it is."""

    request: Request
    targets: tuple[Target, ...]
    digest: str
    sources: tuple[str, ...] = ()


class Preparer:
    """Looks up whatever a request leaves open. May take long: it never runs inside the queue."""

    def __init__(
        self, repository: Repository, nix: Nix, facts: Facts, locker: Locker, *, default_host: str, owner_adopts: bool
    ) -> None:
        self._repository = repository
        self._nix = nix
        self._facts = facts
        self._locker = locker
        self._default_host = default_host
        self._owner_adopts = owner_adopts

    def prepare(
        self, row: api.Operation, parameters: api.MutationParameters, caller: Caller, cancellation: Cancellation
    ) -> Prepared:
        """The resolved form of a mutation; raises what makes it impossible."""
        return _MAKERS[row.name](self, row, parameters, caller, cancellation)

    def resolve(self, parameters: api.ResolveParameters, cancellation: Cancellation) -> tuple[Resolved, ...]:
        """What names and references mean on a host."""
        asking = self._asking(self._repository.snapshot(), parameters.host or self._default_host, cancellation)
        return tuple(resolve(text, asking, pin=None, name=None, allow_local=True) for text in parameters.refs)

    # -- one maker for each mutation -----------------------------------------------------------------------------

    def add(
        self, row: api.Operation, asked: api.AddParameters, _caller: Caller, cancellation: Cancellation
    ) -> Prepared:
        """Resolve every reference, and what it is right now."""
        host = asked.host or self._default_host
        snapshot = self._repository.snapshot()
        manifest = self._repository.current_manifest(host, edits_count=self._owner_adopts)
        if asked.name is not None and len(asked.refs) > 1:
            raise invalid("name", "it can be given only with a single reference")
        scope = _scope(asked, manifest)
        asking = self._asking(snapshot, host, cancellation)
        found = tuple(
            resolve(text, asking, pin=asked.pin, name=asked.name, allow_local=asked.allow_local) for text in asked.refs
        )
        _refuse_twice(found)
        user = asked.user if scope is Scope.HOME else None
        request = Add(host, found, scope, user, asked.pin, asked.follows)
        _require_features(request, asking)
        request = self._with_revisions(request, snapshot, cancellation)
        owner = user or manifest.settings.primary_user if scope is Scope.HOME else None
        targets = (
            Target(
                one.name, one.flake, scope, owner, one.trusted, one.revision or asking.lock.revision("nixpkgs") or ""
            )
            for one in request.packages
        )
        return _prepared(row, request, targets)

    def remove(self, row: api.Operation, asked: api.NamesParameters, _caller: Caller, _wish: Cancellation) -> Prepared:
        """Look the packages up."""
        host = asked.host or self._default_host
        return _prepared(row, Remove(host, asked.names), self._targets(host, asked.names))

    def switch(self, row: api.Operation, asked: api.NamesParameters, _caller: Caller, _wish: Cancellation) -> Prepared:
        """Look the packages up."""
        host = asked.host or self._default_host
        return _prepared(row, Switch(host, asked.names, row.name == "Enable"), self._targets(host, asked.names))

    def regenerate(
        self, row: api.Operation, asked: api.RegenerateParameters, _caller: Caller, _wish: Cancellation
    ) -> Prepared:
        """Check that the host is there."""
        host = asked.host or self._default_host
        self._repository.current_manifest(host, edits_count=self._owner_adopts)
        return _prepared(row, Regenerate(host), ())

    def init(self, row: api.Operation, asked: api.InitParameters, caller: Caller, _wish: Cancellation) -> Prepared:
        """Fill in this machine's name and system, the caller, and where the inputs come from."""
        fresh = not self._repository.exists
        given = {"nixpkgs": asked.nixpkgs, "core": asked.core, "home_manager": asked.home_manager}
        for name, value in given.items():
            if value is not None and not fresh:
                raise invalid(
                    name, "the repository is there already and keeps its inputs", hint="Edit flake.nix to change them."
                )
        user = asked.user or caller.login
        if not api.USER_NAME.fullmatch(user) or user == "root":
            raise invalid("user", f"{user} can't be the primary user of a machine", hint="Name one with --user NAME.")
        manager = asked.home_manager or DEFAULT_HOME_MANAGER_URL
        request = Init(
            host=asked.host or self._default_host,
            user=user,
            system=asked.system or self._nix.system(),
            nixpkgs=_source("nixpkgs", asked.nixpkgs or DEFAULT_NIXPKGS_URL),
            core=_source("core", asked.core or DEFAULT_CORE_URL),
            home_manager=None if manager == "none" else _source("home_manager", manager),
        )
        return _prepared(row, request, (), tuple(value for value in given.values() if value))

    # -- helpers -------------------------------------------------------------------------------------------------

    def _asking(self, snapshot: Snapshot, host: str, cancellation: Cancellation) -> Asking:
        system = snapshot.manifest(host).settings.system or self._nix.system()
        return Asking(self._facts, snapshot, host, system, cancellation)

    def _with_revisions(self, request: Add, snapshot: Snapshot, cancellation: Cancellation) -> Add:
        """The request with the revision that each new input would be locked at; that is what gets authorised."""
        if all(package.url is None for package in request.packages):
            return request
        base = snapshot.base({}, self._nix.system())
        planned = plan(base, request)
        locked = self._locker.lock(snapshot, regenerated(base, planned.manifests), base.lock, cancellation)
        found, manifest = LockFile.parse(locked), planned.manifests[request.host]
        packages = tuple(
            replace(one, revision=found.revision(manifest.input_name(manifest.packages[one.name]))) if one.url else one
            for one in request.packages
        )
        return replace(request, packages=packages)

    def _targets(self, host: str, names: tuple[str, ...]) -> tuple[Target, ...]:
        manifest = self._repository.current_manifest(host, edits_count=self._owner_adopts)
        targets = []
        for name in dict.fromkeys(names):
            package = manifest.packages.get(name)
            if package is None:
                raise not_installed(name, host, manifest)
            targets.append(Target(name, package.flake, manifest.scope_of(package), manifest.user_of(package)))
        return tuple(targets)


Maker = Callable[[Preparer, api.Operation, Any, Caller, Cancellation], Prepared]

_MAKERS: Final[dict[str, Maker]] = {
    "Add": Preparer.add,
    "Remove": Preparer.remove,
    "Enable": Preparer.switch,
    "Disable": Preparer.switch,
    "Regenerate": Preparer.regenerate,
    "Init": Preparer.init,
}


def digest_of(operation: str, request: Request) -> str:
    """sha256 over the canonical JSON (RFC 8785) of a resolved request."""
    return hashlib.sha256(rfc8785.dumps({"operation": operation, "request": _plain(asdict(request))})).hexdigest()


def to_authorise(row: api.Operation, prepared: Prepared, transaction: str, *, skips_evaluation: bool) -> policy.Request:
    """What the policy is asked about a mutation."""
    return policy.Request(
        policy=row.policy,
        host=prepared.request.host,
        transaction=transaction,
        digest=prepared.digest,
        targets=prepared.targets,
        skips_evaluation=skips_evaluation,
        sources=prepared.sources,
    )


def _prepared(
    row: api.Operation, request: Request, targets: Iterable[Target], sources: tuple[str, ...] = ()
) -> Prepared:
    return Prepared(request, tuple(targets), digest_of(row.name, request), sources)


def _plain(value: Any) -> Any:
    """A value of the kinds that JSON has: enumerations as their text, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _scope(asked: api.AddParameters, manifest: Manifest) -> Scope:
    if asked.user is not None:
        if asked.scope is Scope.SYSTEM:
            raise invalid(
                "user", "a package of the system belongs to no user", hint="Leave --user out, or use --scope home."
            )
        return Scope.HOME
    return asked.scope or manifest.settings.default_scope


def _refuse_twice(found: tuple[Resolved, ...]) -> None:
    seen: dict[str, Resolved] = {}
    for one in found:
        if one.name in seen:
            raise invalid(
                "refs",
                f"{seen[one.name].ref} and {one.ref} would both be named {one.name}",
                hint="Add them one by one, and give one of them another name with --name.",
            )
        seen[one.name] = one


def _require_features(request: Add, asking: Asking) -> None:
    needed = features(request)
    if not needed:
        return
    missing = sorted(needed - asking.core_features())
    if missing:
        raise Refused(
            f"The locked glixos-core does not understand {', '.join(missing)}, which this change needs.",
            code=ErrorCode.CORE_TOO_OLD,
            hint=f"Let glixos-core point to {DEFAULT_CORE_URL} in flake.nix, then run: nix flake lock --update-input glixos-core",
            details={"missing": missing},
        )


def _source(name: str, url: str) -> str:
    reference = FlakeRef.parse(url)
    if reference.attribute is not None:
        raise invalid(name, "a flake URL has no #attribute")
    return reference.input_url(None)
