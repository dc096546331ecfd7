# SPDX-License-Identifier: GPL-3.0-or-later
"""Every request passes here: authorise, then answer it, or resolve it and carry it through the queue as a transaction."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import structlog

from glixd import api, policy
from glixd.api import Caller, Kind
from glixd.backends.repository import Repository
from glixd.backends.state import Database
from glixd.doctor import Doctor
from glixd.draft import Job
from glixd.errors import Cancelled, Failed, GlixError, NotAllowed, Refused
from glixd.garbage import Collector, Errand
from glixd.health import HealthKeeper
from glixd.indexing import Indexer
from glixd.initialise import make_repository
from glixd.locking import Locker
from glixd.model.change import Collect, Init, Request
from glixd.policy import Authority
from glixd.protocol import COMMIT, VERSION, ErrorCode, State, json_code
from glixd.queries import Queries, unknown_transaction
from glixd.queue import Queue, Ticket, now
from glixd.requests import Prepared, Preparer, to_authorise
from glixd.search import Searcher
from glixd.transaction import Result, Transactor
from glixd.watchers import Client, Observer, Watchers

log = structlog.get_logger()

Answer = TypeVar("Answer")
VISIBLE: Final = 100
"""Ended transactions that stay visible as objects on the bus."""
SEARCHED: Final = 1000
"""Commits among which recovery looks for that of a transaction."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine is made of; the daemon builds it once."""

    repository: Repository
    queries: Queries
    doctor: Doctor
    preparer: Preparer
    transactor: Transactor
    collector: Collector
    locker: Locker
    queue: Queue
    health: HealthKeeper
    indexer: Indexer
    searcher: Searcher
    database: Database
    authority: Authority
    watchers: Watchers
    build_repository: Callable[[Path], Repository]
    mode: str
    default_host: str
    branch: str
    evaluate: bool


class Engine:
    """The one way from a front-end to the repository. Lives on the event loop; work runs on threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="garbage")
        self._collecting = asyncio.Lock()
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="reader")
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = 0

    # -- what front-ends use -------------------------------------------------------------------------------------

    async def call(self, row: api.Operation, parameters: api.Parameters, caller: Caller, client: Client) -> api.Value:
        """Carry a validated request out; raises a GlixError. A mutation answers as soon as it is accepted."""
        self._calls += 1
        try:
            if row.kind is Kind.MUTATION:
                return await self._accept(row, cast(api.MutationParameters, parameters), caller, client)
            return await _ANSWERS[row.name](self, row, parameters, caller, client)
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
        running = [ticket.record() for ticket in self._parts.queue.tickets]
        known = {record.id for record in running}
        ended = [record for record in self._parts.database.recent((), VISIBLE) if record.id not in known]
        return [record for record in (*running, *ended) if caller.uid in (0, record.uid)]

    @property
    def busy(self) -> bool:
        """Whether anything is under way that a stop would cut short."""
        return bool(
            self._calls or len(self._parts.queue) or self._tasks or self._parts.health.busy or self._parts.indexer.busy
        )

    async def stop(self, patience: float) -> None:
        """Admit nothing more, stop what has not begun, and give what runs `patience` seconds to end."""
        self._parts.queue.close()
        for ticket in self._parts.queue.tickets:
            if ticket.state is not State.RUNNING:
                ticket.cancellation.request()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=patience)
        for ticket in self._parts.queue.tickets:
            ticket.cancellation.request()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await asyncio.gather(self._parts.health.close(), self._parts.indexer.close())
        self._readers.shutdown()
        self._aside.shutdown()
        self._parts.queue.shut_down()

    def begin(self) -> None:
        """Begin with what is done in the background."""
        self._parts.indexer.consider()

    def recover(self) -> None:
        """Say how the transactions ended that an earlier daemon left in the middle; before the first request."""
        for record in self._parts.database.unfinished():
            self._parts.database.save(self._settled(record))
        self._parts.database.prune(datetime.datetime.now(datetime.UTC))

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
            await self._in_thread(self._parts.database.save, ticket.record())
            prepared = await self._prepare(ticket)
            await self._authorise(ticket, prepared)
            self._set_state(ticket, State.QUEUED)
            result = await self._run_in_turn(ticket, prepared)
            ticket.outcome, ticket.warnings = result.outcome, result.warnings
            end = State.SUCCEEDED
        except Cancelled as error:
            ticket.error, end, result = error, State.CANCELLED, None
        except GlixError as error:
            ticket.error, end, result = error, State.FAILED, None
        except Exception:
            logger.exception("a transaction met a defect")
            ticket.error, end, result = _internal(ticket), State.FAILED, None
        await self._finish(ticket, end, result)
        logger.info(
            "transaction done",
            result=ticket.state.value,
            commit=ticket.commit,
            error=ticket.error.code.value if ticket.error else None,
            reason=ticket.error.message if ticket.error else None,
        )

    async def _run_in_turn(self, ticket: Ticket, prepared: Prepared) -> Result:
        """Do the work when it is its turn; what changes no file of the repository has a line of its own."""
        loop = asyncio.get_running_loop()

        def step(title: str) -> None:
            loop.call_soon_threadsafe(self._tell, ticket, title)

        started = partial(self._set_state, ticket, State.RUNNING)
        if isinstance(prepared.request, Collect):
            errand = Errand(prepared.request, ticket.parameters.dry_run, ticket.cancellation, step)
            async with self._collecting:
                started()
                return await loop.run_in_executor(self._aside, self._parts.collector.run, errand)
        return await self._parts.queue.run(
            ticket, partial(self._run, ticket, prepared, prepared.request, step), started
        )

    async def _prepare(self, ticket: Ticket) -> Prepared:
        self._tell(ticket, "looking things up")
        prepared = await self._in_thread(
            self._parts.preparer.prepare, ticket.row, ticket.parameters, ticket.caller, ticket.cancellation
        )
        ticket.host, ticket.digest = prepared.request.host, prepared.digest
        return prepared

    async def _authorise(self, ticket: Ticket, prepared: Prepared) -> None:
        ticket.cancellation.check()
        self._set_state(ticket, State.WAITING_FOR_AUTHORISATION)
        asked = to_authorise(
            ticket.row, prepared, ticket.id, skips_evaluation=self._parts.evaluate and not ticket.parameters.evaluate
        )
        await self._parts.authority.authorise(
            ticket.caller, policy.all_checks(asked, ticket.caller), interactive=ticket.parameters.interactive
        )

    def _run(self, ticket: Ticket, prepared: Prepared, request: Request, step: Callable[[str], None]) -> Result:
        """The work itself, on the worker thread; what it reports crosses back to the event loop."""

        def committed(commit: str) -> None:
            ticket.commit = commit

        parts = self._parts
        job = Job(
            id=ticket.id,
            request=request,
            digest=prepared.digest,
            caller=ticket.caller,
            branch=parts.branch,
            dry_run=ticket.parameters.dry_run,
            reason=ticket.parameters.reason,
            cancellation=ticket.cancellation,
            step=step,
            committed=committed,
        )
        if isinstance(request, Init) and not parts.repository.exists:
            return make_repository(
                parts.repository.root,
                request,
                job,
                parts.locker,
                parts.transactor.machine,
                parts.build_repository,
            )
        return parts.transactor.run(job)

    async def _finish(self, ticket: Ticket, end: State, result: Result | None) -> None:
        """Record the end before anybody hears of it."""
        parts = self._parts
        ticket.finished = now()
        ticket.step = None
        record = ticket.record().model_copy(update={"state": end})
        try:
            await self._in_thread(parts.database.save, record)
        except Exception:
            log.exception("the end of a transaction could not be recorded", transaction=ticket.id)
        parts.queue.leave(ticket)
        self._set_state(ticket, end)
        ticket.ended.set()
        if result and result.commit:
            parts.indexer.consider()
            for host in result.hosts:
                parts.watchers.changed(host)
            if parts.evaluate and ticket.parameters.evaluate:
                parts.health.evaluate(result.hosts, result.commit)

    def _set_state(self, ticket: Ticket, state: State) -> None:
        ticket.state = state
        self._parts.watchers.progress(api.ProgressEvent(transaction=ticket.id, state=state, step=ticket.step))
        self._parts.watchers.state_changed(ticket.id, state)

    def _tell(self, ticket: Ticket, title: str) -> None:
        if ticket.state.final:
            return
        ticket.step = title
        ticket.log.append(title)
        self._parts.watchers.progress(
            api.ProgressEvent(transaction=ticket.id, state=ticket.state, step=title, lines=(title,))
        )

    def _settled(self, record: api.Transaction) -> api.Transaction:
        """How a transaction ended whose daemon did not live to say so: by whether its commit is there."""
        commit = self._commit_of(record.id)
        if commit:
            return record.model_copy(
                update={"state": State.SUCCEEDED, "commit": commit, "finished": now(), "step": None}
            )
        error = api.ErrorInfo(
            code=json_code(ErrorCode.INTERRUPTED),
            name=ErrorCode.INTERRUPTED,
            message="The daemon ended in the middle of this transaction; nothing was changed.",
            hint="Do it again.",
        )
        return record.model_copy(update={"state": State.FAILED, "error": error, "finished": now(), "step": None})

    def _commit_of(self, transaction: str) -> str | None:
        try:
            entries = self._parts.repository.git.log(self._parts.repository.snapshot().commit, limit=SEARCHED)
        except GlixError:
            return None
        return next((entry.oid for entry in entries if entry.trailers.get("Glix-Transaction") == transaction), None)

    # -- queries -------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[..., Answer], *arguments: object) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(work, *arguments))

    async def _read(self, caller: Caller, work: Callable[..., Answer], *arguments: object) -> Answer:
        """Answer a question that everybody may ask whom the authority lets in at all."""
        await self._parts.authority.authorise(caller, (), interactive=False)
        return await self._in_thread(work, *arguments)

    async def _allowed(self, row: api.Operation, caller: Caller, identifier: str) -> api.Transaction:
        """A transaction that the caller may touch in the way of `row`."""
        record = await self._find(identifier)
        asked = policy.Request(row.policy, transaction=identifier, owner=record.uid)
        await self._parts.authority.authorise(caller, policy.checks(asked, caller), interactive=False)
        return record

    async def _find(self, identifier: str) -> api.Transaction:
        ticket = self._parts.queue.get(identifier)
        record = ticket.record() if ticket else await self._in_thread(self._parts.database.load, identifier)
        if record is None:
            raise unknown_transaction(identifier)
        return record

    async def ping(self, _row: api.Operation, _asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Say that we are here."""
        await self._parts.authority.authorise(caller, (), interactive=False)
        return api.PingResult(version=VERSION, commit=COMMIT)

    async def capabilities(self, _row: api.Operation, _asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Say what we are and can do."""
        await self._parts.authority.authorise(caller, (), interactive=False)
        return api.Capabilities(
            version=VERSION,
            commit=COMMIT,
            mode=self._parts.mode,
            repository=str(self._parts.repository.root),
            host=self._parts.default_host,
            operations=tuple(api.OPERATIONS),
            errors=tuple(ErrorCode),
        )

    async def hosts(self, _row: api.Operation, _asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List the hosts."""
        return await self._read(caller, self._parts.queries.hosts)

    async def packages(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List packages."""
        return await self._read(caller, self._parts.queries.packages, asked)

    async def show(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Show one package."""
        return await self._read(caller, self._parts.queries.show, asked)

    async def info(self, _row: api.Operation, _asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Describe the repository."""
        return await self._read(caller, self._parts.queries.info)

    async def resolve(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Say what names mean."""
        return await self._read(caller, self._parts.queries.resolve, asked)

    async def history(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List commits."""
        return await self._read(caller, self._parts.queries.history, asked)

    async def inputs(self, _row: api.Operation, _asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List the inputs."""
        return await self._read(caller, self._parts.queries.inputs)

    async def diff(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Compare commits, or the work tree with one."""
        return await self._read(caller, self._parts.queries.diff, asked)

    async def doctor(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Look for what is wrong."""
        return await self._read(caller, self._parts.doctor.examine, asked)

    async def transactions(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List transactions: one's own, and others' for whom may read them."""
        await self._parts.authority.authorise(caller, (), interactive=False)
        states = {str(state) for state in asked.states}
        running = [ticket.record() for ticket in reversed(self._parts.queue.tickets)]
        known = {record.id for record in running}
        ended = await self._in_thread(self._parts.database.recent, tuple(states), asked.limit + len(known))
        merged = [
            record
            for record in (*running, *(record for record in ended if record.id not in known))
            if (not states or record.state in states) and await self._may_read(row, caller, record)
        ]
        brief = [
            record.model_copy(update={"log": (), "outcome": _brief(record.outcome)}) for record in merged[: asked.limit]
        ]
        return api.Transactions(transactions=tuple(brief))

    async def _may_read(self, row: api.Operation, caller: Caller, record: api.Transaction) -> bool:
        asked = policy.Request(row.policy, transaction=record.id, owner=record.uid)
        try:
            await self._parts.authority.authorise(caller, policy.checks(asked, caller), interactive=False)
        except NotAllowed:
            return False
        return True

    async def transaction(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Show one transaction."""
        return await self._allowed(row, caller, asked.transaction)

    async def watch(self, row: api.Operation, asked: Any, caller: Caller, client: Client) -> api.Value:
        """Send the caller the progress of a transaction; of one that has ended, its last state at once."""
        record = await self._allowed(row, caller, asked.transaction)
        self._parts.watchers.watch(client, record.id)
        if self._parts.queue.get(record.id) is None:  # it has ended, maybe while we asked who may watch it
            ended = record if State(record.state).final else await self._find(record.id)
            self._parts.watchers.progress(api.ProgressEvent(transaction=ended.id, state=ended.state))
        return api.Empty()

    async def unwatch(self, row: api.Operation, asked: Any, caller: Caller, client: Client) -> api.Value:
        """Stop that."""
        await self._allowed(row, caller, asked.transaction)
        self._parts.watchers.unwatch(client, asked.transaction)
        return api.Empty()

    async def wait(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Answer when a transaction has ended; raises TimedOut when it has not in the time given."""
        await self._allowed(row, caller, asked.transaction)
        ticket = self._parts.queue.get(asked.transaction)
        if ticket:
            try:
                await asyncio.wait_for(ticket.ended.wait(), asked.timeout)
            except TimeoutError:
                raise Failed(
                    f"Transaction {asked.transaction} has not ended within {asked.timeout:g} seconds; it goes on.",
                    code=ErrorCode.TIMED_OUT,
                    hint="Wait again, or look it up later.",
                ) from None
            return ticket.record()
        return await self._find(asked.transaction)

    async def search(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Find packages; where there is no index yet, it is built now and the answer does not wait for it."""
        found = await self._read(caller, self._parts.searcher.search, asked)
        if found.index == "building":
            self._parts.indexer.hurry()
        return found

    async def refresh_index(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Build the index if it is missing, and say how it is."""
        wanted = await self._read(caller, self._parts.searcher.wanted, asked.host)
        if wanted:
            await self._parts.indexer.build(wanted, asked.timeout)
        return await self._in_thread(self._parts.searcher.index, asked.host)

    async def registries(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List the registries."""
        return await self._read(caller, self._parts.searcher.registries, asked)

    async def refresh_registries(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Ask the registries for what is new."""
        return await self._read(caller, self._parts.searcher.refresh, asked)

    async def registry(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Show a registry."""
        return await self._read(caller, self._parts.searcher.registry, asked)

    async def cancel(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Stop a transaction before its commit point; raises Conflict when it is too late."""
        await self._allowed(row, caller, asked.transaction)
        ticket = self._parts.queue.get(asked.transaction)
        if ticket is None or not ticket.cancellation.request():
            raise Refused(
                f"Transaction {asked.transaction} can't be stopped any more: it has passed its commit point or ended.",
                hint="Undo what it did with another change.",
                details={"transaction": asked.transaction},
            )
        return api.Empty()


Method = Callable[[Engine, api.Operation, Any, Caller, Client], Awaitable[api.Value]]

_ANSWERS: Final[Mapping[str, Method]] = {
    "Ping": Engine.ping,
    "GetCapabilities": Engine.capabilities,
    "ListHosts": Engine.hosts,
    "List": Engine.packages,
    "Show": Engine.show,
    "Info": Engine.info,
    "Resolve": Engine.resolve,
    "ListInputs": Engine.inputs,
    "Diff": Engine.diff,
    "Doctor": Engine.doctor,
    "History": Engine.history,
    "ListTransactions": Engine.transactions,
    "GetTransaction": Engine.transaction,
    "Watch": Engine.watch,
    "Unwatch": Engine.unwatch,
    "Wait": Engine.wait,
    "Cancel": Engine.cancel,
    "Search": Engine.search,
    "RefreshIndex": Engine.refresh_index,
    "ListRegistries": Engine.registries,
    "RefreshRegistries": Engine.refresh_registries,
    "ShowRegistry": Engine.registry,
}


def _brief(outcome: api.Outcome | None) -> api.Outcome | None:
    """An outcome for a list: without its diff."""
    return outcome.model_copy(update={"diff": None}) if outcome else None


def _internal(ticket: Ticket) -> GlixError:
    return GlixError(
        "glixd met a defect of its own; the transaction ended.",
        hint=f"The journal has the rest: journalctl GLIX_TRANSACTION={ticket.id}",
        details={"transaction": ticket.id},
    )
