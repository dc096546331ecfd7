# SPDX-License-Identifier: GPL-3.0-or-later
"""What each mutation does to the files, computed in memory: (what is there, the resolved request) → the plan of a change.

A request here is resolved: nothing in it has to be looked up, and its digest is what gets authorised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from glixd import api
from glixd.api import Scope
from glixd.errors import GlixError, NotFound, Refused, invalid
from glixd.model import document
from glixd.model.flakefile import FlakeFile, HostEntry, Input
from glixd.model.flakeref import FlakeRef
from glixd.model.inputs import assign_input
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest, Package
from glixd.model.nixtext import nix_string
from glixd.protocol import ErrorCode

STATE_VERSION: Final = "26.05"
"""The `system.stateVersion` of a new host."""


# -- requests ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one name or reference means."""

    ref: str
    name: str
    flake: str
    """What the manifest says."""
    source: str
    url: str | None
    """The flake input, pinned; None for an attribute of the host's own nixpkgs."""
    attribute: str | None
    trusted: bool
    revision: str | None = None
    """What was looked at, and must be what gets locked; None where the repository itself decides."""


@dataclass(frozen=True, slots=True)
class Add:
    """Add packages to a host."""

    host: str
    packages: tuple[Resolved, ...]
    scope: Scope
    user: str | None
    pin: str | None
    follows: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Take packages out of a host."""

    host: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """Enable or disable packages of a host."""

    host: str
    names: tuple[str, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class Init:
    """Make the repository, or add a host to it."""

    host: str
    user: str
    system: str
    nixpkgs: str
    core: str
    home_manager: str | None


@dataclass(frozen=True, slots=True)
class Regenerate:
    """Write the managed regions anew."""

    host: str


Request = Add | Remove | Switch | Init | Regenerate


# -- what is there, and what becomes of it -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """The managed files before the change: those of the commit, with the adopted edits in their place."""

    flake: str
    lock: str | None
    manifests: Mapping[str, Manifest]
    texts: Mapping[str, str]
    """The text of glix.toml by host."""
    default_system: str
    """The system of a host whose manifest does not name one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change writes, and how it is told."""

    verb: str
    host: str
    changes: tuple[api.Change, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """New text by path; flake.nix and flake.lock follow from the manifests."""
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    """The manifests that change, as they are afterwards."""
    regenerates: bool = False
    """Whether the managed regions may change."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Input → the revision that was resolved and authorised."""

    @property
    def summary(self) -> str:
        """One sentence about the change."""
        if not self.changes:
            return f"nothing to do on {self.host}"
        if self.verb == "init":
            return f"{self.changes[0].action} the host {self.host} ({_facts(self.changes[0])})"
        names = _listed([change.name for change in self.changes])
        if len(self.changes) == 1:
            return f"{self.changes[0].action} {names} {_preposition(self.verb)} {self.host} ({_facts(self.changes[0])})"
        return f"{self.changes[0].action} {names} {_preposition(self.verb)} {self.host}"

    @property
    def subject(self) -> str:
        """The first line of the commit message."""
        names = _listed([change.name for change in self.changes])
        facts = f" ({_facts(self.changes[0])})" if len(self.changes) == 1 and _facts(self.changes[0]) else ""
        return f"glix {self.verb} {self.host}: {names}{facts}" if names else f"glix {self.verb} {self.host}"

    @property
    def body(self) -> list[str]:
        """One line a package where there are several."""
        if len(self.changes) < 2:
            return []
        return [f"{change.action} {change.name} ({_facts(change)})" for change in self.changes]


# -- planning ----------------------------------------------------------------------------------------------------


def plan(base: Base, request: Add | Remove | Switch | Regenerate) -> Plan:
    """The plan of a change to a host that is there; raises what forbids it."""
    match request:
        case Add():
            return _add(base, request)
        case Remove():
            return _remove(base, request)
        case Switch():
            return _switch(base, request)
        case Regenerate():
            return Plan("regenerate", request.host, regenerates=True)


def plan_host(base: Base | None, request: Init, templates: Mapping[str, str]) -> Plan:
    """The plan of a new host; without a base, of a new repository."""
    if base and request.host in base.manifests:
        raise Refused(
            f"The host {request.host} is in the repository already.",
            hint="Name another one with --host, or add packages to this one with glixctl add.",
            details={"host": request.host},
        )
    values = {
        "HOST": request.host,
        "USER": nix_string(request.user),
        "SYSTEM": nix_string(request.system),
        "STATE_VERSION": nix_string(STATE_VERSION),
    }
    path = manifest_path(request.host)
    text = _filled(templates["glix.toml"], values)
    files = {path: text, f"hosts/{request.host}/default.nix": _filled(templates["host.nix"], values)}
    change = api.Change(
        action="made" if base is None else "added",
        host=request.host,
        name="host",
        flake=request.system,
        scope=request.user,
    )
    return Plan("init", request.host, (change,), files, {request.host: Manifest.parse(text, path)}, regenerates=True)


def new_flake(request: Init, templates: Mapping[str, str]) -> str:
    """The flake.nix of a new repository, its regions still empty."""
    manager = request.home_manager
    block = _filled(templates["home-manager.part"], {"HOME_MANAGER_URL": nix_string(manager)}) if manager else ""
    values = {
        "NIXPKGS_URL": nix_string(request.nixpkgs),
        "CORE_URL": nix_string(request.core),
        "HOME_MANAGER_BLOCK": block.rstrip("\n"),
    }
    return _filled(templates["flake.nix"], values)


def regenerated(base: Base, manifests: Mapping[str, Manifest]) -> str:
    """flake.nix with its regions as the manifests want them; `manifests` replace or join those of the base."""
    everything = {**base.manifests, **manifests}
    inputs = [entry for host, manifest in everything.items() for entry in _inputs(base, host, manifest)]
    hosts = [HostEntry(host, manifest.settings.system or base.default_system) for host, manifest in everything.items()]
    return FlakeFile.parse(base.flake).render(inputs, hosts)


def features(request: Request) -> set[str]:
    """What the core must understand for this request."""
    if not isinstance(request, Add):
        return set()
    needed = set()
    for package in request.packages:
        if package.url is None:
            needed.add("host-attributes")
        elif package.attribute is not None:
            needed.add("attribute-paths")
        if not request.follows:
            needed.add("follows")
    return needed


def manifest_path(host: str) -> str:
    """Where the manifest of a host stands in the repository."""
    return f"hosts/{host}/glix.toml"


def not_installed(name: str, host: str, manifest: Manifest) -> NotFound:
    """The manifest of the host has no such package; says which comes closest."""
    near = difflib.get_close_matches(name, manifest.packages, n=3)
    return NotFound(
        f"{host} has no package {name}.",
        code=ErrorCode.NOT_INSTALLED,
        hint=f"Did you mean {' or '.join(near)}?" if near else f"See what there is: glixctl list --all --host {host}",
        details={"name": name, "host": host, "closest": list(near)},
    )


def nixpkgs_url(lock: LockFile) -> str | None:
    """What flake.nix asks for as the hosts' own nixpkgs."""
    found = lock.inputs.get("nixpkgs")
    return found.url if found else None


def is_host_attribute(package: Package, nixpkgs: str | None) -> bool:
    """Whether a package is an attribute of the host's own nixpkgs and needs no input."""
    return FlakeRef.parse(package.flake).is_host_attribute(nixpkgs, package.pin)


def package_url(package: Package) -> str:
    """The flake input that an entry of a manifest asks for."""
    return FlakeRef.parse(package.flake).input_url(package.pin)


def _add(base: Base, request: Add) -> Plan:
    manifest = base.manifests[request.host]
    _check_user(base, manifest, request)
    text, packages, expected = base.texts[request.host], dict(manifest.packages), {}
    taken = _taken(base)
    changes = []
    for resolved in request.packages:
        if resolved.name in packages:
            raise _installed(resolved, request.host, packages[resolved.name])
        package = _entry(resolved, request, taken)
        if resolved.url is not None:
            taken[package.input or package.name] = resolved.url
            if resolved.revision:
                expected[package.input or package.name] = resolved.revision
        text = document.add_package(text, package)
        packages[package.name] = package
        changes.append(_change("added", request.host, manifest, package, resolved.source))
    after = replace(manifest, packages=packages)
    path = manifest_path(request.host)
    return Plan(
        "add", request.host, tuple(changes), {path: text}, {request.host: after}, regenerates=True, expected=expected
    )


def _entry(resolved: Resolved, request: Add, taken: Mapping[str, str]) -> Package:
    """The entry of the manifest for a resolved package; the scope stands in it, whatever the default becomes."""
    given = None
    if resolved.url is not None:
        assigned = assign_input(resolved.name, resolved.url, taken)
        given = assigned if assigned != resolved.name else None
    return Package(
        name=resolved.name,
        flake=resolved.flake,
        scope=request.scope,
        pin=request.pin,
        user=request.user,
        input=given,
        follows=request.follows,
    )


def _remove(base: Base, request: Remove) -> Plan:
    manifest = base.manifests[request.host]
    text, packages, changes = base.texts[request.host], dict(manifest.packages), []
    for name in dict.fromkeys(request.names):
        package = packages.pop(name, None)
        if package is None:
            raise not_installed(name, request.host, manifest)
        text = document.remove_package(text, name)
        changes.append(_change("removed", request.host, manifest, package))
    after = replace(manifest, packages=packages)
    path = manifest_path(request.host)
    return Plan("remove", request.host, tuple(changes), {path: text}, {request.host: after}, regenerates=True)


def _switch(base: Base, request: Switch) -> Plan:
    manifest = base.manifests[request.host]
    text, packages, changes = base.texts[request.host], dict(manifest.packages), []
    action = "enabled" if request.enabled else "disabled"
    for name in dict.fromkeys(request.names):
        package = packages.get(name)
        if package is None:
            raise not_installed(name, request.host, manifest)
        if package.enabled is request.enabled:
            continue
        text = document.change_package(text, name, {"enabled": request.enabled})
        packages[name] = replace(package, enabled=request.enabled)
        changes.append(_change(action, request.host, manifest, package))
    verb = "enable" if request.enabled else "disable"
    if not changes:
        return Plan(verb, request.host)
    after = replace(manifest, packages=packages)
    return Plan(verb, request.host, tuple(changes), {manifest_path(request.host): text}, {request.host: after})


def _check_user(base: Base, manifest: Manifest, request: Add) -> None:
    """A package of a home needs a user, and a repository that manages homes."""
    if request.scope is not Scope.HOME:
        return
    if not (request.user or manifest.settings.primary_user):
        raise invalid(
            "user", f"{request.host} has no primary user, so a home package needs one", hint="Give --user NAME."
        )
    if base.lock is not None and "home-manager" not in LockFile.parse(base.lock).inputs:
        raise Refused(
            "This repository has no home-manager input, so nothing can go to a home.",
            hint="Add home-manager to the inputs of flake.nix, or use --scope system.",
        )


def _installed(resolved: Resolved, host: str, package: Package) -> Refused:
    same = package.flake == resolved.flake
    hint = (
        f"It is disabled; enable it with: glixctl enable {resolved.name}"
        if same and not package.enabled
        else f"Remove it first, or give the new one another name with --name (it is {package.flake} now)."
    )
    return Refused(
        f"{host} has a package {resolved.name} already.",
        code=ErrorCode.ALREADY_INSTALLED,
        hint="Nothing needs to be done." if same and package.enabled else hint,
        details={"name": resolved.name, "host": host, "flake": package.flake},
    )


def _taken(base: Base) -> dict[str, str]:
    """The managed inputs of all hosts, with their URLs."""
    return {
        entry.name: entry.url for host, manifest in base.manifests.items() for entry in _inputs(base, host, manifest)
    }


def _inputs(base: Base, host: str, manifest: Manifest) -> Iterable[Input]:
    nixpkgs = nixpkgs_url(LockFile.parse(base.lock))
    for package in manifest.packages.values():
        try:
            if not is_host_attribute(package, nixpkgs):
                yield Input(manifest.input_name(package), package_url(package), package.follows)
        except GlixError as error:
            raise Refused(
                f"{manifest_path(host)}: packages.{package.name}: {error.message}",
                code=ErrorCode.MANIFEST_INVALID,
                hint=error.hint,
                details={"path": manifest_path(host), "reason": error.message},
            ) from error


def _change(action: str, host: str, manifest: Manifest, package: Package, source: str | None = None) -> api.Change:
    return api.Change(
        action=action,
        host=host,
        name=package.name,
        flake=package.flake,
        scope=manifest.scope_of(package),
        user=manifest.user_of(package),
        source=source,
    )


def _facts(change: api.Change) -> str:
    """What stands in parentheses behind a package: `ref, scope, via source`; never a value of its configuration."""
    scope = f"{change.scope} of {change.user}" if change.user else change.scope
    source = f", via {change.source}" if change.source else ""
    return f"{change.flake}, {scope}{source}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _preposition(verb: str) -> str:
    return {"add": "to", "remove": "from"}.get(verb, "on")


def _filled(template: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template
