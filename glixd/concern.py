# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts a commit concerns: those that may evaluate to something else with it, and no others.

Among a thousand hosts a new package of one concerns one. A file concerns whoever may read it: a manifest its own host, an
input the hosts that take a package from it or name it in a file of theirs, a part of flake.nix that people write everybody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from glixd.backends.snapshot import FLAKE, LOCK, Snapshot
from glixd.errors import GlixError
from glixd.model.change import manifest_path
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import LockFile, fingerprint

HOSTS: Final = "hosts"


class _Everybody(Exception):
    """The commit may concern every host."""


def concerned(before: Snapshot, after: Snapshot, changed: Collection[str]) -> frozenset[str]:
    """The hosts of `after` that its changed files concern."""
    try:
        found = set(_hosts(before, after, changed))
    except (_Everybody, GlixError):
        return frozenset(after.hosts)
    return frozenset(found & after.hosts.keys())


def _hosts(before: Snapshot, after: Snapshot, changed: Collection[str]) -> Iterator[str]:
    folders = set()
    for path in set(changed) - {FLAKE, LOCK}:
        top, _, rest = path.partition("/")
        host, _, name = rest.partition("/")
        if top != HOSTS or not name or not {host} & (before.hosts.keys() | after.hosts.keys()):
            raise _Everybody
        yield host
        if path != manifest_path(host):
            folders.add(host)
    yield from _naming(after, {f"/{host}" for host in folders}, folders)
    if {FLAKE, LOCK} & set(changed):
        yield from _using(before, after)


def _using(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """The hosts that flake.nix lists in another way, and those that use an input which is another one now."""
    old, new = (FlakeFile.parse(snapshot.text(FLAKE) or "") for snapshot in (before, after))
    if old.outside() != new.outside():
        raise _Everybody
    yield from (line.split('"')[1] for line in _differing(old.hosts_region, new.hosts_region))
    managed = {*old.input_names, *new.input_names}
    names = {
        name for line in _differing(old.inputs_region, new.inputs_region) for name in managed if f'"{name}"' in line
    }
    names |= _relocked(before.text(LOCK), after.text(LOCK))
    if names - managed:
        raise _Everybody
    for host in after.hosts:
        manifests = [snapshot.manifest(host) for snapshot in (before, after) if host in snapshot.hosts]
        if any(one.input_name(package) in names for one in manifests for package in one.packages.values()):
            yield host
    yield from _naming(after, {spelt for name in names for spelt in (f"inputs.{name}", f'inputs."{name}"')})


def _differing(old: str, new: str) -> set[str]:
    """The lines that stand in one of two texts."""
    lines = ({line.strip() for line in text.splitlines()} for text in (old, new))
    return next(lines) ^ next(lines) - {""}


def _relocked(old: str | None, new: str | None) -> set[str]:
    """The inputs whose part of the lock is another one."""
    if old is None or new is None:
        raise _Everybody
    names = LockFile.parse(old).inputs.keys() | LockFile.parse(new).inputs.keys()
    return {name for name in names if fingerprint(old, name) != fingerprint(new, name)}


def _naming(snapshot: Snapshot, words: Iterable[str], without: Collection[str] = ()) -> Iterator[str]:
    """The hosts in whose files people wrote one of these words; in a file of nobody's own it concerns everybody."""
    wanted = set(words)
    for path in snapshot.git.files_with(snapshot.commit, wanted, "*.nix"):
        top, _, rest = path.partition("/")
        host = rest.partition("/")[0]
        if path == FLAKE:
            text = FlakeFile.parse(snapshot.text(FLAKE) or "").outside()
            if any(word in text for word in wanted):
                raise _Everybody
        elif top != HOSTS or host not in snapshot.hosts:
            raise _Everybody
        elif host not in without:
            yield host
