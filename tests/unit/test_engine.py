# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions as the engine shows them: to whom they belong, and to the last event whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from glixd import api, audit
from glixd.api import Caller, Policy, ProgressEvent
from glixd.backends.state import Database
from glixd.engine import Engine
from glixd.errors import InvalidRequest, NotAllowed, NotFound
from glixd.garbage import Errand
from glixd.model.change import Collect
from glixd.model.generations import Rule
from glixd.parts import Parts
from glixd.policy import Check, Target
from glixd.protocol import ErrorCode, State
from glixd.queue import Queue, Ticket
from glixd.rates import Rates
from glixd.requests.values import Part, Prepared, digest_of
from glixd.transaction import Result
from glixd.watchers import Watchers
from tests.support.loop import PATIENCE, on_loop, until

ALICE = Caller(1000, "alice", "socket:1")
BOB = Caller(1001, "bob", "socket:2")
UNKNOWN = "0" * 26


@dataclass
class Doorkeeper:
    """An authority that notes what it is asked, refuses what it was told to, and lets something happen meanwhile."""

    asked: list[str] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def authorise(self, caller: Caller, checks: Sequence[Check], *, interactive: bool) -> None:
        self.asked += [check.action.rpartition(".")[2] for check in checks]
        if self.meanwhile:
            await self.meanwhile()
        if self.refused & set(self.asked):
            raise NotAllowed(f"uid {caller.uid} may not do that.")


@dataclass(eq=False)
class Reader:
    """A client that reads, or does not."""

    slow: bool = False
    states: list[str] = field(default_factory=list)

    def progress(self, event: ProgressEvent) -> bool:
        if not self.slow:
            self.states.append(event.state)
        return not self.slow

    def changed(self, host: str) -> None:
        """Nothing: nothing is changed here."""

    def staged(self, host: str) -> None:
        """Nothing: nothing is staged here."""


@dataclass
class World:
    """An engine with one transaction of alice under way, and no repository: none is looked at."""

    engine: Engine
    parts: Parts
    doorkeeper: Doorkeeper
    ticket: Ticket

    async def ask(self, operation: str, caller: Caller, client: Reader, identifier: str | None = None) -> Any:
        row = api.operation(operation)
        asked = api.parse(row, {"transaction": identifier or self.ticket.id})
        return await self.engine.call(row, asked, caller, client)

    async def end(self) -> None:
        """Let the transaction end as the engine does it: recorded, gone from the queue, then told."""
        if self.parts.queue.get(self.ticket.id):
            record = self.ticket.record().model_copy(update={"state": State.SUCCEEDED})
            self.parts.database.save(record)
            self.parts.queue.leave(self.ticket)
            self.ticket.state = State.SUCCEEDED
            self.parts.watchers.progress(ProgressEvent(transaction=self.ticket.id, state=State.SUCCEEDED))
            self.ticket.ended.set()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    nowhere = cast(Any, None)
    doorkeeper, queue, database = Doorkeeper(), Queue(), Database(folder / "state.db")
    parts = Parts(
        repository=nowhere,
        queries=nowhere,
        doctor=nowhere,
        preparer=nowhere,
        transactor=nowhere,
        culprits=nowhere,
        collector=nowhere,
        rebuilder=nowhere,
        activation=nowhere,
        generations=nowhere,
        profile=nowhere,
        logs=nowhere,
        locker=nowhere,
        queue=queue,
        health=nowhere,
        housekeeper=nowhere,
        indexer=nowhere,
        searcher=nowhere,
        database=database,
        authority=doorkeeper,
        watchers=Watchers(),
        rates=Rates(),
        bundles=nowhere,
        uploads=nowhere,
        build_repository=nowhere,
        nix_of=nowhere,
        mode="user",
        default_host="laptop",
        branch="main",
        evaluate=False,
        rollback_on_failure=False,
        unattended="off",
    )
    row = api.operation("Add")
    parameters = cast(api.MutationParameters, api.parse(row, {"refs": ["firefox"]}))
    try:
        yield World(Engine(parts), parts, doorkeeper, queue.admit(row, parameters, ALICE))
    finally:
        queue.shut_down()
        database.close()


@on_loop
async def test_a_watcher_is_told_the_end(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        reader = Reader()
        it.engine.attach(reader)
        await it.ask("Watch", ALICE, reader)
        await it.end()
        assert reader.states == ["succeeded"]


@on_loop
async def test_who_watches_what_has_ended_is_told_the_end_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        reader = Reader()
        it.engine.attach(reader)
        await it.end()
        await it.ask("Watch", ALICE, reader)
        assert reader.states == ["succeeded"]


@on_loop
async def test_a_transaction_that_ends_while_a_watcher_is_authorised_is_told_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        reader = Reader()
        it.engine.attach(reader)
        it.doorkeeper.meanwhile = it.end
        await it.ask("Watch", ALICE, reader)
        assert reader.states == ["succeeded"]


@on_loop
async def test_a_slow_reader_learns_the_end_of_what_has_ended_when_it_reads_again(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        reader = Reader(slow=True)
        it.engine.attach(reader)
        await it.end()
        await it.ask("Watch", ALICE, reader)
        assert reader.states == []
        reader.slow = False
        await until(lambda: reader.states == ["succeeded"])


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("GetTransaction", "transaction-read-other"),
        ("Watch", "transaction-read-other"),
        ("Unwatch", "transaction-read-other"),
        ("Wait", "transaction-read-other"),
        ("Cancel", "transaction-cancel-other"),
    ],
)
@on_loop
async def test_a_transaction_of_somebody_else_needs_an_action_and_ones_own_does_not(
    tmp_path: Path, operation: str, action: str
) -> None:
    async with world(tmp_path) as it:
        it.doorkeeper.refused = frozenset({action})
        reader = Reader()
        it.engine.attach(reader)
        with pytest.raises(NotAllowed):
            await it.ask(operation, BOB, reader)
        assert it.doorkeeper.asked == [action]
        assert not it.ticket.cancellation.requested
        await it.end()
        assert reader.states == [], "who was refused is told nothing"
        it.doorkeeper.asked.clear()
        if operation != "Cancel":
            await it.ask(operation, ALICE, reader)
        assert it.doorkeeper.asked == []


@pytest.mark.parametrize("operation", ["GetTransaction", "Watch", "Unwatch", "Wait", "Cancel"])
@on_loop
async def test_a_transaction_that_nobody_started_is_not_known(tmp_path: Path, operation: str) -> None:
    async with world(tmp_path) as it:
        with pytest.raises(NotFound) as caught:
            await it.ask(operation, ALICE, Reader(), UNKNOWN)
        assert caught.value.code is ErrorCode.UNKNOWN_TRANSACTION


@on_loop
async def test_root_and_the_owner_see_a_transaction_and_nobody_else_does(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        assert [record.id for record in it.engine.visible(ALICE)] == [it.ticket.id]
        assert [record.id for record in it.engine.visible(Caller(0, "root", "socket:3"))] == [it.ticket.id]
        assert it.engine.visible(BOB) == []
        await it.end()
        assert it.engine.visible(BOB) == []


class SlowQueries:
    """Questions that are answered when the test says so, and one that needs no time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0

    def info(self) -> api.Value:
        self.asked += 1
        assert self.go.wait(PATIENCE)
        return api.Empty()

    def hosts(self) -> api.Value:
        return api.Hosts(hosts=())


@on_loop
async def test_a_lookup_does_not_wait_behind_slow_questions(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        slow = SlowQueries()
        engine = Engine(replace(it.parts, queries=cast(Any, slow)))
        info, hosts = api.operation("Info"), api.operation("ListHosts")
        nothing = api.parse(info, {})
        asked = [asyncio.create_task(engine.call(info, nothing, ALICE, Reader())) for _ in range(20)]
        await until(lambda: slow.asked > 0)
        assert await asyncio.wait_for(engine.call(hosts, nothing, BOB, Reader()), PATIENCE) == api.Hosts(hosts=())
        assert not any(task.done() for task in asked)
        slow.go.set()
        await asyncio.gather(*asked)


@on_loop
async def test_who_asks_too_often_is_refused_and_lookups_and_others_are_not(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        slow = SlowQueries()
        slow.go.set()
        engine = Engine(replace(it.parts, queries=cast(Any, slow), rates=Rates(1, 3, clock=lambda: 0.0)))
        info, hosts, add = api.operation("Info"), api.operation("ListHosts"), api.operation("Add")
        nothing = api.parse(info, {})
        for _ in range(3):
            await engine.call(info, nothing, ALICE, Reader())
        for row, parameters in ((info, nothing), (add, api.parse(add, {"refs": ["firefox"]}))):
            with pytest.raises(InvalidRequest) as refused:
                await engine.call(row, parameters, ALICE, Reader())
            assert refused.value.code is ErrorCode.LIMIT_EXCEEDED
        with pytest.raises(InvalidRequest):
            engine.visible(ALICE)
        await engine.call(hosts, nothing, ALICE, Reader())
        await engine.call(info, nothing, BOB, Reader())


def test_lookups_are_queries_and_all_else_is_counted() -> None:
    lookups = {row.name for row in api.OPERATIONS.values() if row.lookup}
    assert {"Ping", "Wait", "Cancel", "List"} <= lookups
    assert not {"Search", "Resolve", "Doctor", "Diff"} & lookups
    assert all(api.OPERATIONS[name].kind is api.Kind.QUERY for name in lookups)


# -- what is authorised is what is carried out -------------------------------------------------------------------


@dataclass
class Judge(Doorkeeper):
    """The same about actions alone; whoever asks for none, or is root, is let through unasked."""

    async def authorise(self, caller: Caller, checks: Sequence[Check], *, interactive: bool) -> None:
        if checks and caller.uid:
            await super().authorise(caller, checks, interactive=interactive)


@dataclass
class Collecting:
    """Prepares and collects garbage of nothing, and keeps what it was told to carry out."""

    prepared: Prepared = field(default_factory=lambda: _prepared(3))
    carried: list[Any] = field(default_factory=list)

    def prepare(self, *_: object) -> Prepared:
        return self.prepared

    def run(self, errand: Errand) -> Result:
        self.carried.append(errand.request)
        return Result(api.Outcome(summary="nothing to collect", changed=False))


class Idle:
    """Background jobs that have nothing to do."""

    def consider(self) -> None:
        """Nothing."""

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        yield


def _prepared(keep: int) -> Prepared:
    request = Collect("laptop", Rule(keep, None, False))
    return Prepared(request, (Part(Policy.GARBAGE, (Target(f"keep={keep}"),)),), digest_of("CollectGarbage", request))


async def collected(it: World, judge: Judge, collecting: Collecting, caller: Caller = ALICE) -> api.Transaction:
    """A transaction that collects garbage, when it has ended."""
    idle = cast(Any, Idle())
    doubles = cast(Any, collecting)
    parts = replace(it.parts, preparer=doubles, collector=doubles, authority=judge)
    parts = replace(parts, health=idle, housekeeper=idle, indexer=idle)
    engine = Engine(parts)
    row = api.operation("CollectGarbage")
    started = await engine.call(row, api.parse(row, {"keep": 3}), caller, Reader())
    assert isinstance(started, api.Started)
    wait = api.operation("Wait")
    ended = await engine.call(wait, api.parse(wait, {"transaction": started.transaction}), caller, Reader())
    assert isinstance(ended, api.Transaction)
    return ended


@on_loop
async def test_what_was_authorised_is_carried_out(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        judge = Judge()
        collecting = Collecting()
        ended = await collected(it, judge, collecting)
        assert (ended.state, ended.error) == (State.SUCCEEDED, None)
        assert judge.asked == ["garbage-collect"]
        assert collecting.carried == [collecting.prepared.request]


@on_loop
async def test_a_request_that_is_another_one_after_it_was_authorised_is_not_carried_out(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        judge = Judge()
        collecting = Collecting()

        async def exchange() -> None:
            object.__setattr__(collecting.prepared, "request", _prepared(1).request)

        judge.meanwhile = exchange
        ended = await collected(it, judge, collecting)
        assert ended.state == State.FAILED
        assert ended.error is not None
        assert ended.error.name == ErrorCode.NOT_AUTHORISED
        assert collecting.carried == []


@on_loop
async def test_what_is_refused_is_not_carried_out(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        judge = Judge()
        judge.refused = frozenset({"garbage-collect"})
        collecting = Collecting()
        ended = await collected(it, judge, collecting)
        assert ended.error is not None
        assert (ended.state, ended.error.name) == (State.FAILED, ErrorCode.NOT_AUTHORISED)
        assert collecting.carried == []


@on_loop
async def test_a_defect_of_whoever_decides_lets_nobody_through(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        judge = Judge()

        async def fail() -> None:
            raise RuntimeError("out of order")

        judge.meanwhile = fail
        collecting = Collecting()
        ended = await collected(it, judge, collecting)
        assert ended.error is not None
        assert (ended.state, ended.error.name) == (State.FAILED, ErrorCode.INTERNAL)
        assert collecting.carried == []


@on_loop
async def test_cancelling_a_transaction_takes_its_question_back(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        judge = Judge()
        asked, taken_back = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                taken_back.set()

        judge.meanwhile = wait
        collecting = Collecting()
        transaction = asyncio.create_task(collected(it, judge, collecting))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        [ticket] = [ticket for ticket in it.parts.queue.tickets if ticket.row.name == "CollectGarbage"]
        assert ticket.state is State.WAITING_FOR_AUTHORISATION
        ticket.cancellation.request()
        assert (await transaction).state == State.CANCELLED
        assert taken_back.is_set()
        assert collecting.carried == []


@on_loop
async def test_each_decision_and_each_end_is_one_event_with_the_same_fields(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        judge = Judge()
        caller = replace(ALICE, login="al\nice")
        with structlog.testing.capture_logs() as events:
            allowed = await collected(it, judge, Collecting(), caller)
            judge.refused = frozenset({"garbage-collect"})
            refused = await collected(it, judge, Collecting(_prepared(2)), caller)
        decisions = [event for event in events if event.get("message_id") == audit.DECIDED]
        ends = [event for event in events if event.get("message_id") == audit.DONE]
        assert [event["transaction"] for event in decisions] == [allowed.id, refused.id]
        assert [event["transaction"] for event in ends] == [allowed.id, refused.id]
        assert [event["result"] for event in decisions] == ["allowed", "refused"]
        assert [event["result"] for event in ends] == ["succeeded", "failed"]
        for event in (*decisions, *ends):
            assert {"transaction", "uid", "login", "host", "operation", "result", "digest"} <= event.keys()
            assert (event["uid"], event["login"], event["operation"]) == (1000, "al\nice", "CollectGarbage")
