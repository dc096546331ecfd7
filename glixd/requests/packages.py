# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that change the packages of a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from glixd import api
from glixd.api import Consent, Policy, Scope
from glixd.errors import GlixError, invalid
from glixd.model.change import Add, Change, Move, Remove, Resolved, Switch
from glixd.model.flakeref import FlakeRef
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest, Package
from glixd.model.operations import nixpkgs_url, not_installed
from glixd.policy import Target
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part
from glixd.resolvers.chain import resolve
from glixd.resolvers.consents import for_enabled, with_consents


def add(tools: Tools, row: api.Operation, asked: api.AddParameters, context: Context) -> Made:
    """Resolve every reference."""
    host, manifest = tools.host(asked, context)
    if asked.allow_local:
        tools.check_local(context.caller)
    scope = _scope(asked.scope, asked.user, manifest)
    asking = tools.asking(context.snapshot, host, manifest, context.cancellation)
    found = tuple(
        resolve(text, asking, pin=asked.pin, name=asked.name, allow_local=asked.allow_local) for text in asked.refs
    )
    _refuse_twice(found)
    found = with_consents(found, _given(asked), asking)
    request = Add(host, found, scope, asked.user, asked.pin, asked.follows)
    owner = asked.user or manifest.settings.primary_user if scope is Scope.HOME else None
    own = asking.lock.revision("nixpkgs") or ""
    targets = [Target(one.name, one.flake, scope, owner, one.trusted, "" if one.url else own) for one in found]
    return request, (Part(row.policy, tuple(targets)),)


def remove(tools: Tools, row: api.Operation, asked: api.NamesParameters, context: Context) -> Made:
    """Look the packages up."""
    host, manifest = tools.host(asked, context)
    return Remove(host, asked.names), (Part(row.policy, _targets(host, manifest, asked.names, context)),)


def disable(tools: Tools, row: api.Operation, asked: api.NamesParameters, context: Context) -> Made:
    """Look the packages up."""
    host, manifest = tools.host(asked, context)
    request = Switch(host, asked.names, enabled=False)
    return request, (Part(row.policy, _targets(host, manifest, asked.names, context)),)


def enable(tools: Tools, row: api.Operation, asked: api.EnableParameters, context: Context) -> Made:
    """Look the packages up, and whether nixpkgs is known to refuse one of them."""
    host, manifest = tools.host(asked, context)
    targets = _targets(host, manifest, asked.names, context)
    asking = tools.asking(context.snapshot, host, manifest, context.cancellation)
    given = _given(asked)
    attributes = {}
    for package in (manifest.packages[name] for name in asked.names):
        reference = FlakeRef.parse(package.flake)
        if (given or not package.enabled) and reference.is_host_attribute(asking.nixpkgs, package.pin):
            attributes[package.name] = reference.attribute or ""
    held = {name: manifest.consents_of(name) for name in attributes}
    consents = for_enabled(attributes, given, asking, held)
    return Switch(host, asked.names, enabled=True, consents=consents), (Part(row.policy, targets),)


def set_keys(tools: Tools, row: api.Operation, asked: api.SetParameters, context: Context) -> Made:
    """Resolve the reference where it or its pin changes; what the package was and becomes are both authorised."""
    host, manifest = tools.host(asked, context)
    if asked.allow_local:
        tools.check_local(context.caller)
    before = _targets(host, manifest, (asked.name,), context)
    package = manifest.packages[asked.name]
    values = dict(asked.changes)
    resolved = None
    if "flake" in values or "pin" in values:
        asking = tools.asking(context.snapshot, host, manifest, context.cancellation)
        resolved = resolve(
            values.get("flake") or package.flake,
            asking,
            pin=values.get("pin", package.pin) or None,
            name=asked.name,
            allow_local=asked.allow_local or "flake" not in values,
        )
        held = () if "flake" in values else manifest.consents_of(asked.name)  # a consent was for what it was
        [resolved] = with_consents([resolved], _given(asked), asking, held)
        if "flake" in values:
            values["flake"] = resolved.flake
    request = Change(host, asked.name, tuple(sorted(values.items())), resolved)
    changed = Part(row.policy, before, keys=tuple(sorted(values)))
    if not {"flake", "pin", "scope", "user"} & values.keys():
        return request, (changed,)
    after = _target_after(before[0], package, manifest, values, resolved)
    return request, (changed, Part(Policy.INSTALL, (*before, after)))


def move(tools: Tools, row: api.Operation, asked: api.MoveParameters, context: Context) -> Made:
    """Look the packages up; where they were and where they go are both authorised."""
    host, manifest = tools.host(asked, context)
    scope = Scope.HOME if asked.user else asked.scope
    before = _targets(host, manifest, asked.names, context)
    owner = asked.user or manifest.settings.primary_user if scope is Scope.HOME else None
    after = tuple(replace(target, scope=scope, user=owner) for target in before)
    request = Move(host, asked.names, scope, asked.user)
    return request, (Part(row.policy, before), Part(Policy.INSTALL, (*before, *after)))


def _scope(scope: Scope | None, user: str | None, manifest: Manifest) -> Scope:
    return Scope.HOME if user is not None else scope or manifest.settings.default_scope


def _targets(host: str, manifest: Manifest, names: tuple[str, ...], context: Context) -> tuple[Target, ...]:
    """What packages are now. Trusted is what can only be the host's own nixpkgs; all else was a stranger's, and stays that."""
    nixpkgs = nixpkgs_url(LockFile.parse(context.base.lock))
    targets = []
    for name in dict.fromkeys(names):
        package = manifest.packages.get(name)
        if package is None:
            raise not_installed(name, host, manifest)
        trusted = _is_own(package, nixpkgs)
        targets.append(Target(name, package.flake, manifest.scope_of(package), manifest.user_of(package), trusted))
    return tuple(targets)


def _is_own(package: Package, nixpkgs: str | None) -> bool:
    try:
        return FlakeRef.parse(package.flake).is_host_attribute(nixpkgs, package.pin)
    except GlixError:
        return False


def _target_after(
    before: Target, package: Package, manifest: Manifest, values: Mapping[str, str], resolved: Resolved | None
) -> Target:
    """What a package becomes: a key that is cleared counts as what it then means, and not as what it was."""
    settings = manifest.settings
    chosen = values["scope"] if "scope" in values else manifest.scope_of(package)
    scope = Scope(chosen) if chosen else settings.default_scope
    user = (values.get("user", package.user)) or settings.primary_user
    return replace(
        before,
        flake=resolved.flake if resolved else before.flake,
        trusted=resolved.trusted if resolved else before.trusted,
        scope=scope,
        user=user if scope is Scope.HOME else None,
    )


def _given(asked: api.Consenting) -> set[Consent]:
    """What the caller consented to."""
    return {consent for consent in Consent if getattr(asked, consent.setting)}


def _refuse_twice(found: tuple[Resolved, ...]) -> None:
    seen: dict[str, Resolved] = {}
    for one in found:
        if one.name in seen and seen[one.name].flake == one.flake:
            raise invalid("refs", f"{one.ref} is named twice", hint="Name it once.")
        if one.name in seen:
            raise invalid(
                "refs",
                f"{seen[one.name].ref} and {one.ref} would both be named {one.name}",
                hint="Add them one by one, and give one of them another name with --name.",
            )
        seen[one.name] = one
