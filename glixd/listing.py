# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of packages: filtered, sorted and page by page.

Host by host the cursor is the last entry, and every page is read from the newest commit. A list that is sorted over several
hosts is read from one commit to its end, whose name stands in the cursor: nothing is left out or told twice.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from glixd import api
from glixd.api import COMMIT_NAME, Order, PackageState
from glixd.backends.repository import Repository
from glixd.backends.snapshot import Snapshot, unknown_host
from glixd.errors import invalid
from glixd.model.manifest import Manifest, Package


class Page(NamedTuple):
    """Some packages, and where the list goes on."""

    packages: tuple[api.Package, ...]
    next: str | None


class _Place(NamedTuple):
    """Where a list goes on: behind one package, at one commit where the list is sorted."""

    commit: str
    host: str
    name: str

    @classmethod
    def read(cls, cursor: str | None) -> _Place:
        """The place that a cursor means; raises InvalidArgument."""
        if cursor is None:
            return cls("", "", "")
        commit, colon, entry = cursor.rpartition(":")
        host, slash, name = entry.partition("/")
        if not slash or (colon and not COMMIT_NAME.fullmatch(commit)):
            raise invalid("after", "it is no cursor that List gave")
        return cls(commit, host, name)

    def __str__(self) -> str:
        return f"{self.commit}:{self.host}/{self.name}" if self.commit else f"{self.host}/{self.name}"


def page(repository: Repository, snapshot: Snapshot, default_host: str, asked: api.ListParameters) -> Page:
    """One page of what is asked; raises UnknownHost or InvalidArgument."""
    place = _Place.read(asked.after)
    if asked.sort is None:
        hosts = hosts_asked(snapshot, default_host, asked)
        return _cut(_by_host(snapshot, hosts, place, asked), asked.limit, commit="")
    if place.commit:
        snapshot = _at(repository, snapshot, place.commit)
    hosts = hosts_asked(snapshot, default_host, asked)
    return _cut(_sorted(snapshot, hosts, place, asked), asked.limit, commit=snapshot.commit)


def hosts_asked(snapshot: Snapshot, default_host: str, asked: api.ListParameters) -> list[str]:
    """The hosts that a list is about."""
    if asked.all_hosts and asked.host:
        raise invalid("all_hosts", "it can't be combined with host", others=("host",))
    if asked.all_hosts:
        return list(snapshot.hosts)
    host = asked.host or default_host
    if host not in snapshot.hosts:
        raise unknown_host(host, list(snapshot.hosts))
    return [host]


def told(host: str, manifest: Manifest, package: Package) -> api.Package:
    """One entry of a manifest, as callers see it."""
    return api.Package(
        host=host,
        name=package.name,
        scope=manifest.scope_of(package),
        enabled=package.enabled,
        user=manifest.user_of(package),
        flake=package.flake,
        pin=package.pin,
    )


_Entry = tuple[str, Manifest, Package]
"""The host, its manifest and a package of it."""


def _by_host(snapshot: Snapshot, hosts: list[str], place: _Place, asked: api.ListParameters) -> Iterator[_Entry]:
    for host in hosts[bisect.bisect_left(hosts, place.host) :]:
        manifest = snapshot.manifest(host)
        names = sorted(manifest.packages)
        first = bisect.bisect_right(names, place.name) if host == place.host else 0
        for name in names[first:]:
            package = manifest.packages[name]
            if _wanted(manifest, package, asked):
                yield host, manifest, package


def _sorted(snapshot: Snapshot, hosts: list[str], place: _Place, asked: api.ListParameters) -> list[_Entry]:
    entries = [entry for host in hosts for entry in _by_host(snapshot, [host], _Place("", "", ""), asked)]
    entries.sort(key=lambda entry: (_key(entry, asked.sort), entry[0], entry[2].name))
    if not place.commit:
        return entries
    found = [index for index, entry in enumerate(entries) if (entry[0], entry[2].name) == (place.host, place.name)]
    if not found:
        raise invalid("after", "it is a cursor of another list", hint="Ask for the first page again.")
    return entries[found[0] + 1 :]


def _key(entry: _Entry, order: Order | None) -> str:
    _, manifest, package = entry
    match order:
        case Order.SCOPE:
            return manifest.scope_of(package)
        case Order.USER:
            return manifest.user_of(package) or ""
        case Order.FLAKE:
            return package.flake
        case _:
            return package.name


def _wanted(manifest: Manifest, package: Package, asked: api.ListParameters) -> bool:
    if asked.state is None:
        if not (package.enabled or asked.include_disabled):
            return False
    elif package.enabled is not (asked.state is PackageState.ENABLED):
        return False
    if asked.scope is not None and manifest.scope_of(package) is not asked.scope:
        return False
    if asked.user is not None and manifest.user_of(package) != asked.user:
        return False
    wanted = (asked.text or "").casefold()
    return wanted in package.name.casefold() or wanted in package.flake.casefold()


def _cut(entries: Iterable[_Entry], limit: int, *, commit: str) -> Page:
    page: list[api.Package] = []
    for host, manifest, package in entries:
        if len(page) == limit:
            return Page(tuple(page), str(_Place(commit, page[-1].host, page[-1].name)))
        page.append(told(host, manifest, package))
    return Page(tuple(page), None)


def _at(repository: Repository, newest: Snapshot, commit: str) -> Snapshot:
    """The commit that a sorted list was begun at; one that is not on the branch is nobody's to read."""
    if commit == newest.commit:
        return newest
    if not repository.git.is_ancestor(commit, newest.commit):
        raise invalid("after", "its commit is not on the branch any more", hint="Ask for the first page again.")
    return repository.at(commit)
