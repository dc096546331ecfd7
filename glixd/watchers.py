# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what: progress to those who watch a transaction, at most ten times a second, and the last event always."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from glixd.api import ProgressEvent
from glixd.protocol import PROGRESS_PER_SECOND, State

INTERVAL: Final = 1 / PROGRESS_PER_SECOND
LINES: Final = 200
"""Log lines that wait for a slow reader; older ones are dropped, the log itself keeps them."""


class Client(Protocol):
    """One connection, as a front-end sees it."""

    def progress(self, event: ProgressEvent) -> bool:
        """Send an event; False when the reader is slow and it was not taken."""

    def changed(self, host: str) -> None:
        """The manifest of a host changed."""

    def staged(self, host: str) -> None:
        """An update of a host is built and can be switched to."""


class Observer(Protocol):
    """A transport that tells everybody: never more than the id of a transaction and its state."""

    def added(self, transaction: str, state: State) -> None:
        """A transaction began."""

    def state_changed(self, transaction: str, state: State) -> None:
        """A transaction is in another state."""

    def removed(self, transaction: str) -> None:
        """A transaction can only be looked up from now on."""

    def changed(self, host: str) -> None:
        """The manifest of a host changed."""

    def staged(self, host: str) -> None:
        """An update of a host is built and can be switched to."""


class Watchers:
    """The connections and what each of them watches. Lives on the event loop."""

    def __init__(self) -> None:
        self._clients: dict[Client, dict[str, _Feed]] = {}
        self._observers: list[Observer] = []
        self._told: dict[str, bool] = {}
        """The hosts of which everybody was told lately that they changed, and whether they did so again since."""

    def attach(self, client: Client) -> None:
        """A connection came."""
        self._clients.setdefault(client, {})

    def detach(self, client: Client) -> None:
        """A connection went; nothing is cancelled by that."""
        for feed in self._clients.pop(client, {}).values():
            feed.close()

    def observe(self, observer: Observer) -> None:
        """Tell this transport about everything that everybody may know."""
        self._observers.append(observer)

    def watch(self, client: Client, transaction: str) -> None:
        """Send `client` the progress of a transaction from now on; one that has gone meanwhile is not brought back."""
        feeds = self._clients.get(client)
        if feeds is not None and transaction not in feeds:
            feeds[transaction] = _Feed(client, partial(feeds.pop, transaction, None))

    def unwatch(self, client: Client, transaction: str) -> None:
        """Stop sending it."""
        feed = self._clients.get(client, {}).pop(transaction, None)
        if feed:
            feed.close()

    def progress(self, event: ProgressEvent) -> None:
        """Offer an event to everybody who watches its transaction; a final one ends their watching once it is taken."""
        final = State(event.state).final
        for feeds in list(self._clients.values()):
            feed = feeds.get(event.transaction)
            if feed:
                feed.offer(event, final=final)

    def added(self, transaction: str, state: State) -> None:
        """A transaction began."""
        for observer in self._observers:
            observer.added(transaction, state)

    def state_changed(self, transaction: str, state: State) -> None:
        """A transaction is in another state."""
        for observer in self._observers:
            observer.state_changed(transaction, state)

    def removed(self, transaction: str) -> None:
        """A transaction can only be looked up from now on."""
        for observer in self._observers:
            observer.removed(transaction)

    def changed(self, host: str) -> None:
        """The manifest of a host changed: everybody is told, at once and then ten times a second at most.

        With thirty-two clients that all change a host, telling each of every change was two thirds of all that was sent.
        """
        if host in self._told:
            self._told[host] = True
            return
        self._told[host] = False
        asyncio.get_running_loop().call_later(INTERVAL, self._rested, host)
        for client in list(self._clients):
            client.changed(host)
        for observer in self._observers:
            observer.changed(host)

    def _rested(self, host: str) -> None:
        if self._told.pop(host):
            self.changed(host)

    def staged(self, host: str) -> None:
        """An update of a host is built and can be switched to: everybody is told."""
        for client in list(self._clients):
            client.staged(host)
        for observer in self._observers:
            observer.staged(host)


class _Feed:
    """The events of one transaction on their way to one client: the newest wins, log lines add up."""

    def __init__(self, client: Client, ended: Callable[[], object]) -> None:
        self._client = client
        self._ended = ended
        self._final = False
        self._waiting: ProgressEvent | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0

    def offer(self, event: ProgressEvent, *, final: bool) -> None:
        if self._waiting is not None:
            lines = (*self._waiting.lines, *event.lines)[-LINES:]
            event = event.model_copy(update={"lines": lines})
        self._waiting = event
        self._final = final
        loop = asyncio.get_running_loop()
        if final or (self._timer is None and loop.time() >= self._next):
            self._send()
        elif self._timer is None:
            self._timer = loop.call_at(self._next, self._send)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        self._waiting = None

    def _send(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._waiting is None:
            return
        loop = asyncio.get_running_loop()
        self._next = loop.time() + INTERVAL
        if self._client.progress(self._waiting):
            self._waiting = None
            if self._final:
                self._ended()
        else:
            self._timer = loop.call_at(self._next, self._send)
