# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the hosts: their folders, their manifests, their users, and whether they evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from glixd import api
from glixd.api import HOST_NAME
from glixd.doctor.patient import Check, Patient, doubtful, failed, fine
from glixd.errors import GlixError
from glixd.model import lint
from glixd.model.change import listed, manifest_path
from glixd.model.manifest import Manifest


def hosts(patient: Patient) -> Iterator[api.Check]:
    """Every folder below hosts is a host."""
    repository = patient.repository
    snapshot = repository.snapshot()
    below = repository.root / "hosts"
    files = {path.name for path in below.iterdir() if path.is_dir()} if below.is_dir() else set()
    committed = {name for name, entry in snapshot.git.tree(f"{snapshot.commit}:hosts").items() if entry.is_tree}
    strange = False
    for name in sorted(committed | files):
        if name in snapshot.hosts:
            continue
        strange = True
        yield _no_host(name, committed, has_manifest=(below / name / "glix.toml").exists())
    if not snapshot.hosts:
        yield failed("hosts", "the repository has no host", "glixctl init")
    elif not strange:
        yield fine("hosts", f"{len(snapshot.hosts)} hosts: {listed(list(snapshot.hosts))}")


def _no_host(name: str, committed: set[str], *, has_manifest: bool) -> api.Check:
    """Why a folder is no host."""
    shown = name.encode(errors="surrogateescape").decode(errors="replace")
    path = f"hosts/{shown}"
    if not HOST_NAME.fullmatch(name):
        remedy = f"git mv {path} to a name of lower-case letters, digits and -"
        return failed("hosts", f"{path} is no host: {shown!a} can't be the name of one", remedy, path=path)
    if name not in committed and has_manifest:
        return doubtful(
            "hosts", f"{path} is no host yet: git does not know it", f"git add {path} && git commit", path=path
        )
    return doubtful(
        "hosts", f"{path} has no glix.toml and is no host", f"glixctl init --host {name}, or move the folder", path=path
    )


def manifest(patient: Patient) -> Iterator[api.Check]:
    """Every manifest keeps to the schema: the committed one, and what people made of it."""
    snapshot = patient.repository.snapshot()
    edited = patient.repository.edited_texts(snapshot)
    sound, packages = [], 0
    for host in snapshot.hosts:
        path = manifest_path(host)
        try:
            read = snapshot.manifest(host)
            if path in edited:
                read = Manifest.parse(edited[path], path)
        except GlixError as error:
            line = error.details.get("line")
            yield api.Check(
                name="manifest",
                status=api.Status.FAIL,
                message=error.message,
                remedy=f"Correct {path}, and then: glixctl adopt",
                path=path,
                line=line if isinstance(line, int) else None,
            )
        else:
            sound.append(path)
            packages += len(read.packages)
    if sound:
        yield fine("manifest", f"in order: {listed(sound)}, with {packages} packages")


def keys(patient: Patient) -> Iterator[api.Check]:
    """The manifests have no key that nobody knows."""
    found = False
    for host, text, _ in _readable(patient):
        path = manifest_path(host)
        for unknown in lint.unknown_keys(text):
            found = True
            meant = f"; {unknown.meant} may be meant" if unknown.meant else ""
            yield api.Check(
                name="keys",
                status=api.Status.WARN,
                message=f"{path}:{unknown.line}: glixd does not know {unknown.key}{meant}",
                remedy=f"Correct it in {path}; it has no effect as it is.",
                path=path,
                line=unknown.line,
            )
    if not found:
        yield fine("keys", "every key of the manifests is known")


def secrets(patient: Patient) -> Iterator[api.Check]:
    """No secret stands in a manifest, from where it would get into the history and the store."""
    found = False
    for host, _, read in _readable(patient):
        for key in lint.secrets(read):
            found = True
            message = f"{manifest_path(host)}: {key} looks like a secret; every user of the machine can read it"
            remedy = "Keep it in a file such as /run/secrets/NAME and put that path there; then change the secret."
            yield doubtful("secrets", message, remedy, path=manifest_path(host))
    if not found:
        yield fine("secrets", "no value looks like a secret")


def users(patient: Patient) -> Iterator[api.Check]:
    """The users that the manifest of this machine names exist on it."""
    named = [read for host, _, read in _readable(patient) if host == patient.machine]
    if not named:
        return
    wanted = {package.name: named[0].user_of(package) for package in named[0].packages.values() if package.enabled}
    homes = sorted({user for user in (named[0].settings.primary_user, *wanted.values()) if user})
    missing = [user for user in homes if not patient.has_user(user)]
    for user in missing:
        packages = [name for name, owner in wanted.items() if owner == user]
        why = f"packages for that home: {listed(packages)}" if packages else "the manifest calls it the primary user"
        yield failed(
            "users",
            f"{patient.machine} is this machine, and it has no user {user} ({why})",
            f"Define users.users.{user} in hosts/{patient.machine}/default.nix and rebuild, or: glixctl host set "
            f"{patient.machine} primary_user=NAME",
        )
    if not missing:
        yield fine("users", f"this machine has every user that its manifest names: {listed(homes) or 'none'}")


def evaluation(patient: Patient) -> Iterator[api.Check]:
    """The hosts evaluate, as far as that was tried."""
    others: dict[str, list[str]] = {}
    for host in patient.repository.snapshot().hosts:
        health = patient.health.of(host)
        if health.state == "failed":
            message = f"{host} does not evaluate: {health.message or 'nix gave no reason'}"
            yield failed("evaluation", message, f"glixctl rollback, or correct the configuration of {host}")
        else:
            others.setdefault(health.state, []).append(host)
    for state, hosts in others.items():
        told = {"ok": "evaluate without an error", "evaluating": "being evaluated now"}.get(state, "not evaluated yet")
        yield fine("evaluation", f"{told}: {listed(hosts)}")


def _readable(patient: Patient) -> Iterator[tuple[str, str, Manifest]]:
    """Each host with its manifest as people see it; what can't be read has a finding of its own."""
    snapshot = patient.repository.snapshot()
    edited = patient.repository.edited_texts(snapshot)
    for host in snapshot.hosts:
        path = manifest_path(host)
        try:
            text = edited.get(path) or snapshot.text(path) or ""
            read = Manifest.parse(text, path) if path in edited else snapshot.manifest(host)
        except GlixError:
            continue
        yield host, text, read


CHECKS: Final[tuple[Check, ...]] = (hosts, manifest, keys, secrets, users, evaluation)
