# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue: who gets in, who shares a place, and that one goes after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from glixd import api
from glixd.api import Caller, Kind
from glixd.errors import Cancelled, Failed, GlixError, Refused
from glixd.protocol import MAX_PENDING, MAX_PENDING_PER_UID, ErrorCode, State
from glixd.queue import ALPHABET, JOINABLE, LOG_LINES, TOGETHER, Entry, Queue, Ticket, error_info, now
from tests.support.loop import on_loop, until

ALICE = Caller(uid=1000, login="alice", address="socket:1")
BOB = Caller(uid=1001, login="bob", address="socket:2")
ROOT = Caller(uid=0, login="root", address="socket:3")


@asynccontextmanager
async def queue(pending: int = MAX_PENDING, pending_per_uid: int = MAX_PENDING_PER_UID) -> AsyncIterator[Queue]:
    built = Queue(pending=pending, pending_per_uid=pending_per_uid)
    try:
        yield built
    finally:
        built.shut_down()


def asked(operation: str, **arguments: object) -> tuple[api.Operation, api.MutationParameters]:
    row = api.operation(operation)
    return row, cast(api.MutationParameters, api.parse(row, arguments))


def add(built: Queue, *refs: str, caller: Caller = ALICE) -> Ticket:
    return built.admit(*asked("Add", refs=refs or ("firefox",)), caller)


def refused(built: Queue, caller: Caller) -> GlixError:
    with pytest.raises(GlixError) as caught:
        add(built, caller=caller)
    assert caught.value.code is ErrorCode.LIMIT_EXCEEDED
    return caught.value


# -- limits ------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_uid_may_have_eight_under_way_whatever_its_connections_are() -> None:
    async with queue() as built:
        for number in range(MAX_PENDING_PER_UID):
            add(built, caller=replace(ALICE, address=f"socket:{number}"))
        error = refused(built, replace(ALICE, address=":1.99"))
        assert "uid 1000 has 8" in error.message
        assert error.hint
        add(built, caller=BOB)
        assert len(built) == MAX_PENDING_PER_UID + 1


@on_loop
async def test_a_place_is_free_again_when_a_transaction_has_ended() -> None:
    async with queue(pending_per_uid=1) as built:
        ticket = add(built)
        refused(built, ALICE)
        built.leave(ticket)
        built.leave(ticket)
        add(built)


@on_loop
async def test_all_callers_together_have_a_limit_and_root_a_reserve_beyond_it() -> None:
    async with queue() as built:
        for number in range(MAX_PENDING):
            add(built, caller=replace(ALICE, uid=2000 + number // MAX_PENDING_PER_UID))
        assert f"{MAX_PENDING} transactions" in refused(built, BOB).message
        for _ in range(MAX_PENDING_PER_UID):
            add(built, caller=ROOT)
        refused(built, ROOT)
        assert len(built) == MAX_PENDING + MAX_PENDING_PER_UID


@on_loop
async def test_roots_reserve_is_not_open_to_others_while_root_waits() -> None:
    async with queue(pending=2, pending_per_uid=2) as built:
        add(built, caller=ROOT)
        add(built, caller=ROOT)
        refused(built, ALICE)


@on_loop
async def test_a_queue_that_closes_admits_nobody() -> None:
    async with queue() as built:
        built.close()
        for caller in (ALICE, ROOT):
            with pytest.raises(Failed) as caught:
                add(built, caller=caller)
            assert caught.value.code is ErrorCode.BUSY


# -- joining -----------------------------------------------------------------------------------------------------


def test_only_what_is_the_same_when_done_twice_can_be_joined() -> None:
    mutations = {row.name for row in api.OPERATIONS.values() if row.kind is Kind.MUTATION}
    assert mutations >= JOINABLE >= {"Add", "Remove", "Enable", "Disable"}
    assert JOINABLE.isdisjoint({"Init", "Rollback", "Apply", "Adopt", "Rebuild"})


@on_loop
async def test_an_identical_request_joins_the_last_one() -> None:
    async with queue() as built:
        ticket = add(built)
        assert built.join(*asked("Add", refs=["firefox"]), ALICE) is ticket
        assert built.join(*asked("Add", refs=["firefox"], host=None), replace(ALICE, address=":1.5")) is ticket
        assert len(built) == 1


@on_loop
async def test_a_request_that_differs_in_anything_does_not_join() -> None:
    async with queue() as built:
        add(built)
        assert built.join(*asked("Add", refs=["git"]), ALICE) is None
        assert built.join(*asked("Add", refs=["firefox"], dry_run=True), ALICE) is None
        assert built.join(*asked("Add", refs=["firefox"], host="laptop"), ALICE) is None
        assert built.join(*asked("Add", refs=["firefox"], evaluate=False), ALICE) is None
        assert built.join(*asked("Add", refs=["firefox"], interactive=True), ALICE) is None
        assert built.join(*asked("Add", refs=["firefox"], reason="why"), ALICE) is None
        assert built.join(*asked("Remove", names=["firefox"]), ALICE) is None


@on_loop
async def test_nobody_joins_the_transaction_of_another_uid() -> None:
    async with queue() as built:
        add(built)
        assert built.join(*asked("Add", refs=["firefox"]), BOB) is None
        assert built.join(*asked("Add", refs=["firefox"]), ROOT) is None


@on_loop
async def test_only_the_last_request_can_be_joined() -> None:
    async with queue() as built:
        add(built)
        built.admit(*asked("Remove", names=["firefox"]), ALICE)
        assert built.join(*asked("Add", refs=["firefox"]), ALICE) is None


@on_loop
async def test_init_is_never_joined() -> None:
    async with queue() as built:
        built.admit(*asked("Init"), ALICE)
        assert built.join(*asked("Init"), ALICE) is None


@on_loop
async def test_what_runs_has_ended_or_is_cancelled_can_not_be_joined() -> None:
    async with queue() as built:
        ticket = add(built)
        for state in (State.WAITING_FOR_AUTHORISATION, State.QUEUED):
            ticket.state = state
            assert built.join(*asked("Add", refs=["firefox"]), ALICE) is ticket
        ticket.state = State.RUNNING
        assert built.join(*asked("Add", refs=["firefox"]), ALICE) is None
        ticket.state = State.QUEUED
        ticket.cancellation.request()
        assert built.join(*asked("Add", refs=["firefox"]), ALICE) is None
        other = add(built)
        built.leave(other)
        assert built.join(*asked("Add", refs=["firefox"]), ALICE) is None


# -- ids ---------------------------------------------------------------------------------------------------------


@on_loop
async def test_ids_are_ulids_in_lower_case_that_rise_also_within_a_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    async with queue(pending=5000, pending_per_uid=5000) as built:
        ids = [add(built).id for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert all(api.TRANSACTION_ID.fullmatch(identifier) for identifier in ids)
    moment = 0
    for character in ids[0][:10]:
        moment = moment * 32 + ALPHABET.index(character)
    assert before <= moment <= time.time_ns() // 1_000_000
    assert len({identifier[10:] for identifier in ids}) == len(ids)


def test_the_alphabet_is_crockfords() -> None:
    assert len(set(ALPHABET)) == 32
    assert set("ilou").isdisjoint(ALPHABET)
    assert list(ALPHABET) == sorted(ALPHABET)


# -- running -----------------------------------------------------------------------------------------------------


@on_loop
async def test_transactions_run_one_at_a_time_in_order_of_arrival() -> None:
    gate, running, order, most = threading.Event(), [0], list[str](), [0]

    def work(name: str) -> str:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gate.wait()
        order.append(name)
        running[0] -= 1
        return name

    async with queue() as built:
        tickets = [add(built, name) for name in "abcde"]
        tasks = [
            asyncio.create_task(built.run(Entry(ticket, partial(work, name), lambda: None)))
            for ticket, name in zip(tickets, "abcde", strict=True)
        ]
        await until(lambda: running[0] == 1)
        gate.set()
        assert await asyncio.gather(*tasks) == list("abcde")
    assert order == list("abcde")
    assert most == [1]


@on_loop
async def test_work_does_not_hold_up_the_event_loop() -> None:
    gate = threading.Event()
    async with queue() as built:
        task = asyncio.create_task(built.run(Entry(add(built), gate.wait, lambda: None)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        assert await task is True


@on_loop
async def test_what_was_cancelled_while_it_waited_never_starts() -> None:
    started: list[str] = []
    async with queue() as built:
        ticket = add(built)
        ticket.cancellation.request()
        with pytest.raises(Cancelled):
            await built.run(Entry(ticket, lambda: started.append("work"), lambda: started.append("told")))
        assert await built.run(Entry(add(built, "next"), lambda: "done", lambda: None)) == "done"
    assert started == []


@on_loop
async def test_work_that_fails_leaves_the_turn_to_the_next() -> None:
    def fail() -> None:
        raise Refused("No.")

    async with queue() as built:
        with pytest.raises(Refused):
            await built.run(Entry(add(built), fail, lambda: None))
        assert await built.run(Entry(add(built, "next"), lambda: 7, lambda: None)) == 7


# -- sharing a commit point --------------------------------------------------------------------------------------


class Shop:
    """Does the work of a queue, behind a gate; says what was done alone and what together."""

    def __init__(self, built: Queue, outcome: Callable[[str], Any] = str.upper) -> None:
        self.built = built
        self.gate = threading.Event()
        self.done: list[str | tuple[str, ...]] = []
        self.outcome = outcome

    def start(self, name: str, *, shares: bool = True, ticket: Ticket | None = None) -> asyncio.Task[str]:
        entry: Entry[str] = Entry(
            ticket or add(self.built, name, caller=ROOT),
            partial(self.alone, name),
            lambda: None,
            job=name,
            together=self.together if shares else None,
        )
        return asyncio.create_task(self.built.run(entry))

    def alone(self, name: str) -> str:
        self.gate.wait()
        self.done.append(name)
        outcome = self.outcome(name)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    def together(self, names: Sequence[str]) -> list[Any]:
        self.done.append(tuple(names))
        return [self.outcome(name) for name in names]


@on_loop
async def test_what_waits_behind_each_other_is_done_together_and_each_hears_its_own_outcome() -> None:
    async with queue(MAX_PENDING, MAX_PENDING) as built:
        shop = Shop(built, lambda name: Refused("No.") if name == "c" else name.upper())
        tasks = [shop.start(name) for name in "abcd"]
        await asyncio.sleep(0)
        shop.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert shop.done == ["a", ("b", "c", "d")]
    assert [outcome if isinstance(outcome, str) else type(outcome) for outcome in outcomes] == ["A", "B", Refused, "D"]


@on_loop
async def test_what_can_not_share_is_done_alone_and_in_its_order() -> None:
    async with queue(MAX_PENDING, MAX_PENDING) as built:
        shop = Shop(built)
        tasks = [shop.start(name, shares=name not in "cf") for name in "abcdefg"]
        await asyncio.sleep(0)
        shop.gate.set()
        assert await asyncio.gather(*tasks) == list("ABCDEFG")
    assert shop.done == ["a", "b", "c", ("d", "e"), "f", "g"]


@on_loop
async def test_so_many_share_at_most() -> None:
    async with queue(3 * TOGETHER, 3 * TOGETHER) as built:
        shop = Shop(built)
        names = [f"p{number}" for number in range(2 * TOGETHER)]
        tasks = [shop.start(name) for name in names]
        await asyncio.sleep(0)
        shop.gate.set()
        await asyncio.gather(*tasks)
    assert shop.done == [names[0], tuple(names[1 : TOGETHER + 1]), tuple(names[TOGETHER + 1 :])]


@on_loop
async def test_what_was_cancelled_while_it_waited_is_left_out() -> None:
    async with queue(MAX_PENDING, MAX_PENDING) as built:
        shop = Shop(built)
        ticket = add(built, "c", caller=ROOT)
        tasks = [shop.start(name, ticket=ticket if name == "c" else None) for name in "abcd"]
        await asyncio.sleep(0)
        ticket.cancellation.request()
        shop.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert shop.done == ["a", ("b", "d")]
    assert isinstance(outcomes[2], Cancelled)


@pytest.mark.parametrize("stop", [Refused("The branch moved."), ZeroDivisionError()])
@on_loop
async def test_where_it_does_not_go_together_each_gets_its_own_chance(stop: Exception) -> None:
    class Stopped(Shop):
        def together(self, names: Sequence[str]) -> list[Any]:
            self.done.append(tuple(names))
            raise stop

    async with queue(MAX_PENDING, MAX_PENDING) as built:
        shop = Stopped(built)
        tasks = [shop.start(name) for name in "abc"]
        await asyncio.sleep(0)
        shop.gate.set()
        assert await asyncio.gather(*tasks) == list("ABC")
    assert shop.done == ["a", ("b", "c"), "b", "c"]


@on_loop
async def test_nothing_is_done_twice_that_has_passed_its_commit_point() -> None:
    async with queue(MAX_PENDING, MAX_PENDING) as built:
        tickets = {name: add(built, name, caller=ROOT) for name in "abc"}

        class Passed(Shop):
            def together(self, names: Sequence[str]) -> list[Any]:
                self.done.append(tuple(names))
                tickets[names[0]].commit = "1" * 40
                raise ZeroDivisionError

        shop = Passed(built)
        tasks = [shop.start(name, ticket=ticket) for name, ticket in tickets.items()]
        await asyncio.sleep(0)
        shop.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert shop.done == ["a", ("b", "c")]
    assert [type(outcome) for outcome in outcomes] == [str, ZeroDivisionError, ZeroDivisionError]


# -- tickets -----------------------------------------------------------------------------------------------------


@on_loop
async def test_a_ticket_is_found_while_it_is_under_way() -> None:
    async with queue() as built:
        first, second = add(built), add(built)
        assert built.get(first.id) is first
        assert built.tickets == [first, second]
        built.leave(first)
        assert built.get(first.id) is None
        assert built.tickets == [second]


@on_loop
async def test_a_record_says_what_is_known_and_no_step_after_the_end() -> None:
    async with queue() as built:
        row, parameters = asked("Add", refs=["firefox"], host="laptop", dry_run=True, reason="for work")
        ticket = built.admit(row, parameters, ALICE)
        ticket.step = "locking the inputs"
        record = ticket.record()
        assert (record.operation, record.host, record.dry_run, record.reason) == ("Add", "laptop", True, "for work")
        assert (record.uid, record.login, record.state) == (1000, "alice", "preparing")
        assert record.step == "locking the inputs"
        ticket.state = State.FAILED
        ticket.error = Refused("No.", hint="Do not.", details={"name": "x", "closest": ["y"]})
        record = ticket.record()
        assert record.step is None
        assert record.error == error_info(ticket.error)
        assert record.error is not None
        assert (record.error.name, record.error.code, record.error.hint) == ("Conflict", -32022, "Do not.")


@on_loop
async def test_a_log_keeps_its_last_lines() -> None:
    async with queue() as built:
        ticket = add(built)
        ticket.log.extend(str(number) for number in range(LOG_LINES + 10))
        assert len(ticket.record().log) == LOG_LINES
        assert ticket.record().log[0] == "10"


def test_times_are_in_utc() -> None:
    assert time.strptime(now(), "%Y-%m-%dT%H:%M:%SZ")
