# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers to questions about the repository, read from the commit that the branch names and never from the queue."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from typing import Final

from glixd import api, comparison, history, listing
from glixd.backends.nix import Contribution
from glixd.backends.process import Cancellation
from glixd.backends.repository import Repository
from glixd.backends.snapshot import LOCK, Snapshot, unknown_host
from glixd.errors import GlixError
from glixd.health import HealthKeeper
from glixd.model.flakeref import FlakeRef
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest, Package
from glixd.model.operations import is_host_attribute, nixpkgs_url, not_installed, package_url
from glixd.protocol import VERSION
from glixd.requests.preparer import Preparer
from glixd.resolvers.asking import Asking, Facts

DIRTY_LIMIT: Final = 100
USES_LIMIT: Final = 100
EVERYBODYS: Final = frozenset({"nixpkgs", "home-manager", "glixos-core"})
"""Inputs that the repository itself was made with, and every host uses."""


class Queries:
    """Every query that looks at the repository. Safe from any thread."""

    def __init__(
        self,
        repository: Repository,
        health: HealthKeeper,
        preparer: Preparer,
        facts: Facts,
        *,
        mode: str,
        default_host: str,
    ) -> None:
        self._repository = repository
        self._health = health
        self._preparer = preparer
        self._facts = facts
        self._mode = mode
        self._default_host = default_host

    def hosts(self) -> api.Hosts:
        """Every host of the repository, by name."""
        return api.Hosts(hosts=tuple(self._hosts(self._repository.snapshot())))

    def packages(self, asked: api.ListParameters) -> api.Packages:
        """One page of packages: of one host, or of all."""
        snapshot = self._repository.snapshot()
        found = listing.page(self._repository, snapshot, self._default_host, asked)
        alone = None if asked.all_hosts else asked.host or self._default_host
        hosts = list(snapshot.hosts) if alone is None else [alone]
        return api.Packages(packages=found.packages, next=found.next, health=self._health_of(hosts))

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
        is_what = self._contribution(snapshot, host, manifest, package, None if own else name) if locked else {}
        return api.PackageDetails(
            **listing.told(host, manifest, package).model_dump(),
            input=None if own else name,
            url=None if own else package_url(package),
            attribute=FlakeRef.parse(package.flake).attribute,
            follows=package.follows,
            consents=manifest.consents_of(package.name),
            config=dict(package.config),
            revision=locked.revision if locked else None,
            modified=locked.modified if locked else None,
            health=self._health.of(host),
            contributes=is_what.get("kind"),
            description=is_what.get("description"),
            version=is_what.get("version"),
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
            published=shows and self._repository.is_published,
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
        return history.page(self._repository.git, self._repository.snapshot(), self._default_host, asked)

    def diff(self, asked: api.DiffParameters) -> api.Difference:
        """What differs between two commits, or between a commit and the work tree."""
        return comparison.page(self._repository, self._repository.snapshot(), asked)

    def inputs(self) -> api.Inputs:
        """The inputs as they are locked, with who uses them."""
        snapshot = self._repository.snapshot()
        uses = self._uses(snapshot)
        return api.Inputs(inputs=tuple(_details(entry, uses, snapshot) for entry in self._inputs(snapshot)))

    # -- helpers -------------------------------------------------------------------------------------------------

    def _known(self, snapshot: Snapshot, host: str) -> str:
        if host not in snapshot.hosts:
            raise unknown_host(host, list(snapshot.hosts))
        return host

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
        managed = self._uses(snapshot).keys() - EVERYBODYS
        now = time.time()
        for entry in lock.inputs.values():
            yield api.Input(
                name=entry.name,
                url=entry.url,
                revision=entry.revision,
                modified=entry.modified,
                managed=entry.name in managed,
                age=_age(entry.modified, now),
            )

    def _uses(self, snapshot: Snapshot) -> dict[str, list[str]]:
        """By input the packages that come from it, as host/name; unreadable manifests say nothing."""
        nixpkgs = nixpkgs_url(LockFile.parse(snapshot.text(LOCK)))
        found: dict[str, list[str]] = {}
        for host in snapshot.hosts:
            try:
                manifest = snapshot.manifest(host)
                names = [
                    ("nixpkgs" if is_host_attribute(package, nixpkgs) else manifest.input_name(package), package.name)
                    for package in manifest.packages.values()
                ]
            except GlixError:
                continue
            for name, package in names:
                found.setdefault(name, []).append(f"{host}/{package}")
        return found

    def _contribution(
        self, snapshot: Snapshot, host: str, manifest: Manifest, package: Package, name: str | None
    ) -> Mapping[str, str | None]:
        system = manifest.settings.system or self._facts.nix.system()
        asking = Asking(self._facts, snapshot, host, system, Cancellation())
        attribute = FlakeRef.parse(package.flake).attribute
        return asking.contribution(Contribution(name, attribute, system, manifest.scope_of(package)))


def _details(entry: api.Input, uses: Mapping[str, list[str]], snapshot: Snapshot) -> api.InputDetails:
    packages = uses.get(entry.name, [])
    hosts = list(snapshot.hosts) if entry.name in EVERYBODYS else [use.partition("/")[0] for use in packages]
    return api.InputDetails(
        **entry.model_dump(),
        hosts=tuple(dict.fromkeys(hosts)),
        packages=tuple(packages[:USES_LIMIT]),
        uses=len(packages),
    )


def _age(modified: str | None, now: float) -> int | None:
    """Whole days since an RFC 3339 time in UTC; a clock that is behind counts as no time at all."""
    if modified is None:
        return None
    return max(int(now - datetime.datetime.fromisoformat(modified).timestamp()), 0) // 86400
