# SPDX-License-Identifier: GPL-3.0-or-later
"""A small honest engine for the tests of the front-ends: real rows, parameters and results, and no packages behind them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from glixd import api
from glixd.api import Caller
from glixd.errors import InvalidRequest, NotFound
from glixd.protocol import ErrorCode, State

HEALTH = api.Health(state="ok", commit="c0ffee")


@dataclass
class FakeEngine:
    """Answers a few operations, remembers who asked, and lets the test decide when a transaction goes on."""

    hosts: int = 1
    clients: list[Any] = field(default_factory=list)
    calls: list[tuple[str, api.Parameters, Caller]] = field(default_factory=list)
    transactions: dict[str, api.Transaction] = field(default_factory=dict)
    watchers: dict[str, list[Any]] = field(default_factory=dict)
    observers: list[Any] = field(default_factory=list)
    pending_waits: int = 0
    refused_events: list[api.ProgressEvent] = field(default_factory=list)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    # -- the contract ----------------------------------------------------------------------------------------------

    async def call(self, row: api.Operation, parameters: api.Parameters, caller: Caller, client: Any) -> api.Value:
        self.calls.append((row.name, parameters, caller))
        match row.name:
            case "Ping":
                return api.PingResult(version="1", commit="c0ffee")
            case "ListHosts":
                return api.Hosts(hosts=tuple(self._host(number) for number in range(self.hosts)))
            case "Show":
                return self._show(cast(api.ShowParameters, parameters))
            case "GetTransaction":
                return self._found(cast(api.TransactionParameters, parameters).transaction, caller)
            case "Watch":
                self._watch(cast(api.TransactionParameters, parameters).transaction, client)
                return api.Empty()
            case "Wait":
                return await self._wait(cast(api.WaitParameters, parameters), caller)
            case "Add":
                return self._add(cast(api.AddParameters, parameters), caller, client)
        raise InvalidRequest(f"{row.name} is not played here.", code=ErrorCode.UNSUPPORTED_HERE, hint="Ask glixd.")

    def attach(self, client: Any) -> None:
        self.clients.append(client)

    def detach(self, client: Any) -> None:
        self.clients.remove(client)
        for watchers in self.watchers.values():
            if client in watchers:
                watchers.remove(client)

    def observe(self, observer: Any) -> None:
        self.observers.append(observer)

    def visible(self, caller: Caller) -> list[api.Transaction]:
        return [transaction for transaction in self.transactions.values() if transaction.uid == caller.uid]

    # -- what a test makes happen ----------------------------------------------------------------------------------

    def move(self, transaction: str, state: State) -> None:
        """Bring a transaction into a state and tell everybody."""
        self.transactions[transaction] = self.transactions[transaction].model_copy(update={"state": state.value})
        self.say(api.ProgressEvent(transaction=transaction, state=state.value, percent=50.0, lines=("a line",)))
        for observer in self.observers:
            observer.state_changed(transaction, state)
        self._moved.set()
        self._moved = asyncio.Event()

    def say(self, event: api.ProgressEvent) -> None:
        """Offer an event to the watchers; what one refuses is kept in `refused_events`."""
        for client in self.watchers.get(event.transaction, []):
            if not client.progress(event):
                self.refused_events.append(event)

    def change(self, host: str) -> None:
        """Say that the manifest of a host changed."""
        for client in self.clients:
            client.changed(host)
        for observer in self.observers:
            observer.changed(host)

    def forget(self, transaction: str) -> None:
        """Drop a transaction from the history."""
        del self.transactions[transaction]
        for observer in self.observers:
            observer.removed(transaction)

    # -- operations ------------------------------------------------------------------------------------------------

    def _host(self, number: int) -> api.Host:
        return api.Host(name=f"laptop{number or ''}", packages=3, enabled=2, health=HEALTH)

    def _show(self, parameters: api.ShowParameters) -> api.Value:
        if parameters.name == "defect":
            raise RuntimeError("a secret of the implementation")
        if parameters.name == "firefox":
            return api.PackageDetails(
                host="laptop",
                name="firefox",
                scope="home",
                enabled=True,
                flake="nixpkgs#firefox",
                follows=True,
                config={"theme": "dark"},
                health=HEALTH,
            )
        raise NotFound(
            f"{parameters.name} is not installed.",
            code=ErrorCode.NOT_INSTALLED,
            hint="List shows what is.",
            details={"name": parameters.name, "closest": ["firefox"], "count": 1, "certain": False},
        )

    def _found(self, transaction: str, caller: Caller) -> api.Transaction:
        found = self.transactions.get(transaction)
        if found is None or caller.uid not in (0, found.uid):
            raise NotFound(f"There is no transaction {transaction}.", code=ErrorCode.UNKNOWN_TRANSACTION)
        return found

    def _watch(self, transaction: str, client: Any) -> None:
        watchers = self.watchers.setdefault(transaction, [])
        if client not in watchers:
            watchers.append(client)

    async def _wait(self, parameters: api.WaitParameters, caller: Caller) -> api.Transaction:
        self.pending_waits += 1
        try:
            while not State((found := self._found(parameters.transaction, caller)).state).final:
                await self._moved.wait()
            return found
        finally:
            self.pending_waits -= 1

    def _add(self, parameters: api.AddParameters, caller: Caller, client: Any) -> api.Started:
        identity = f"01j{len(self.transactions):023d}"
        self.transactions[identity] = api.Transaction(
            id=identity,
            operation="Add",
            host=parameters.host or "laptop",
            state=State.QUEUED.value,
            uid=caller.uid,
            login=caller.login,
            created="2026-01-01T00:00:00Z",
            dry_run=parameters.dry_run,
        )
        self._watch(identity, client)
        for observer in self.observers:
            observer.added(identity, State.QUEUED)
        return api.Started(transaction=identity)
