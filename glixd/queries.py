# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers to questions about the repository, read from the commit that the branch names and never from the queue."""

from __future__ import annotations

import bisect
import datetime
from collections.abc import Iterable, Iterator
from typing import Final

from glixd import api
from glixd.backends.git import LogEntry
from glixd.backends.process import Cancellation
from glixd.backends.repository import LOCK, PUBLISHED_REF, Repository, Snapshot, unknown_host
from glixd.errors import GlixError, NotFound, invalid
from glixd.health import HealthKeeper
from glixd.model.flakeref import FlakeRef
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest, Package
from glixd.model.operations import is_host_attribute, nixpkgs_url, not_installed, package_url
from glixd.protocol import VERSION, ErrorCode
from glixd.requests import Preparer

DIRTY_LIMIT: Final = 100


class Queries:
    """Every query that looks at the repository. Safe from any thread."""

    def __init__(
        self, repository: Repository, health: HealthKeeper, preparer: Preparer, *, mode: str, default_host: str
    ) -> None:
        self._repository = repository
        self._health = health
        self._preparer = preparer
        self._mode = mode
        self._default_host = default_host

    def hosts(self) -> api.Hosts:
        """Every host of the repository, by name."""
        return api.Hosts(hosts=tuple(self._hosts(self._repository.snapshot())))

    def packages(self, asked: api.ListParameters) -> api.Packages:
        """One page of packages: of one host in the order of its manifest's names, or of all hosts."""
        snapshot = self._repository.snapshot()
        if asked.all_hosts and asked.host:
            raise invalid("all_hosts", "it can't be combined with a host")
        hosts = list(snapshot.hosts) if asked.all_hosts else [self._known(snapshot, asked.host or self._default_host)]
        entries = self._entries(snapshot, hosts, asked)
        page: list[api.Package] = []
        for entry in entries:
            if len(page) == asked.limit:
                return api.Packages(packages=tuple(page), next=_cursor(page[-1]), health=self._health_of(hosts))
            page.append(entry)
        return api.Packages(packages=tuple(page), health=self._health_of(hosts))

    def show(self, asked: api.ShowParameters) -> api.PackageDetails:
        """One package, with what is locked for it."""
        snapshot = self._repository.snapshot()
        host = self._known(snapshot, asked.host or self._default_host)
        manifest = snapshot.manifest(host)
        package = manifest.packages.get(asked.name)
        if package is None:
            raise not_installed(asked.name, host, manifest)
        lock = LockFile.parse(snapshot.text(LOCK))
        own = is_host_attribute(package, nixpkgs_url(lock))
        name = "nixpkgs" if own else manifest.input_name(package)
        locked = lock.inputs.get(name)
        return api.PackageDetails(
            **_package(host, manifest, package).model_dump(),
            input=None if own else name,
            url=None if own else package_url(package),
            attribute=FlakeRef.parse(package.flake).attribute,
            follows=package.follows,
            consents=manifest.consents_of(package.name),
            config=dict(package.config),
            revision=locked.revision if locked else None,
            modified=locked.modified if locked else None,
            health=self._health.of(host),
        )

    def info(self) -> api.Info:
        """The repository, its hosts and its inputs."""
        snapshot = self._repository.snapshot()
        shows = self._repository.shows_branch()
        edited = self._repository.worktree.edits(snapshot.managed) if shows else {}
        dirty = [path for path in self._repository.git.dirty() if path not in edited]
        newest = self._repository.git.log(snapshot.commit, limit=1)
        return api.Info(
            repository=str(self._repository.root),
            mode=self._mode,
            branch=self._repository.branch.removeprefix("refs/heads/"),
            head=snapshot.commit,
            subject=newest[0].subject if newest else None,
            edited=tuple(edited),
            dirty=tuple(dirty[:DIRTY_LIMIT]),
            published=shows and self._repository.git.ref(PUBLISHED_REF) == snapshot.commit,
            hosts=tuple(self._hosts(snapshot)),
            inputs=tuple(self._inputs(snapshot)),
            version=VERSION,
        )

    def resolve(self, asked: api.ResolveParameters) -> api.Resolutions:
        """What names and references mean."""
        found = self._preparer.resolve(asked, Cancellation())
        return api.Resolutions(
            resolutions=tuple(
                api.Resolution(
                    ref=one.ref,
                    name=one.name,
                    flake=one.flake,
                    source=one.source,
                    url=one.url,
                    attribute=one.attribute,
                    trusted=one.trusted,
                )
                for one in found
            )
        )

    def history(self, asked: api.HistoryParameters) -> api.Histories:
        """Commits, the newest first."""
        start = self._repository.snapshot().commit
        if asked.before is not None:
            found = self._repository.git.read(f"{asked.before}^{{commit}}")
            if found is None:
                raise invalid("before", f"{asked.before} is no commit of the repository")
            start = f"{found.oid}~1" if self._repository.git.read(f"{found.oid}~1") else ""
        entries = self._repository.git.log(start, limit=asked.limit + 1) if start else []
        page = entries[: asked.limit]
        following = page[-1].oid if len(entries) > asked.limit else None
        return api.Histories(entries=tuple(_history_entry(entry) for entry in page), next=following)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _known(self, snapshot: Snapshot, host: str) -> str:
        if host not in snapshot.hosts:
            raise unknown_host(host, list(snapshot.hosts))
        return host

    def _entries(self, snapshot: Snapshot, hosts: list[str], asked: api.ListParameters) -> Iterator[api.Package]:
        after = _read_cursor(asked.after) if asked.after else ("", "")
        for host in hosts[bisect.bisect_left(hosts, after[0]) :]:
            manifest = snapshot.manifest(host)
            names = sorted(manifest.packages)
            first = bisect.bisect_right(names, after[1]) if host == after[0] else 0
            for name in names[first:]:
                package = manifest.packages[name]
                if package.enabled or asked.include_disabled:
                    yield _package(host, manifest, package)

    def _health_of(self, hosts: list[str]) -> api.Health | None:
        return self._health.of(hosts[0]) if len(hosts) == 1 else None

    def _hosts(self, snapshot: Snapshot) -> Iterator[api.Host]:
        for name in snapshot.hosts:
            health = self._health.of(name)
            try:
                manifest = snapshot.manifest(name)
            except GlixError as error:
                yield api.Host(name=name, packages=0, enabled=0, health=health, problem=error.message)
                continue
            yield api.Host(
                name=name,
                system=manifest.settings.system,
                primary_user=manifest.settings.primary_user,
                packages=len(manifest.packages),
                enabled=sum(package.enabled for package in manifest.packages.values()),
                health=health,
            )

    def _inputs(self, snapshot: Snapshot) -> Iterator[api.Input]:
        lock = LockFile.parse(snapshot.text(LOCK))
        managed = set(self._managed_inputs(snapshot, nixpkgs_url(lock)))
        for entry in lock.inputs.values():
            yield api.Input(
                name=entry.name,
                url=entry.url,
                revision=entry.revision,
                modified=entry.modified,
                managed=entry.name in managed,
            )

    def _managed_inputs(self, snapshot: Snapshot, nixpkgs: str | None) -> Iterable[str]:
        for host in snapshot.hosts:
            try:
                manifest = snapshot.manifest(host)
                own = [package for package in manifest.packages.values() if not is_host_attribute(package, nixpkgs)]
            except GlixError:
                continue
            yield from (manifest.input_name(package) for package in own)


def _package(host: str, manifest: Manifest, package: Package) -> api.Package:
    return api.Package(
        host=host,
        name=package.name,
        scope=manifest.scope_of(package),
        enabled=package.enabled,
        user=manifest.user_of(package),
        flake=package.flake,
        pin=package.pin,
    )


def _history_entry(entry: LogEntry) -> api.HistoryEntry:
    uid = entry.trailers.get("Glix-Uid", "")
    return api.HistoryEntry(
        commit=entry.oid,
        time=datetime.datetime.fromtimestamp(entry.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        author=entry.author,
        subject=entry.subject,
        transaction=entry.trailers.get("Glix-Transaction"),
        uid=int(uid) if uid.isdecimal() else None,
        reason=entry.trailers.get("Glix-Reason"),
    )


def _cursor(entry: api.Package) -> str:
    return f"{entry.host}/{entry.name}"


def _read_cursor(cursor: str) -> tuple[str, str]:
    host, slash, name = cursor.partition("/")
    if not slash:
        raise invalid("after", "it is no cursor that List gave")
    return host, name


def unknown_transaction(identifier: str) -> NotFound:
    """No transaction has that id."""
    return NotFound(
        f"There is no transaction {identifier}.",
        code=ErrorCode.UNKNOWN_TRANSACTION,
        hint="See: glixctl transaction list",
        details={"transaction": identifier},
    )
