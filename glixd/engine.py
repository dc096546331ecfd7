# SPDX-License-Identifier: GPL-3.0-or-later
"""Every request passes here: authorise, then answer it, or resolve it and carry it through the queue as a transaction."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from functools import partial
from typing import Final, cast

from glixd import api, audit, policy
from glixd.answers import Answers
from glixd.api import Caller, Kind
from glixd.errors import Cancelled, GlixError
from glixd.herald import Herald
from glixd.lanes import Lanes
from glixd.log import get_logger
from glixd.parts import Parts
from glixd.protocol import State
from glixd.queue import Ticket, now
from glixd.rebuilding.activation import Abandoned
from glixd.recovery import Recovery
from glixd.requests.values import Prepared, to_authorise
from glixd.threads import Gathering, Threads
from glixd.transaction import Result
from glixd.watchers import Client, Observer

log = get_logger()

POLL: Final = 0.2
"""Seconds between two looks at what another process writes."""
VISIBLE: Final = 100
"""Ended transactions that stay visible as objects on the bus."""


class Engine:
    """The one way from a front-end to the repository. Lives on the event loop; work runs on threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._herald = Herald(parts.watchers, parts.logs)
        self._readers = Threads(4, "reader")
        self._records: Gathering[api.Transaction] = Gathering("record", parts.database.save)
        self._preparers = Threads(4, "preparer")
        self._lanes = Lanes(parts, self._herald, self._records, self._committed)
        self._answers = Answers(parts, self._readers)
        self._lookup_threads = Threads(2, "lookup")
        self._lookups = Answers(parts, self._lookup_threads)
        """Answers that never wait behind a slow question, or behind a request that asks the network."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._recovery = Recovery(parts)
        self._unsettled: list[api.Transaction] = []
        """Transactions of an earlier daemon whose activation still runs."""
        self._stopping = False

    # -- what front-ends use -------------------------------------------------------------------------------------

    async def call(self, row: api.Operation, parameters: api.Parameters, caller: Caller, client: Client) -> api.Value:
        """Carry a validated request out; raises a GlixError. A mutation answers as soon as it is accepted."""
        if not row.lookup:
            self._parts.rates.take(caller.uid)
        self._calls += 1
        try:
            if row.kind is Kind.MUTATION:
                return await self._accept(row, cast(api.MutationParameters, parameters), caller, client)
            answers = self._lookups if row.lookup else self._answers
            return await answers.answer(row, parameters, caller, client)
        finally:
            self._calls -= 1

    def attach(self, client: Client) -> None:
        """A connection came."""
        self._parts.watchers.attach(client)

    def detach(self, client: Client) -> None:
        """A connection went; its transactions go on."""
        self._parts.watchers.detach(client)

    def observe(self, observer: Observer) -> None:
        """Tell a transport what everybody may know."""
        self._parts.watchers.observe(observer)

    def visible(self, caller: Caller) -> list[api.Transaction]:
        """The transactions that a caller sees without being asked for more: one's own, and all for root."""
        self._parts.rates.take(caller.uid)
        running = [ticket.record() for ticket in self._parts.queue.tickets]
        known = {record.id for record in running}
        mine = None if caller.uid == 0 else (caller.uid,)
        ended = [record for record in self._parts.database.recent((), VISIBLE, mine) if record.id not in known]
        return [record for record in (*running, *ended) if caller.uid in (0, record.uid)]

    @property
    def busy(self) -> bool:
        """Whether anything is under way that a stop would cut short."""
        background = (self._parts.health, self._parts.indexer, self._parts.housekeeper)
        return bool(self._calls or len(self._parts.queue) or self._tasks or any(one.busy for one in background))

    async def stop(self, patience: float) -> None:
        """Admit nothing more, stop what has not begun, and give what runs `patience` seconds to end."""
        self._stopping = True
        self._parts.queue.close()
        for ticket in self._parts.queue.tickets:
            if ticket.state is State.ACTIVATING:
                ticket.cancellation.abandon()  # what is activated may be what stops us: it can't wait for us too
            elif ticket.state is not State.RUNNING:
                ticket.cancellation.request()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=patience)
        for ticket in self._parts.queue.tickets:
            if not ticket.cancellation.request() and ticket.state is State.ACTIVATING:
                ticket.cancellation.abandon()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await asyncio.gather(self._parts.health.close(), self._parts.indexer.close(), self._parts.housekeeper.close())
        for threads in (self._preparers, self._lookup_threads, self._records, self._readers):
            threads.close()
        self._lanes.close()
        self._parts.queue.shut_down()

    def begin(self) -> None:
        """Begin with what is done in the background."""
        self._parts.indexer.consider()
        self._parts.housekeeper.consider()
        for record in self._unsettled:
            task = asyncio.get_running_loop().create_task(self._settle(record))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def recover(self) -> None:
        """Say how the transactions ended that an earlier daemon left in the middle; before the first request."""
        database = self._parts.database
        if database.lost:
            for record in self._recovery.remembered():
                database.save(record)
            database.found_again()
        for record in database.unfinished():
            if settled := self._recovery.settled(record):
                database.save(settled)
            else:
                self._unsettled.append(record)
        for record in database.recent((), 1):
            self._parts.queue.follow(record.id)
        database.prune(datetime.datetime.now(datetime.UTC))
        self._parts.logs.prune()

    async def _settle(self, record: api.Transaction) -> None:
        """Wait for an activation that outlived the daemon which began it, and say how it ended."""
        while not self._stopping:
            await asyncio.sleep(POLL)
            if settled := await self._records.run(self._recovery.settled, record):
                await self._records.add(settled)
                state = State(settled.state)
                self._parts.watchers.progress(api.ProgressEvent(transaction=settled.id, state=state))
                self._parts.watchers.state_changed(settled.id, state)
                return

    # -- mutations -----------------------------------------------------------------------------------------------

    async def _accept(
        self, row: api.Operation, parameters: api.MutationParameters, caller: Caller, client: Client
    ) -> api.Started:
        await self._parts.authority.authorise(caller, (), interactive=False)
        joined = self._parts.queue.join(row, parameters, caller)
        if joined:
            self._parts.watchers.watch(client, joined.id)
            return api.Started(transaction=joined.id)
        ticket = self._parts.queue.admit(row, parameters, caller)
        ticket.host = parameters.host or self._parts.default_host
        self._parts.watchers.watch(client, ticket.id)
        self._parts.watchers.added(ticket.id, ticket.state)
        task = asyncio.get_running_loop().create_task(self._carry(ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return api.Started(transaction=ticket.id)

    async def _carry(self, ticket: Ticket) -> None:
        """Take a transaction to its end; whatever happens becomes its result or its error."""
        logger = log.bind(transaction=ticket.id, uid=ticket.caller.uid, host=ticket.host, operation=ticket.row.name)
        try:
            _, prepared = await asyncio.gather(self._records.add(ticket.record()), self._prepare(ticket))
            await self._authorise(ticket, prepared)
            self._herald.state(ticket, State.QUEUED)
            result = await self._lanes.run(ticket, prepared)
            ticket.outcome, ticket.warnings = result.outcome, result.warnings
            end = State.SUCCEEDED
        except Abandoned:
            logger.info("left to the next daemon", state=ticket.state.value)
            return
        except Cancelled as error:
            ticket.error, end = error, State.CANCELLED
        except GlixError as error:
            ticket.error, end = error, State.FAILED
        except Exception:
            logger.exception("a transaction met a defect")
            ticket.error, end = _internal(ticket), State.FAILED
        await self._finish(ticket, end)

    async def _prepare(self, ticket: Ticket) -> Prepared:
        self._herald.step(ticket, "looking things up")
        with self._parts.health.giving_way():
            prepared = await self._preparers.run(
                self._parts.preparer.prepare, ticket.row, ticket.parameters, ticket.caller, ticket.cancellation
            )
        ticket.host, ticket.digest = prepared.request.host, prepared.digest
        return prepared

    async def _authorise(self, ticket: Ticket, prepared: Prepared) -> None:
        ticket.cancellation.check()
        self._herald.state(ticket, State.WAITING_FOR_AUTHORISATION)
        asked = to_authorise(
            ticket.row, prepared, ticket.id, skips_evaluation=self._parts.evaluate and not ticket.parameters.evaluate
        )
        checks: tuple[policy.Check, ...] = ()
        told = partial(
            audit.decided,
            ticket.caller,
            ticket.row.name,
            transaction=ticket.id,
            host=ticket.host,
            digest=prepared.digest,
        )
        try:
            checks = policy.all_checks(asked, ticket.caller)
            await self._allowed(ticket, checks)
        except GlixError as error:
            told([check.action for check in checks], error=error)
            raise
        told([check.action for check in checks])

    async def _allowed(self, ticket: Ticket, checks: Sequence[policy.Check]) -> None:
        """Return when the caller may; cancelling the transaction takes the question back."""
        question = self._parts.authority.authorise(ticket.caller, checks, interactive=ticket.parameters.interactive)
        asking = asyncio.get_running_loop().create_task(question)
        ticket.cancellation.follow(_Question(asking))
        try:
            await asking
        except asyncio.CancelledError:
            ticket.cancellation.check()
            raise
        finally:
            ticket.cancellation.follow(None)

    def _committed(self, ticket: Ticket, result: Result) -> None:
        """A change is committed, whatever becomes of it afterwards."""
        parts = self._parts
        parts.indexer.consider()
        for host in result.hosts:
            parts.watchers.changed(host)
        if result.commit and parts.evaluate and ticket.parameters.evaluate:
            parts.health.evaluate(result.hosts, result.commit)

    async def _finish(self, ticket: Ticket, end: State) -> None:
        """Record the end before anybody hears of it."""
        parts = self._parts
        ticket.finished = now()
        ticket.step = None
        record = ticket.record().model_copy(update={"state": end})
        try:
            await self._records.add(record)
        except Exception:
            log.exception("the end of a transaction could not be recorded", transaction=ticket.id)
        audit.done(record)
        parts.queue.leave(ticket)
        self._herald.state(ticket, end)
        ticket.ended.set()
        parts.housekeeper.consider()


class _Question:
    """A question of authorisation that is taken back when its transaction is cancelled, from any thread."""

    def __init__(self, asking: asyncio.Task[None]) -> None:
        self._asking = asking
        self._loop = asking.get_loop()

    def stop(self) -> None:
        """Ask no longer."""
        self._loop.call_soon_threadsafe(self._asking.cancel)


def _internal(ticket: Ticket) -> GlixError:
    return GlixError(
        "glixd met a defect of its own; the transaction ended.",
        hint=f"The journal has the rest: journalctl GLIX_TRANSACTION={ticket.id}",
        details={"transaction": ticket.id},
    )
