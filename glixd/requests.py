# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a caller said to a request in which nothing is left to look up: names resolved, defaults filled in, a digest."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, cast

import rfc8785

from glixd import api, policy
from glixd.api import Caller, Consent, Policy, Scope
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation
from glixd.backends.repository import Repository, Snapshot, unknown_host
from glixd.errors import NotFound, Refused, invalid
from glixd.locking import Locker
from glixd.model.change import (
    ALL_HOSTS,
    Add,
    Adopt,
    Base,
    Batch,
    Change,
    Collect,
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
    Rollback,
    SetHost,
    Switch,
    Update,
)
from glixd.model.flakeref import FlakeRef
from glixd.model.generations import Rule
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest, Package
from glixd.model.operations import features, naming_part, not_installed, plan, planned_base, regenerated
from glixd.policy import Target
from glixd.protocol import DEFAULT_CORE_URL, DEFAULT_HOME_MANAGER_URL, DEFAULT_NIXPKGS_URL, ErrorCode
from glixd.resolvers.asking import Asking, Facts
from glixd.resolvers.chain import resolve
from glixd.resolvers.consents import with_consents
from glixd.undo import chosen


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a request touches, for the policy."""

    policy: Policy
    targets: tuple[Target, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be authorised and carried out as it is."""

    request: Request | Collect
    parts: tuple[Part, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a request is prepared on: the newest commit, with the edits that the change would take over."""

    snapshot: Snapshot
    base: Base
    caller: Caller
    cancellation: Cancellation


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
        if isinstance(parameters, api.CollectGarbageParameters):
            return self._collect(row, parameters)
        if isinstance(parameters, api.InitParameters):
            request, parts = self._init(parameters, caller)
        else:
            context = self._context(caller, cancellation)
            request, parts = _MAKERS[row.name](self, row, parameters, context)
            self._require_features(request, context)
            request = self._with_revisions(request, context)
        return Prepared(request, _with_locked(parts, request), digest_of(row.name, request))

    def resolve(self, parameters: api.ResolveParameters, cancellation: Cancellation) -> tuple[Resolved, ...]:
        """What names and references mean on a host."""
        snapshot = self._repository.snapshot()
        host = parameters.host or self._default_host
        asking = self._asking(snapshot, host, snapshot.manifest(host), cancellation)
        return tuple(resolve(text, asking, pin=None, name=None, allow_local=True) for text in parameters.refs)

    def names(self, host: str, cancellation: Cancellation) -> list[str]:
        """The names of the top level of a host's nixpkgs."""
        snapshot = self._repository.snapshot()
        return self._asking(snapshot, host, snapshot.manifest(host), cancellation).names()

    # -- one maker for each mutation -----------------------------------------------------------------------------

    def add(self, row: api.Operation, asked: api.AddParameters, context: Context) -> Made:
        """Resolve every reference."""
        host, manifest = self._host(asked, context)
        if asked.name is not None and len(asked.refs) > 1:
            raise invalid("name", "it can be given only with a single reference")
        scope = _scope(asked.scope, asked.user, manifest)
        asking = self._asking(context.snapshot, host, manifest, context.cancellation)
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

    def remove(self, row: api.Operation, asked: api.NamesParameters, context: Context) -> Made:
        """Look the packages up."""
        host, manifest = self._host(asked, context)
        return Remove(host, asked.names), (Part(row.policy, _targets(host, manifest, asked.names)),)

    def switch(self, row: api.Operation, asked: api.NamesParameters, context: Context) -> Made:
        """Look the packages up."""
        host, manifest = self._host(asked, context)
        request = Switch(host, asked.names, row.name == "Enable")
        return request, (Part(row.policy, _targets(host, manifest, asked.names)),)

    def set(self, row: api.Operation, asked: api.SetParameters, context: Context) -> Made:
        """Resolve the reference where it or its pin changes; what the package was and becomes are both authorised."""
        host, manifest = self._host(asked, context)
        before = _targets(host, manifest, (asked.name,))
        package = manifest.packages[asked.name]
        values = dict(asked.changes)
        _check_values(values)
        resolved = None
        if "flake" in values or "pin" in values:
            asking = self._asking(context.snapshot, host, manifest, context.cancellation)
            resolved = resolve(
                values.get("flake") or package.flake,
                asking,
                pin=values.get("pin", package.pin) or None,
                name=asked.name,
                allow_local=asked.allow_local or "flake" not in values,
            )
            if "flake" in values:
                values["flake"] = resolved.flake
        request = Change(host, asked.name, tuple(sorted(values.items())), resolved)
        if not {"flake", "pin", "scope", "user"} & values.keys():
            return request, (Part(row.policy, before),)
        after = _target_after(before[0], package, manifest, values, resolved)
        return request, (Part(row.policy, before), Part(Policy.INSTALL, (*before, after)))

    def move(self, row: api.Operation, asked: api.MoveParameters, context: Context) -> Made:
        """Look the packages up; where they were and where they go are both authorised."""
        host, manifest = self._host(asked, context)
        scope = Scope.HOME if asked.user else asked.scope
        before = _targets(host, manifest, asked.names)
        owner = asked.user or manifest.settings.primary_user if scope is Scope.HOME else None
        after = tuple(replace(target, scope=scope, user=owner) for target in before)
        request = Move(host, asked.names, scope, asked.user)
        return request, (Part(row.policy, before), Part(Policy.INSTALL, (*before, *after)))

    def set_host(self, row: api.Operation, asked: api.SetHostParameters, context: Context) -> Made:
        """Check that the host is there, and the form of the values."""
        host, _ = self._host(asked, context)
        _check_settings(asked.changes)
        urls = tuple(value for key, value in asked.changes.items() if key == "registry_url" and value)
        return SetHost(host, tuple(sorted(asked.changes.items()))), (Part(row.policy, sources=urls),)

    def remove_host(self, row: api.Operation, asked: api.RemoveHostParameters, context: Context) -> Made:
        """Check that the host is there."""
        return RemoveHost(self._named(asked, context)), (Part(row.policy),)

    def rename_host(self, row: api.Operation, asked: api.RenameHostParameters, context: Context) -> Made:
        """Check that the host is there."""
        return RenameHost(self._named(asked, context), asked.to), (Part(row.policy),)

    def update(self, row: api.Operation, asked: api.UpdateParameters, context: Context) -> Made:
        """Find the inputs, and what they would be locked at."""
        known = LockFile.parse(context.base.lock)
        inputs = self._inputs(asked, known, context)
        locked = self._locker.lock(
            context.snapshot,
            context.base.flake,
            context.base.lock,
            context.cancellation,
            update=inputs,
            fresh=True,
        )
        after = LockFile.parse(locked)
        request = Update(self._label(asked, context), inputs, tuple(after.revision(name) or "" for name in inputs))
        targets = [
            Target(
                name, known.inputs[name].url or "", trusted=name in TRUSTED_INPUTS, revision=after.revision(name) or ""
            )
            for name in inputs
            if after.revision(name) != known.revision(name)
        ]
        return request, (Part(row.policy, tuple(targets)),)

    def adopt(self, row: api.Operation, asked: api.AdoptParameters, context: Context) -> Made:
        """List what would be committed."""
        edits = self._repository.edits(context.snapshot, everything=asked.everything)
        request = Adopt(self._label(asked, context), asked.message, asked.everything)
        return request, (Part(row.policy, tuple(Target(path) for path in edits)),)

    def rollback(self, row: api.Operation, asked: api.RollbackParameters, context: Context) -> Made:
        """Find the commits."""
        if asked.steps is not None and asked.to_commit is not None:
            raise invalid("steps", "it can't be combined with to_commit")
        git, target = context.snapshot.git, None
        if asked.to_commit is not None:
            target = git.ref(f"{asked.to_commit}^{{commit}}")
            if target is None or not git.is_ancestor(target, context.snapshot.commit):
                raise invalid("to_commit", f"{asked.to_commit} is no commit of the branch", hint="See: glixctl history")
        host = self._host(asked, context)[0] if asked.host else None
        entries = chosen(git, context.snapshot.commit, steps=asked.steps, to_commit=target, host=host)
        targets = tuple(Target(entry.oid, entry.subject) for entry in entries)
        request = Rollback(self._label(asked, context), tuple(entry.oid for entry in entries))
        return request, (Part(row.policy, targets),)

    def apply(self, _row: api.Operation, asked: api.ApplyParameters, context: Context) -> Made:
        """Prepare each part on what the parts before it leave."""
        requests: list[Any] = []
        parts: list[Part] = []
        for number, operation in enumerate(asked.operations, 1):
            with naming_part(number):
                inner, parameters = _inner(operation, asked)
                request, found = _MAKERS[inner.name](self, inner, parameters, context)
                planned = plan(context.base, cast(Planned, request))
            context = replace(context, base=planned_base(context.base, planned))
            requests.append(request)
            parts.extend(found)
        return Batch(requests[0].host, tuple(requests)), tuple(parts)

    def regenerate(self, row: api.Operation, asked: api.RegenerateParameters, context: Context) -> Made:
        """Nothing is left open."""
        return Regenerate(self._label(asked, context)), (Part(row.policy),)

    def _collect(self, row: api.Operation, asked: api.CollectGarbageParameters) -> Prepared:
        """Check what is said against each other; no repository is needed."""
        if asked.host not in (None, self._default_host):
            raise invalid("host", f"garbage is collected on the machine of the daemon, {self._default_host}")
        if asked.delete_old and (asked.keep or asked.older_than):
            raise invalid(
                "delete_old", "it can't be combined with keep or older_than, which spare some old generations"
            )
        seconds = int(asked.older_than.removesuffix("d")) * 86400 if asked.older_than else None
        request = Collect(self._default_host, Rule(asked.keep, seconds, asked.delete_old))
        said = {"keep": asked.keep, "older_than": asked.older_than, "delete_old": asked.delete_old or None}
        targets = tuple(Target(f"{name}={value}") for name, value in said.items() if value is not None)
        return Prepared(request, (Part(row.policy, targets),), digest_of(row.name, request))

    def _init(self, asked: api.InitParameters, caller: Caller) -> Made:
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
        return request, (Part(Policy.HOST_MANAGE, sources=tuple(value for value in given.values() if value)),)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _context(self, caller: Caller, cancellation: Cancellation) -> Context:
        snapshot = self._repository.snapshot()
        edits = self._repository.edited_texts(snapshot) if self._owner_adopts else {}
        return Context(snapshot, snapshot.base(edits, self._nix.system()), caller, cancellation)

    def _host(self, asked: api.MutationParameters, context: Context) -> tuple[str, Manifest]:
        host = asked.host or self._default_host
        if host not in context.base.manifests:
            raise unknown_host(host, list(context.base.manifests))
        return host, context.base.manifests[host]

    def _label(self, asked: api.MutationParameters, context: Context) -> str:
        """The host that a change of the repository as a whole is told under: the one that was named, else all."""
        return self._host(asked, context)[0] if asked.host else ALL_HOSTS

    def _named(self, asked: api.RemoveHostParameters, context: Context) -> str:
        if asked.name not in context.base.manifests:
            raise unknown_host(asked.name, list(context.base.manifests))
        return asked.name

    def _inputs(self, asked: api.UpdateParameters, known: LockFile, context: Context) -> tuple[str, ...]:
        """The inputs that were named: by themselves, or by a package; packages of a host that was named come first."""
        own = _input_names([self._host(asked, context)[1]]) if asked.host else {}
        of_packages = _input_names(context.base.manifests.values())
        found = []
        for name in asked.inputs or tuple(known.inputs):
            candidates = (own.get(name), name, of_packages.get(name))
            matching = [candidate for candidate in candidates if candidate in known.inputs]
            if not matching:
                raise _unknown_input(name, known)
            found.append(str(matching[0]))
        return tuple(dict.fromkeys(found))

    def _asking(self, snapshot: Snapshot, host: str, manifest: Manifest, cancellation: Cancellation) -> Asking:
        system = manifest.settings.system or self._nix.system()
        return Asking(self._facts, snapshot, host, system, cancellation, manifest.settings.registry_url)

    def _require_features(self, request: Request, context: Context) -> None:
        needed = features(request)
        if not needed:
            return
        manifest = context.base.manifests[request.host]
        asking = self._asking(context.snapshot, request.host, manifest, context.cancellation)
        missing = sorted(needed - asking.core_features())
        if missing:
            raise Refused(
                f"The locked glixos-core does not understand {', '.join(missing)}, which this change needs.",
                code=ErrorCode.CORE_TOO_OLD,
                hint=f"Let glixos-core point to {DEFAULT_CORE_URL} in flake.nix, then run: glixctl regen",
                details={"missing": missing},
            )

    def _with_revisions(self, request: Request, context: Context) -> Request:
        """The request with the revision that each new input would be locked at; that is what gets authorised."""
        if not isinstance(request, Add | Change | Batch) or not any(one.url for one in _resolved(request)):
            return request
        planned = plan(context.base, request)
        flake = regenerated(context.base, planned.manifests)
        text = self._locker.lock(context.snapshot, flake, context.base.lock, context.cancellation, fresh=True)
        locked = LockFile.parse(text)
        return cast(Request, _locked_request(request, planned, locked))


Made = tuple[Request, tuple[Part, ...]]
Maker = Callable[[Preparer, api.Operation, Any, Context], Made]

_MAKERS: Final[Mapping[str, Maker]] = {
    "Add": Preparer.add,
    "Remove": Preparer.remove,
    "Enable": Preparer.switch,
    "Disable": Preparer.switch,
    "Set": Preparer.set,
    "Move": Preparer.move,
    "SetHost": Preparer.set_host,
    "RemoveHost": Preparer.remove_host,
    "RenameHost": Preparer.rename_host,
    "Update": Preparer.update,
    "Adopt": Preparer.adopt,
    "Rollback": Preparer.rollback,
    "Apply": Preparer.apply,
    "Regenerate": Preparer.regenerate,
}
BATCHED: Final = ("Add", "Remove", "Enable", "Disable", "Set", "Move", "SetHost")
"""What a batch may consist of."""
TRUSTED_INPUTS: Final = frozenset({"nixpkgs", "home-manager", "glixos-core"})
"""Inputs that the repository itself was made with."""


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
        )
        for part in prepared.parts
    ]


def digest_of(operation: str, request: Request | Collect) -> str:
    """sha256 over the canonical JSON (RFC 8785) of a resolved request."""
    return hashlib.sha256(rfc8785.dumps({"operation": operation, "request": _plain(asdict(request))})).hexdigest()


def _plain(value: Any) -> Any:
    """A value of the kinds that JSON has: enumerations as their text, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _scope(scope: Scope | None, user: str | None, manifest: Manifest) -> Scope:
    if user is None:
        return scope or manifest.settings.default_scope
    if scope is Scope.SYSTEM:
        raise invalid(
            "user", "a package of the system belongs to no user", hint="Leave --user out, or use --scope home."
        )
    return Scope.HOME


def _targets(host: str, manifest: Manifest, names: tuple[str, ...]) -> tuple[Target, ...]:
    targets = []
    for name in dict.fromkeys(names):
        package = manifest.packages.get(name)
        if package is None:
            raise not_installed(name, host, manifest)
        targets.append(Target(name, package.flake, manifest.scope_of(package), manifest.user_of(package)))
    return tuple(targets)


def _target_after(
    before: Target, package: Package, manifest: Manifest, values: Mapping[str, str], resolved: Resolved | None
) -> Target:
    scope = Scope(values["scope"]) if values.get("scope") else manifest.scope_of(package)
    user = values.get("user") or package.user or manifest.settings.primary_user
    return replace(
        before,
        flake=resolved.flake if resolved else before.flake,
        trusted=resolved.trusted if resolved else before.trusted,
        scope=scope,
        user=user if scope is Scope.HOME else None,
    )


def _check_values(values: Mapping[str, str]) -> None:
    """The values of keys that have a form of their own."""
    for key, allowed in (("scope", ("system", "home")), ("enabled", ("true", "false")), ("follows", ("true", "false"))):
        if values.get(key, "") not in (*allowed, ""):
            raise invalid("changes", f"{key} is {' or '.join(allowed)}, not {values[key][:60]!a}")
    if values.get("flake") == "":
        raise invalid("changes", "flake can't be cleared: a package comes from somewhere", hint="Remove the package.")
    user = values.get("user", "")
    if user and not api.USER_NAME.fullmatch(user):
        raise invalid("changes", f"user: {user[:60]!a} is not a user name")


def _check_settings(values: Mapping[str, str]) -> None:
    """The values of settings that have a form of their own; the empty text clears any."""
    for key, (form, hint) in _FORMS.items():
        value = values.get(key, "")
        if value and not form.fullmatch(value):
            raise invalid("changes", f"{key}: {value[:60]!a} is no value that it can have", hint=hint)


_FORMS: Final = {
    "system": (api.SYSTEM, "A system is one that Nix knows, such as x86_64-linux or aarch64-linux."),
    "primary_user": (api.USER_NAME, "A user name has lower-case letters, digits, _ and -, at most 31."),
    "default_scope": (re.compile("system|home"), "It is system or home."),
    "state_version": (re.compile(r"[0-9]{2}\.[0-9]{2}", re.ASCII), "A release is spelt like 26.05."),
}


def _inner(operation: Mapping[str, object], asked: api.ApplyParameters) -> tuple[api.Operation, api.Parameters]:
    """One operation of a batch, validated like a request of its own; the host of the batch is its default."""
    arguments = dict(operation)
    name = arguments.pop("operation", None)
    if name not in BATCHED:
        raise invalid("operation", f"it is one of {', '.join(BATCHED)}, not {str(name)[:60]!a}")
    common = sorted(arguments.keys() & (api.MutationParameters.model_fields.keys() - {"host"}))
    if common:
        raise invalid(common[0], "it belongs to the batch as a whole")
    if asked.host is not None:
        arguments.setdefault("host", asked.host)
    row = api.operation(str(name))
    return row, api.parse(row, arguments)


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


def _with_locked(parts: tuple[Part, ...], request: Request) -> tuple[Part, ...]:
    """The targets with the revisions that were locked for them."""
    revisions = {one.name: one.revision for one in _resolved(request) if one.revision}
    return tuple(
        replace(part, targets=tuple(replace(to, revision=revisions.get(to.name, to.revision)) for to in part.targets))
        for part in parts
    )


def _input_names(manifests: Iterable[Manifest]) -> dict[str, str]:
    """The input of each package that may have one, by the package's name."""
    return {name: one.input_name(package) for one in manifests for name, package in one.packages.items()}


def _unknown_input(name: str, known: LockFile) -> NotFound:
    near = difflib.get_close_matches(name, known.inputs, n=3)
    return NotFound(
        f"flake.lock has no input {name}.",
        code=ErrorCode.UNKNOWN_INPUT,
        hint=f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known.inputs)}.",
        details={"input": name, "closest": list(near)},
    )


def _given(asked: api.AddParameters) -> set[Consent]:
    """What the caller consented to."""
    return {consent for consent in Consent if getattr(asked, consent.setting)}


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


def _source(name: str, url: str) -> str:
    reference = FlakeRef.parse(url)
    if reference.attribute is not None:
        raise invalid(name, "a flake URL has no #attribute")
    return reference.input_url(None)
