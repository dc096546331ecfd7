# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the hosts evaluate: after a commit each host that it concerns is evaluated in the background, people first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from glixd.api import Health
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation
from glixd.backends.state import Database
from glixd.errors import Cancelled, GlixError

log = structlog.get_logger()


class HealthKeeper:
    """Evaluates one host at a time; only the newest commit of a host counts."""

    def __init__(self, nix: Nix, database: Database) -> None:
        self._nix = nix
        self._database = database
        self._wanted: dict[str, str] = {}
        self._current: tuple[str, str, Cancellation] | None = None
        self._task: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something is still to be evaluated."""
        return bool(self._wanted) or self._current is not None

    def of(self, host: str) -> Health:
        """What is known of a host: the last evaluation, or that one is under way."""
        waiting = self._wanted.get(host)
        if waiting is None and self._current and self._current[0] == host:
            waiting = self._current[1]
        return Health(state="evaluating", commit=waiting) if waiting else self._database.health(host)

    def evaluate(self, hosts: Iterable[str], commit: str) -> None:
        """Evaluate these hosts at a commit, in the background."""
        if self._closed:
            return
        for host in hosts:
            self._wanted[host] = commit
            if self._current and self._current[0] == host:
                self._current[2].request()
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop; a host that was not evaluated is unknown until its next change."""
        self._closed = True
        self._wanted.clear()
        if self._current:
            self._current[2].request()
        if self._task:
            await asyncio.wait([self._task])
        self._worker.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._wanted:
            host, commit = next(iter(self._wanted.items()))
            del self._wanted[host]
            cancellation = Cancellation()
            self._current = (host, commit, cancellation)
            try:
                health = await loop.run_in_executor(self._worker, self._evaluate, host, commit, cancellation)
                if health:
                    await loop.run_in_executor(self._worker, self._database.set_health, host, health)
            finally:
                self._current = None

    def _evaluate(self, host: str, commit: str, cancellation: Cancellation) -> Health | None:
        try:
            self._nix.evaluate_host(commit, host, cancellation=cancellation)
        except Cancelled:
            return None
        except GlixError as error:
            log.warning("a host does not evaluate", host=host, commit=commit, reason=error.message)
            return Health(state="failed", commit=commit, message=error.message)
        return Health(state="ok", commit=commit)
