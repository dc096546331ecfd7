# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the package index and the registries up to date, in the background and after everybody else."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from glixd.backends.index import Draft, Found, Index, Indexes
from glixd.backends.nix import INDEX_MEMORY, Nix
from glixd.backends.process import Cancellation
from glixd.backends.registry import Registries
from glixd.backends.repository import Repository
from glixd.backends.snapshot import LOCK, Snapshot
from glixd.errors import Cancelled, Failed, GlixError
from glixd.log import get_logger
from glixd.model.lockfile import LockFile

log = get_logger()

CHUNK: Final = 1000
"""Attributes that are evaluated at once; fewer where that takes too much memory, or where one of them breaks the others."""
HOPELESS: Final = 50
"""Attributes that could not be evaluated even alone, after which a build is given up."""

Wanted = tuple[str, str]
"""A revision of nixpkgs, and a system."""


class Indexer:
    """Builds one index at a time: that of every system of the hosts, at the revision that is locked now."""

    def __init__(
        self,
        repository: Repository,
        nix: Nix,
        indexes: Indexes,
        registries: Registries,
        *,
        default_host: str,
        enabled: bool,
        delay: float,
    ) -> None:
        self._repository = repository
        self._nix = nix
        self._indexes = indexes
        self._registries = registries
        self._default_host = default_host
        self._enabled = enabled
        self._delay = delay
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._cancellation = Cancellation()
        self._failed: dict[Wanted, str] = {}
        self._progress: tuple[Wanted, int, int] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._working: asyncio.Future[None] | None = None
        self._again = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something is being built that an end of the daemon would cut short."""
        return self._working is not None

    def consider(self) -> None:
        """Something may have changed: a while later, build what is missing."""
        if self._enabled and not self._closed and (self._waiting is None or self._waiting.done()):
            self._waiting = asyncio.get_running_loop().create_task(self._later())

    def hurry(self) -> None:
        """Somebody searches: do not wait any longer with what is missing."""
        if self._enabled and not self._closed and self._working is None:
            self._start()

    async def build(self, wanted: Wanted, patience: float) -> None:
        """Build what is missing at once, also what failed before; returns when it is done, or after `patience`."""
        self._failed.pop(wanted, None)
        if self._closed or self._indexes.get(*wanted):
            return
        self._start()
        if self._working and patience:
            await asyncio.wait([self._working], timeout=patience)

    def state(self, wanted: Wanted) -> str:
        """How the index of a nixpkgs is: ready, building, failed or absent."""
        if self._indexes.get(*wanted):
            return "ready"
        if wanted in self._failed:
            return "failed"
        return "building" if self.busy or self._enabled else "absent"

    def problem(self, wanted: Wanted) -> str | None:
        """Why the index of a nixpkgs could not be built."""
        return self._failed.get(wanted)

    def progress(self, wanted: Wanted) -> tuple[int, int]:
        """How many packages a build has found, and how many attributes it still has to look at."""
        progress = self._progress
        return progress[1:] if progress and progress[0] == wanted else (0, 0)

    async def close(self) -> None:
        """Stop; a build goes on from there when there is a daemon again."""
        self._closed = True
        if self._waiting:
            self._waiting.cancel()
        self._cancellation.request()
        self._registries.close()
        if self._working:
            await asyncio.wait([self._working])
        self._worker.shutdown()
        self._indexes.close()

    # -- on the event loop ---------------------------------------------------------------------------------------

    async def _later(self) -> None:
        await asyncio.sleep(self._delay)
        self._start()

    def _start(self) -> None:
        if self._working is not None:
            self._again = True
            return
        self._working = asyncio.get_running_loop().run_in_executor(self._worker, self._work)
        self._working.add_done_callback(self._done)

    def _done(self, _work: asyncio.Future[None]) -> None:
        self._working = None
        if self._again and not self._closed:
            self._again = False
            self._start()

    # -- on the worker thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Build everything that is missing; what goes wrong is told to whoever searches."""
        try:
            if not self._repository.exists:
                return
            snapshot = self._repository.snapshot()
            wanted = self._wanted(snapshot)
            for revision, system in wanted:
                if (revision, system) not in self._failed and not self._indexes.get(revision, system):
                    self._build(snapshot.commit, (revision, system))
            if all(self._indexes.get(*one) for one in wanted):
                self._indexes.prune(wanted)
            for url in self._registry_urls(snapshot):
                self._cancellation.check()
                self._registries.refresh_stale(url)
        except Cancelled:
            return
        except GlixError as error:
            log.warning("the packages could not be indexed", reason=error.message)
        except Exception:
            log.exception("the index of packages met a defect")

    def _wanted(self, snapshot: Snapshot) -> list[Wanted]:
        """What searches will ask for, the default host's first."""
        revision = LockFile.parse(snapshot.text(LOCK)).revision("nixpkgs")
        if revision is None:
            return []
        hosts = sorted(snapshot.hosts, key=lambda host: host != self._default_host)
        return list(dict.fromkeys((revision, self._system(snapshot, host)) for host in hosts))

    def _system(self, snapshot: Snapshot, host: str) -> str:
        try:
            return snapshot.manifest(host).settings.system or self._nix.system()
        except GlixError:
            return self._nix.system()

    def _registry_urls(self, snapshot: Snapshot) -> list[str | None]:
        urls: dict[str | None, None] = {None: None}
        for host in snapshot.hosts:
            try:
                urls[snapshot.manifest(host).settings.registry_url] = None
            except GlixError:
                continue
        return list(urls)

    def _build(self, commit: str, wanted: Wanted) -> Index | None:
        """Build one index; None where that fails."""
        draft = self._indexes.draft(*wanted)
        try:
            self._progress = (wanted, *draft.progress)
            self._fill(draft, commit, wanted)
            index = self._indexes.complete(draft, *wanted)
            log.info("the packages are indexed", revision=wanted[0], system=wanted[1], packages=index and index.size)
            return index
        except Cancelled:
            raise
        except GlixError as error:
            self._failed[wanted] = error.message
            log.warning("the packages can't be indexed", revision=wanted[0], system=wanted[1], reason=error.message)
            return None
        finally:
            self._progress = None
            draft.close()

    def _fill(self, draft: Draft, commit: str, wanted: Wanted) -> None:
        """Look at every attribute, some at a time: as many as the memory for it allows."""
        if not draft.begun:
            names = self._nix.package_names(commit, wanted[1], cancellation=self._cancellation, memory=INDEX_MEMORY)
            draft.begin(names)
        size, lost = CHUNK, 0
        while paths := draft.todo(size):
            try:
                found = self._nix.look_at(commit, wanted[1], paths, cancellation=self._cancellation)
            except Failed as error:
                if len(paths) > 1:
                    size = len(paths) // 2
                    continue
                lost += 1
                if lost > HOPELESS:
                    raise
                log.debug("an attribute can't be evaluated", attribute=".".join(paths[0]), reason=error.message[:200])
                draft.add(paths, Found())
                continue
            draft.add(paths, found)
            size = min(size * 2, CHUNK)
            self._progress = (wanted, *draft.progress)
