# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers about packages that could be installed: search in the index and the registries, and how these are."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import islice
from typing import Final

from glixd import api
from glixd.api import Consent
from glixd.backends.index import LEVELS, Entry, Index, IndexDamaged, Indexes, level_of, words_of
from glixd.backends.process import Cancellation
from glixd.backends.registry import Listed, Listing, Registries, Source
from glixd.backends.repository import Repository
from glixd.backends.snapshot import LOCK, Snapshot
from glixd.errors import NotFound, invalid
from glixd.indexing import Indexer, Wanted
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest
from glixd.protocol import ErrorCode
from glixd.requests.preparer import Preparer

NIXPKGS: Final = "nixpkgs"
SPELLINGS: Final = ("nixpkgs#", "flake:nixpkgs#", "github:NixOS/nixpkgs#")
"""How a manifest may spell an attribute of the host's own nixpkgs."""


class Searcher:
    """Every query about what there is beside the repository. Safe from any thread."""

    def __init__(
        self,
        repository: Repository,
        indexes: Indexes,
        indexer: Indexer,
        registries: Registries,
        preparer: Preparer,
        *,
        default_host: str,
        default_system: str,
    ) -> None:
        self._repository = repository
        self._indexes = indexes
        self._indexer = indexer
        self._registries = registries
        self._preparer = preparer
        self._default_host = default_host
        self._default_system = default_system

    def search(self, asked: api.SearchParameters) -> api.Matches:
        """One page of what fits, the best first."""
        if not asked.query.strip():
            raise invalid("query", "it is empty", hint="Give a name, or words of a description.")
        query = " ".join(asked.query.split())
        snapshot, manifest = self._host(asked.host)
        wanted = self._wanted_by(snapshot, manifest)
        index = self._indexes.get(*wanted) if wanted else None
        state = self._indexer.state(wanted) if wanted else "absent"
        last = asked.offset + asked.limit
        try:
            found = self._matches(query, last + 1, index, snapshot, manifest, asked.host)
            page = list(islice(found, asked.offset, last + 1))
        except IndexDamaged as error:
            self._indexes.forget(error.index)
            return self.search(asked)
        installed = {package.flake for package in manifest.packages.values()}
        return api.Matches(
            matches=tuple(_marked(match, installed) for match in page[: asked.limit]),
            next=last if len(page) > asked.limit else None,
            index=state,
            near=() if page else self._near(query, asked.host),
        )

    def index(self, host: str | None) -> api.IndexStatus:
        """How the index of the host's nixpkgs is."""
        wanted = self.wanted(host)
        if wanted is None:
            return api.IndexStatus(state="absent", system=self._default_system, packages=0, left=0)
        index = self._indexes.get(*wanted)
        packages, left = (index.size, 0) if index else self._indexer.progress(wanted)
        return api.IndexStatus(
            state=self._indexer.state(wanted),
            revision=wanted[0],
            system=wanted[1],
            packages=packages,
            left=left,
            problem=self._indexer.problem(wanted),
        )

    def wanted(self, host: str | None) -> Wanted | None:
        """The revision and the system that a search on the host is about."""
        return self._wanted_by(*self._host(host))

    def registries(self, asked: api.RegistriesParameters) -> api.RegistryList:
        """The registries in the order in which they are asked."""
        return api.RegistryList(
            registries=tuple(
                _registry(source, self._registries.listing(source)) for source in self._sources(asked.host)
            )
        )

    def refresh(self, asked: api.RegistriesParameters) -> api.RegistryList:
        """Ask every registry for what is new."""
        sources = self._sources(asked.host)
        return api.RegistryList(
            registries=tuple(_registry(source, self._registries.refresh(source)) for source in sources)
        )

    def registry(self, asked: api.ShowRegistryParameters) -> api.RegistryPage:
        """One page of what a registry lists, by name."""
        for source in self._sources(asked.host):
            if source.url == asked.url:
                break
        else:
            raise NotFound(
                f"{asked.url} is no registry that is asked here.",
                code=ErrorCode.UNKNOWN_PACKAGE,
                hint="See: glixctl registry list",
                details={"url": asked.url},
            )
        listing = self._registries.listing(source)
        names = sorted(name for name in listing.entries if asked.after is None or name > asked.after)
        page = names[: asked.limit]
        return api.RegistryPage(
            registry=_registry(source, listing),
            entries=tuple(
                api.RegistryEntry(name=name, flake=listing.entries[name][0], description=listing.entries[name][1])
                for name in page
            ),
            next=page[-1] if len(names) > len(page) else None,
        )

    # -- helpers -------------------------------------------------------------------------------------------------

    def _host(self, host: str | None) -> tuple[Snapshot, Manifest]:
        snapshot = self._repository.snapshot()
        return snapshot, snapshot.manifest(host or self._default_host)

    def _sources(self, host: str | None) -> tuple[Source, ...]:
        return self._registries.sources(self._host(host)[1].settings.registry_url)

    def _wanted_by(self, snapshot: Snapshot, manifest: Manifest) -> Wanted | None:
        revision = LockFile.parse(snapshot.text(LOCK)).revision(NIXPKGS)
        return (revision, manifest.settings.system or self._default_system) if revision else None

    def _matches(
        self, query: str, limit: int, index: Index | None, snapshot: Snapshot, manifest: Manifest, host: str | None
    ) -> Iterator[api.Match]:
        """What fits, level by level, of each level the registries' first; at most `limit` of the index."""
        listed = [
            (level, one)
            for one in self._registries.entries(manifest.settings.registry_url)
            if (level := level_of(query, one.name, one.description)) is not None
        ]
        index = index or self._indexes.other(manifest.settings.system or self._default_system)
        names = [] if index else self._names(query, host)
        seen: set[int] = set()
        for level in range(LEVELS):
            yield from (_of_registry(one) for place, one in listed if place == level)
            if index:
                for number, entry in index.level(query, level, limit):
                    if number not in seen:
                        seen.add(number)
                        yield _of_index(entry)
            yield from (_of_name(name) for place, name in names if place == level)

    def _names(self, query: str, host: str | None) -> list[tuple[int, str]]:
        """Without an index: the names of the top level of nixpkgs that fit, and how well."""
        if not words_of(query):
            return []
        names = self._preparer.names(host or self._default_host, Cancellation())
        return [(level, name) for name in names if (level := level_of(query, name, "")) is not None]

    def _near(self, query: str, host: str | None) -> tuple[str, ...]:
        """What may have been meant by a word that nothing fits; nothing behind the last page of what fits."""
        if not words_of(query) or " " in query:
            return ()
        found = self._preparer.near(query, host or self._default_host, Cancellation())
        return tuple(name for name in found if level_of(query, name, "") is None)


def _of_registry(one: Listed) -> api.Match:
    return api.Match(name=one.name, flake=one.flake, source="registry", description=one.description, url=one.url)


def _of_index(entry: Entry) -> api.Match:
    return api.Match(
        name=entry.attribute,
        flake=f"{NIXPKGS}#{entry.attribute}",
        source=NIXPKGS,
        version=entry.version,
        description=entry.description,
        unfree=Consent.UNFREE in entry.marks,
        insecure=Consent.INSECURE in entry.marks,
        broken=Consent.BROKEN in entry.marks,
    )


def _of_name(name: str) -> api.Match:
    return api.Match(name=name, flake=f"{NIXPKGS}#{name}", source=NIXPKGS)


def _marked(match: api.Match, installed: set[str]) -> api.Match:
    attribute = match.flake.removeprefix(SPELLINGS[0]) if match.source == NIXPKGS else None
    spelt = [match.flake] if attribute is None else [spelling + attribute for spelling in SPELLINGS]
    return match.model_copy(update={"installed": True}) if installed.intersection(spelt) else match


def _registry(source: Source, listing: Listing) -> api.Registry:
    return api.Registry(
        url=source.url,
        trusted=source.trusted,
        origin=source.origin,
        entries=len(listing.entries),
        fetched=_moment(listing.fetched),
        checked=_moment(listing.checked),
        problem=listing.problem,
    )


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
