# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the hosts evaluate: after a commit each host that it concerns is evaluated in the background, people first.

What was asked for last is evaluated first, one host at a time and with the lowest priority. While a person's change is under
way nothing is begun, and what runs is put back; but only so often, that among people who never rest it still comes to an end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from glixd.api import Health
from glixd.backends.nix import Nix
from glixd.backends.process import UNLIMITED, Cancellation
from glixd.backends.state import Database
from glixd.errors import Cancelled, GlixError
from glixd.log import get_logger
from glixd.model.refusal import Refusal

log = get_logger()

YIELDS: Final = 3
"""How often the evaluation of a host gives way to people, before it runs beside them."""


PAUSE: Final = 0.1
"""Seconds between what asks for an evaluation and its begin: first the answer to the change goes out, to a client that runs
on the same processors. Changes that follow each other quickly are evaluated once."""


class HealthKeeper:
    """Evaluates one host at a time; only the newest commit of a host counts."""

    def __init__(self, nix: Nix, database: Database) -> None:
        self._nix = nix
        self._database = database
        self._wanted: dict[str, str] = {}
        self._current: tuple[str, str, Cancellation] | None = None
        self._task: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._people = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._yielded: Counter[str] = Counter()
        self._ending = asyncio.Event()

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
        """Evaluate these hosts at a commit, in the background: in this order, and before what was asked for earlier."""
        if self._ending.is_set():
            return
        for host in reversed(list(hosts)):
            self._wanted.pop(host, None)
            self._wanted[host] = commit
            if self._current and self._current[0] == host:
                self._current[2].request()
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work())

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """Leave the machine to somebody who waits."""
        self._people += 1
        self._quiet.clear()
        if self._current and self._yielded[self._current[0]] < YIELDS:
            host, commit, cancellation = self._current
            self._yielded[host] += 1
            self._wanted.setdefault(host, commit)
            cancellation.request()
        try:
            yield
        finally:
            self._people -= 1
            if not self._people:
                self._quiet.set()

    async def close(self) -> None:
        """Stop; a host that was not evaluated is unknown until its next change."""
        self._ending.set()
        self._wanted.clear()
        self._quiet.set()
        if self._current:
            self._current[2].request()
        if self._task:
            await asyncio.wait([self._task])
        self._worker.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), PAUSE)
        while self._wanted:
            host, commit = next(reversed(self._wanted.items()))
            if self._people and self._yielded[host] < YIELDS:
                await self._quiet.wait()
                continue
            del self._wanted[host]
            cancellation = Cancellation()
            self._current = (host, commit, cancellation)
            try:
                health = await loop.run_in_executor(self._worker, self._evaluate, host, commit, cancellation)
                if health:
                    del self._yielded[host]
                    await loop.run_in_executor(self._worker, self._database.set_health, host, health)
            finally:
                self._current = None

    def _evaluate(self, host: str, commit: str, cancellation: Cancellation) -> Health | None:
        try:
            self._nix.evaluate_host(commit, host, cancellation=cancellation, memory=UNLIMITED)
        except Cancelled:
            return None
        except GlixError as error:
            log.warning("a host does not evaluate", host=host, commit=commit, reason=error.message)
            return Health(state="failed", commit=commit, message=_explained(error.message))
        return Health(state="ok", commit=commit)


def _explained(message: str) -> str:
    """Why a host does not evaluate, with what consents to it where nixpkgs refuses something."""
    if (refusal := Refusal.in_words(message)) is None:
        return message
    return f"{message}\nWhere NAME is the package that needs {refusal.package}, this consents to it: {refusal.remedy()}"
