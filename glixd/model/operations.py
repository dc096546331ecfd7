# SPDX-License-Identifier: GPL-3.0-or-later
"""What each mutation does to the files, computed in memory: (what is there, the resolved request) → the plan of a change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from glixd import api
from glixd.api import Consent, Scope
from glixd.errors import GlixError, NotFound, Refused, invalid, naming_part
from glixd.model import document, takeover
from glixd.model.change import (
    SETTINGS,
    Add,
    Adopt,
    Base,
    Batch,
    Change,
    Init,
    Move,
    Plan,
    Planned,
    Regenerate,
    Remove,
    RemoveHost,
    RenameHost,
    Request,
    Resolved,
    SetHost,
    Switch,
    Update,
    change_of,
    listed,
    manifest_path,
)
from glixd.model.flakefile import FlakeFile, HostEntry, Input
from glixd.model.flakeref import FlakeRef
from glixd.model.inputs import assign_input, fitted
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest, Package, Settings
from glixd.model.nixtext import nix_string
from glixd.near import did_you_mean, near
from glixd.protocol import ErrorCode

Value = TypeVar("Value")

STATE_VERSION: Final = "26.05"
"""The `system.stateVersion` of a new host."""


# -- planning ----------------------------------------------------------------------------------------------------


def plan(base: Base, request: Planned) -> Plan:
    """The plan of a change to a host that is there; raises what forbids it."""
    match request:
        case Change():
            return _change(base, request)
        case Move():
            return _move(base, request)
        case SetHost():
            return _set_host(base, request)
        case Update():
            return _update(base, request)
        case Adopt():
            return Plan("adopt", request.host, regenerates=True, note=request.message)
        case Batch():
            return _batch(base, request)
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
        "ARGUMENTS": "{ inputs, lib, ... }" if request.modules else "{ lib, ... }",
        "PROFILE": _imports(request.modules),
    }
    path = manifest_path(request.host)
    files = {
        path: _filled(templates["glix.toml"], values),
        f"hosts/{request.host}/default.nix": _filled(templates["host.nix"], values),
    }
    if request.files:
        files = takeover.host_files(request.host, request.user, request.system, dict(request.files))
    change = api.Change(
        action="made" if base is None else "added",
        host=request.host,
        name="host",
        flake=request.system,
        scope=request.user,
    )
    return Plan(
        "init", request.host, (change,), files, {request.host: Manifest.parse(files[path], path)}, regenerates=True
    )


def _imports(modules: tuple[str, ...]) -> str:
    """The modules of a profile, to stand before what else a host imports; nothing where it has none of its own."""
    if not modules:
        return ""
    return f"[ {' '.join(f'inputs.glixos-core.nixosModules.{module}' for module in modules)} ] ++ "


def plan_without_host(base: Base, request: RemoveHost) -> Plan:
    """The plan of taking a host out; the files in its folder are the transaction's to find."""
    manifest = base.manifests[request.host]
    change = _host_change("removed", request.host, manifest, base)
    return Plan("remove-host", request.host, (change,), regenerates=True, gone=frozenset({request.host}))


def plan_renamed_host(base: Base, request: RenameHost) -> Plan:
    """The plan of giving a host another name; the files in its folder are the transaction's to move."""
    if request.to in base.manifests:
        raise Refused(
            f"There is a host {request.to} already.", hint="See: glixctl host list", details={"host": request.to}
        )
    manifest = base.manifests[request.host]
    change = api.Change(
        action=f"renamed to {request.to}", host=request.host, name="host", flake=request.to, scope="host"
    )
    return Plan(
        "rename-host",
        request.host,
        (change,),
        {manifest_path(request.to): base.texts[request.host]},
        {request.to: manifest},
        regenerates=True,
        gone=frozenset({request.host}),
    )


def _host_change(action: str, host: str, manifest: Manifest, base: Base) -> api.Change:
    system = manifest.settings.system or base.default_system
    return api.Change(action=action, host=host, name="host", flake=system, scope=f"{len(manifest.packages)} packages")


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


def regenerated(base: Base, manifests: Mapping[str, Manifest], gone: frozenset[str] = frozenset()) -> str:
    """flake.nix with its regions as the manifests want them; `manifests` replace or join those of the base."""
    everything = {host: manifest for host, manifest in {**base.manifests, **manifests}.items() if host not in gone}
    inputs = [entry for host, manifest in everything.items() for entry in _inputs(base, host, manifest)]
    hosts = [HostEntry(host, manifest.settings.system or base.default_system) for host, manifest in everything.items()]
    return FlakeFile.parse(base.flake).render(inputs, hosts)


def features(request: Request) -> set[str]:
    """What the core must understand for this request."""
    match request:
        case Batch():
            return set().union(*(features(part) for part in request.parts))
        case Add():
            needed = set().union(*(_features_of(package) for package in request.packages))
            if any(package.consents for package in request.packages):
                needed.add("consents")
            return needed if request.follows else needed | {"follows"}
        case Change():
            needed = _features_of(request.resolved) if request.resolved else set()
            if any(key.startswith("config.") and value for key, value in request.values):
                needed.add("module-config")
            return needed | {"follows"} if ("follows", "false") in request.values else needed
        case _:
            return set()


def _features_of(package: Resolved) -> set[str]:
    if package.url is None:
        return {"host-attributes"}
    return {"attribute-paths"} if package.attribute is not None else set()


def not_installed(name: str, host: str, manifest: Manifest) -> NotFound:
    """The manifest of the host has no such package; says which comes closest."""
    closest = near(name, manifest.packages)
    return NotFound(
        f"{host} has no package {name}.",
        code=ErrorCode.NOT_INSTALLED,
        hint=did_you_mean(closest, f"See what there is: glixctl list --all --host {host}"),
        details={"name": name, "host": host, "closest": closest},
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
    text, packages, expected = base.texts[request.host], dict(manifest.packages), {}
    taken = _taken(base) if any(resolved.url is not None for resolved in request.packages) else {}
    changes = []
    for resolved in request.packages:
        if resolved.name in packages:
            raise _installed(resolved, request, packages[resolved.name], manifest)
        package = _entry(resolved, request, taken)
        _check_home(base, manifest, package)
        if resolved.url is not None:
            taken[package.input or package.name] = resolved.url
            if resolved.revision:
                expected[package.input or package.name] = resolved.revision
        text = document.add_package(text, package)
        packages[package.name] = package
        changes.append(change_of("added", request.host, manifest, package, resolved.source))
    settings = _consenting(manifest.settings, request.packages)
    text = _with_consents(text, manifest.settings, settings)
    after = replace(manifest, packages=packages, settings=settings)
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
        changes.append(change_of("removed", request.host, manifest, package))
    settings = _without_consents(manifest.settings, request.names)
    text = _with_consents(text, manifest.settings, settings)
    after = replace(manifest, packages=packages, settings=settings)
    path = manifest_path(request.host)
    return Plan("remove", request.host, tuple(changes), {path: text}, {request.host: after}, regenerates=True)


def _consenting(settings: Settings, packages: Iterable[Resolved]) -> Settings:
    """The settings with the consents for new packages."""
    return _allowing(settings, {one.name: one.consents for one in packages})


def _allowing(settings: Settings, given: Mapping[str, Collection[Consent]]) -> Settings:
    """The settings with more consents, by the name of the package."""
    if not any(given.values()):
        return settings
    new = {consent: [name for name, kinds in given.items() if consent in kinds] for consent in Consent}
    return settings.allowing(
        {consent: tuple(dict.fromkeys((*settings.allowed(consent), *new[consent]))) for consent in Consent}
    )


def _without_consents(settings: Settings, names: Iterable[str]) -> Settings:
    """The settings without the consents of packages that go: for one that comes back they are asked for again."""
    gone = set(names)
    return settings.allowing(
        {consent: tuple(name for name in settings.allowed(consent) if name not in gone) for consent in Consent}
    )


def _with_consents(text: str, before: Settings, after: Settings) -> str:
    """The text of a manifest with other consents; a setting that names nobody goes."""
    changes = {
        consent.setting: list(after.allowed(consent)) or None
        for consent in Consent
        if before.allowed(consent) != after.allowed(consent)
    }
    return document.change_settings(text, changes) if changes else text


def _switch(base: Base, request: Switch) -> Plan:
    manifest = base.manifests[request.host]
    text, packages, changes = base.texts[request.host], dict(manifest.packages), []
    action = "enabled" if request.enabled else "disabled"
    consents = dict(request.consents)
    for name in dict.fromkeys(request.names):
        package = packages.get(name)
        if package is None:
            raise not_installed(name, request.host, manifest)
        if package.enabled is not request.enabled:
            text = document.change_package(text, name, {"enabled": request.enabled})
            packages[name] = replace(package, enabled=request.enabled)
        elif not consents.get(name):
            continue
        changes.append(change_of(action, request.host, manifest, package))
    verb = "enable" if request.enabled else "disable"
    if not changes:
        return Plan(verb, request.host)
    settings = _allowing(manifest.settings, consents)
    text = _with_consents(text, manifest.settings, settings)
    after = replace(manifest, packages=packages, settings=settings)
    return Plan(verb, request.host, tuple(changes), {manifest_path(request.host): text}, {request.host: after})


def _change(base: Base, request: Change) -> Plan:
    manifest = base.manifests[request.host]
    package = manifest.packages.get(request.name)
    if package is None:
        raise not_installed(request.name, request.host, manifest)
    values, expected = dict(request.values), {}
    after = _changed(manifest, package, values)
    if request.resolved and request.resolved.url is None:
        after = replace(after, input=None)
    elif request.resolved and request.resolved.url is not None:
        others = _taken(base, without=(request.host, request.name))
        name, url = package.input or fitted(package.name), request.resolved.url
        assigned = assign_input(package.name, url, others)
        if others.get(assigned) == url or others.get(name, url) != url:
            name = assigned
        after = replace(after, input=name if name != package.name else None)
        if request.resolved.revision:
            expected[name] = request.resolved.revision
    if after == package:
        return Plan("set", request.host)
    settings = manifest.settings
    if request.resolved:  # what was consented to for another package does not hold for this one
        kept = _without_consents(settings, [request.name]) if "flake" in values else settings
        settings = _consenting(kept, [request.resolved])
    edited = replace(manifest, packages={**manifest.packages, request.name: after}, settings=settings)
    _check_home(base, manifest, after)
    text = document.change_package(base.texts[request.host], request.name, differences(package, after))
    text = _with_consents(text, manifest.settings, settings)
    return Plan(
        "set",
        request.host,
        (change_of("changed", request.host, edited, after),),
        {manifest_path(request.host): text},
        {request.host: edited},
        regenerates=True,
        expected=expected,
    )


def _changed(manifest: Manifest, package: Package, values: Mapping[str, str]) -> Package:
    """The package with new values; a user belongs to a home, so leaving the home leaves the user."""
    config = dict(package.config)
    for key, value in values.items():
        match key.split(".", 1):
            case ["config", name]:
                config[name] = value
                if not value:
                    del config[name]
            case ["flake"]:
                package = replace(package, flake=value)
            case ["scope"]:
                package = replace(package, scope=Scope(value) if value else None)
            case ["enabled"]:
                package = replace(package, enabled=value in ("true", ""))
            case ["follows"]:
                package = replace(package, follows=value in ("true", ""))
            case ["pin"]:
                package = replace(package, pin=value or None)
            case ["user"]:
                package = replace(package, user=value or None)
    if manifest.scope_of(package) is not Scope.HOME and package.user is not None:
        if "user" in values:
            raise invalid("user", "a package of the system belongs to no user", hint="Set scope=home too.")
        package = replace(package, user=None)
    return replace(package, config=config)


def differences(before: Package, after: Package) -> document.Changes:
    """What has to be written into the entry of the manifest; None takes a key out."""
    changes: dict[str, str | bool | Mapping[str, str | None] | None] = {}
    for key in ("flake", "scope", "pin", "user", "input", "enabled", "follows"):
        if getattr(before, key) != getattr(after, key):
            changes[key] = getattr(after, key)
    if before.config != after.config:
        gone = dict.fromkeys(before.config.keys() - after.config.keys())
        new = {key: value for key, value in after.config.items() if before.config.get(key) != value}
        changes["config"] = {**gone, **new} if after.config else None
    return changes


def _move(base: Base, request: Move) -> Plan:
    manifest, text = base.manifests[request.host], base.texts[request.host]
    packages, changes = dict(manifest.packages), []
    for name in dict.fromkeys(request.names):
        package = packages.get(name)
        if package is None:
            raise not_installed(name, request.host, manifest)
        after = replace(package, scope=request.scope, user=request.user)
        if _place(manifest, package) == _place(manifest, after):
            continue
        _check_home(base, manifest, after)
        text = document.change_package(text, name, differences(package, after))
        packages[name] = after
        changes.append(change_of("moved", request.host, manifest, after))
    if not changes:
        return Plan("move", request.host)
    edited = replace(manifest, packages=packages)
    return Plan("move", request.host, tuple(changes), {manifest_path(request.host): text}, {request.host: edited})


def _set_host(base: Base, request: SetHost) -> Plan:
    manifest, path = base.manifests[request.host], manifest_path(request.host)
    values = {key: _setting(key, value) for key, value in request.values}
    text = document.change_settings(base.texts[request.host], values)
    edited = Manifest.parse(text, path)
    if edited == manifest:
        return Plan("set-host", request.host)
    for package in edited.packages.values():
        if _place(edited, package) != _place(manifest, package):
            _check_home(base, edited, package)
    keys = listed([key for key, _ in request.values])
    shown = ", ".join(f"{key}={value}" if value else f"no {key}" for key, value in request.values)
    change = api.Change(action="set", host=request.host, name=keys, flake=shown[:256], scope=SETTINGS)
    return Plan("set-host", request.host, (change,), {path: text}, {request.host: edited}, regenerates=True)


def _place(manifest: Manifest, package: Package) -> tuple[Scope, str | None]:
    """Where a package goes: the system, or the home of a user."""
    return manifest.scope_of(package), manifest.user_of(package)


def _setting(key: str, value: str) -> str | bool | None:
    """A setting as the manifest has it; the empty text takes it out."""
    if not value:
        return None
    return value == "true" if key in ("auto_apply", "core_modules") else value


def _update(base: Base, request: Update) -> Plan:
    known = LockFile.parse(base.lock)
    changes = [
        api.Change(action="updated", host=request.host, name=name, flake=known.inputs[name].url or name, scope="input")
        for name, revision in zip(request.inputs, request.revisions, strict=True)
        if known.revision(name) != revision
    ]
    moved = tuple(change.name for change in changes)
    expected = {
        name: revision
        for name, revision in zip(request.inputs, request.revisions, strict=True)
        if name in moved and revision
    }
    return Plan("update", request.host, tuple(changes), updates=request.inputs if moved else (), expected=expected)


def _batch(base: Base, request: Batch) -> Plan:
    """The plans of the parts, each starting from where the one before ended."""
    plans = []
    for number, part in enumerate(request.parts, 1):
        with naming_part(number):
            one = plan(base, part)
        base = planned_base(base, one)
        plans.append(one)
    return together(request.host, plans)


def together(host: str, plans: Iterable[Plan]) -> Plan:
    """The plan of a batch, of the plans of its parts."""
    changes: list[api.Change] = []
    files: dict[str, str] = {}
    manifests: dict[str, Manifest] = {}
    expected: dict[str, str] = {}
    regenerates = False
    for one in plans:
        changes += one.changes
        files |= one.files
        manifests |= one.manifests
        expected |= one.expected
        regenerates = regenerates or one.regenerates
    return Plan("apply", host, tuple(changes), files, manifests, regenerates=regenerates, expected=expected)


def planned_base(base: Base, planned: Plan) -> Base:
    """The base as it is after a plan."""
    texts = {host: planned.files[manifest_path(host)] for host in planned.manifests}
    manifests = _over(base.manifests, planned.manifests)
    return replace(base, manifests=manifests, texts=_over(base.texts, texts), commit=None)


def _over(below: Mapping[str, Value], above: Mapping[str, Value]) -> Mapping[str, Value]:
    """What is above over what is below; layers that a batch puts on top of each other stay one."""
    if isinstance(below, _Overlay):
        return _Overlay(below.below, {**below.above, **above})
    return _Overlay(below, above)


class _Overlay(Mapping[str, Value]):
    """Values of hosts over others, so that one that nobody asks for is never read."""

    def __init__(self, below: Mapping[str, Value], above: Mapping[str, Value]) -> None:
        self.below = below
        self.above = above

    def __getitem__(self, host: str) -> Value:
        return self.above[host] if host in self.above else self.below[host]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self.below), **dict.fromkeys(self.above)})

    def __len__(self) -> int:
        return len({*self.below, *self.above})


def _check_home(base: Base, manifest: Manifest, package: Package) -> None:
    """A package of a home needs a user, and a repository that manages homes."""
    if manifest.scope_of(package) is not Scope.HOME:
        return
    if manifest.user_of(package) is None:
        raise invalid("user", "the host has no primary user, so a home package needs one", hint="Name the user.")
    if base.lock is not None and "home-manager" not in LockFile.parse(base.lock).inputs:
        raise Refused(
            "This repository has no home-manager input, so nothing can go to a home.",
            hint="Add home-manager to the inputs of flake.nix, or use the scope system.",
        )


def _installed(resolved: Resolved, request: Add, package: Package, manifest: Manifest) -> Refused:
    name = resolved.name
    return Refused(
        f"{request.host} has a package {name} already.",
        code=ErrorCode.ALREADY_INSTALLED,
        hint=_instead(resolved, request, package, manifest),
        details={"name": name, "host": request.host, "flake": package.flake},
    )


def _instead(resolved: Resolved, request: Add, package: Package, manifest: Manifest) -> str:
    """What to do instead of adding a package that is there."""
    name, there = resolved.name, f"--host {request.host}"
    new = [consent for consent in resolved.consents if consent not in manifest.consents_of(name)]
    if package.flake != resolved.flake:
        return f"Remove it first, or give the new one another name with --name (it is {package.flake} now)."
    if new or not package.enabled:
        flags = "".join(f" {consent.flag}" for consent in new)
        begin = "It is disabled; enable it" if not package.enabled else "Consent to what it needs"
        return f"{begin} with: glixctl enable {name}{flags} {there}"
    if request.pin and request.pin != package.pin:
        return f"Pin it with: glixctl set {name} pin={request.pin} {there}"
    where = request.scope is not manifest.scope_of(package) or request.user not in (None, manifest.user_of(package))
    if where:
        whose = f" --user {request.user}" if request.user else f" --scope {request.scope.value}"
        return f"Move it with: glixctl move {name}{whose} {there}"
    return "Nothing needs to be done."


def _taken(base: Base, without: tuple[str, str] | None = None) -> dict[str, str]:
    """The managed inputs of all hosts, with their URLs; those of one package of one host can be left out."""
    taken: dict[str, str] = {}
    for host, manifest in base.manifests.items():
        left_out = without[1] if without and without[0] == host else None
        kept = {name: package for name, package in manifest.packages.items() if name != left_out}
        taken |= {entry.name: entry.url for entry in _inputs(base, host, replace(manifest, packages=kept))}
    return taken


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


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders filled in one pass: a value is never searched for placeholders."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


_PLACEHOLDER: Final = re.compile(r"@([A-Z_]+)@")
