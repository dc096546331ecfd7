# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the work of a transaction is done: changes in the queue, garbage and rebuilds each in a line of their own.

A build takes minutes, and nobody's change waits for it: it builds a commit, which stays what it is. A change that is to be
applied leaves the queue with its commit, and joins the line of rebuilds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from glixd import api, garbage
from glixd.api import Action
from glixd.backends import activator
from glixd.backends.activator import Order
from glixd.backends.process import Cancellation
from glixd.backends.repository import Repository
from glixd.draft import Job
from glixd.errors import Failed, NotAllowed
from glixd.herald import Herald
from glixd.initialise import make_repository
from glixd.model.change import (
    Add,
    Batch,
    Change,
    Collect,
    Init,
    Move,
    Rebuild,
    Remember,
    Remove,
    Request,
    Restore,
    Switch,
)
from glixd.model.takeover import differs
from glixd.parts import Parts
from glixd.protocol import State
from glixd.queue import Entry, Ticket
from glixd.rebuilding.building import News
from glixd.rebuilding.errand import Errand, subject
from glixd.rebuilding.restoring import Restoring
from glixd.requests.values import Prepared, digest_of
from glixd.threads import Gathering, Threads
from glixd.transaction import Result, Unfit, refused

Committed = Callable[[Ticket, Result], None]
SHARING: Final = (Add, Remove, Switch, Change, Move, Batch)
"""Changes that look at manifests and inputs alone: several that wait can be made on top of each other, unseen."""


@asynccontextmanager
async def _turn(line: asyncio.Lock, cancellation: Cancellation) -> AsyncIterator[None]:
    """One's turn in a line; raises Cancelled as soon as somebody wishes to stop, since those before may take hours."""
    gone = _Gone()
    cancellation.follow(gone)
    acquired, left = asyncio.ensure_future(line.acquire()), asyncio.ensure_future(gone.event.wait())
    try:
        await asyncio.wait((acquired, left), return_when=asyncio.FIRST_COMPLETED)
        cancellation.check()
        yield
    finally:
        cancellation.follow(None)
        left.cancel()
        if acquired.done():
            line.release()
        else:
            acquired.cancel()


class _Gone:
    """Wakes whoever waits for a turn that is not wanted any more; from any thread."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Wake them."""
        self._loop.call_soon_threadsafe(self.event.set)


class _Tried(Exception):
    """A commit was made to be looked at, and goes no further."""


class Lanes:
    """Runs what is authorised. Lives on the event loop; the work is done on threads."""

    def __init__(self, parts: Parts, herald: Herald, records: Gathering[api.Transaction], committed: Committed) -> None:
        self._parts = parts
        self._herald = herald
        self._records = records
        self._committed = committed
        self._collectors = Threads(1, "garbage")
        self._collecting = asyncio.Lock()
        self._builders = Threads(1, "rebuild")
        self._rebuilding = asyncio.Lock()

    async def run(self, ticket: Ticket, prepared: Prepared) -> Result:
        """Do the work when it is its turn; raises the error that ended it."""
        self._loop = asyncio.get_running_loop()
        match prepared.request:
            case Collect():
                errand = garbage.Errand(
                    prepared.request, ticket.parameters.dry_run, ticket.cancellation, self._stepper(ticket)
                )
                async with self._collecting:
                    _compare(ticket, prepared)
                    self._herald.state(ticket, State.RUNNING)
                    return await self._collectors.run(self._parts.collector.run, errand)
            case Rebuild():
                _compare(ticket, prepared)
                return await self._rebuild_without(ticket, prepared, prepared.request)
            case Remember():
                _compare(ticket, prepared)
                return await self._remember(ticket, prepared.request)
            case _:
                return await self._change(ticket, prepared, prepared.request)

    def close(self) -> None:
        """Nothing runs any more."""
        self._collectors.close()
        self._builders.close()

    # -- changes -----------------------------------------------------------------------------------------------------

    async def _change(self, ticket: Ticket, prepared: Prepared, request: Request) -> Result:
        unattended = isinstance(ticket.parameters, api.UpdateParameters) and ticket.parameters.unattended
        if unattended and not ticket.parameters.dry_run:
            await self._try(ticket, prepared, request)
        with self._parts.health.giving_way():
            result = await self._parts.queue.run(self._entry(ticket, prepared, request))
        ticket.outcome, ticket.warnings = result.outcome, result.warnings
        if result.commit:
            self._committed(ticket, result)
        action = self._action(ticket, result, unattended=unattended)
        if action is None or ticket.parameters.dry_run or isinstance(request, Restore):
            return result
        commit = result.commit or self._parts.repository.snapshot().commit
        host = request.host if request.host in self._parts.repository.at(commit).hosts else self._parts.default_host
        ticket.cancellation = Cancellation()  # the commit stands; what can be stopped from here on is the rebuild
        rebuild = Rebuild(host, commit, action, rollback_on_failure=self._parts.rollback_on_failure)
        if prepared.concerns_home_of(ticket.caller.login):
            rebuild = Rebuild(host, commit, Action.BUILD, user=ticket.caller.login)
        await self._records.add(ticket.record())
        rebuilt = await self._rebuild(ticket, rebuild)
        if unattended and action is Action.BUILD and rebuilt.outcome.rebuild:
            await self._records.run(self._parts.generations.stage, rebuilt.outcome.rebuild)
            self._parts.watchers.staged(host)
        outcome = result.outcome.model_copy(
            update={
                "summary": f"{result.outcome.summary}; {rebuilt.outcome.summary}",
                "changed": True,
                "rebuild": rebuilt.outcome.rebuild,
            }
        )
        return replace(result, outcome=outcome, warnings=(*result.warnings, *rebuilt.warnings))

    def _action(self, ticket: Ticket, result: Result, *, unattended: bool) -> Action | None:
        """What is done with what was committed."""
        if not unattended:
            return Action.SWITCH if ticket.parameters.apply else None
        if not result.commit:
            return None
        return Action.SWITCH if self._parts.unattended == "switch" else Action.BUILD

    async def _try(self, ticket: Ticket, prepared: Prepared, request: Request) -> None:
        """Build what a change would commit, before it is committed and beside the queue; raises why it does not build."""
        tried: list[str] = []

        def stop(commit: str) -> None:
            tried.append(commit)
            raise _Tried

        job = replace(self._job(ticket, prepared, request), point=stop)
        started = partial(self._herald.state, ticket, State.RUNNING)
        try:
            await self._parts.queue.run(Entry(ticket, partial(self._commit, ticket, job, request), started))
        except _Tried:
            await self._rebuild(ticket, Rebuild(self._parts.default_host, tried[0], Action.BUILD))

    def _entry(self, ticket: Ticket, prepared: Prepared, request: Request) -> Entry[Result]:
        """The work of a change, for the queue."""
        job = self._job(ticket, prepared, request)
        shares = isinstance(request, SHARING) and not job.dry_run and not self._parts.transactor.examines
        return Entry(
            ticket,
            partial(self._commit, ticket, job, request),
            partial(self._herald.state, ticket, State.RUNNING),
            job=job,
            together=self._parts.transactor.run_together if shares else None,
        )

    def _job(self, ticket: Ticket, prepared: Prepared, request: Request) -> Job:
        """What the transaction needs; what it reports crosses back to the event loop."""

        def committed(commit: str) -> None:
            ticket.commit = commit

        _compare(ticket, prepared)
        return Job(
            id=ticket.id,
            request=request,
            digest=prepared.digest,
            caller=ticket.caller,
            branch=self._parts.branch,
            dry_run=ticket.parameters.dry_run,
            evaluate=ticket.parameters.evaluate,
            trusted=prepared.trusted,
            reason=ticket.parameters.reason,
            cancellation=ticket.cancellation,
            step=self._stepper(ticket),
            committed=committed,
        )

    def _commit(self, ticket: Ticket, job: Job, request: Request) -> Result:
        """The work itself, on the worker thread."""
        parts = self._parts
        if isinstance(request, Init):
            return self._new_host(job, request)
        if isinstance(request, Restore):
            return self._restore(ticket, job, request)
        try:
            return parts.transactor.run(job)
        except Unfit as error:
            job.step("looking for what breaks it")
            raise refused(
                error, parts.culprits.of(error.commit, error.host, error.message, job.cancellation)
            ) from error

    def _new_host(self, job: Job, request: Init) -> Result:
        """A host that starts anew, or that a folder becomes: then it is the very system which the folder describes."""
        parts, offers = self._parts, list[str]()

        def check(repository: Repository, commit: str) -> None:
            if request.files:
                job.step("comparing the host with what the folder describes")
                nix = parts.nix_of(repository)
                found = nix.taken_over(commit, request.host, request.system, cancellation=job.cancellation)
                if not found.same:
                    raise differs(request.host)
                offers.extend(found.offers)

        root = parts.repository.root
        if parts.repository.exists:
            found = partial(check, parts.repository) if request.files else None
            result = parts.transactor.run(replace(job, check=found))
        else:
            machine = parts.transactor.machine
            result = make_repository(root, request, job, parts.locker, machine, parts.build_repository, check)
            parts.repository.announce()
        told: dict[str, object] = {"offers": tuple(offers)}
        if request.files:
            told["summary"] = f"{result.outcome.summary}, the very system that the folder describes"
        return replace(result, outcome=result.outcome.model_copy(update=told))

    def _restore(self, ticket: Ticket, job: Job, request: Restore) -> Result:
        order = Order(
            ticket.id,
            request.commit,
            request.path,
            activator.Action.BOOT if request.boot else activator.Action.SWITCH,
            subject(ticket.caller),
            generation=request.generation,
            interactive=ticket.parameters.interactive,
        )
        job.cancellation.when_sealed(self._sealer(ticket))
        parts = self._parts
        restoring = Restoring(
            parts.repository,
            parts.activation,
            parts.profile,
            order,
            self._teller(ticket),
            job.step,
            job.cancellation,
            partial(self._will_commit, ticket),
        )
        return restoring.run(parts.transactor, job, request)

    def _will_commit(self, ticket: Ticket, commit: str) -> None:
        """What a way back will commit is in its record when it begins to activate, and also where it is made once more."""
        ticket.rebuilding = commit
        if ticket.state is State.ACTIVATING:
            self._parts.database.save(ticket.record())

    async def _remember(self, ticket: Ticket, request: Remember) -> Result:
        """Among the changes, since it writes into the repository as they do."""
        work = partial(self._parts.rebuilder.tag, request, dry_run=ticket.parameters.dry_run)
        return await self._parts.queue.run(Entry(ticket, work, partial(self._herald.state, ticket, State.RUNNING)))

    # -- rebuilds ----------------------------------------------------------------------------------------------------

    async def _rebuild(self, ticket: Ticket, request: Rebuild) -> Result:
        ticket.rebuilding = request.commit
        ticket.cancellation.when_sealed(self._sealer(ticket))
        errand = Errand(
            transaction=ticket.id,
            request=request,
            dry_run=ticket.parameters.dry_run,
            caller=ticket.caller,
            interactive=ticket.parameters.interactive,
            cancellation=ticket.cancellation,
            step=self._stepper(ticket),
            tell=self._teller(ticket),
            building=partial(setattr, ticket, "rebuilding"),
        )
        self._herald.state(ticket, State.QUEUED)
        async with _turn(self._rebuilding, ticket.cancellation):
            self._herald.state(ticket, State.RUNNING)
            return await self._builders.run(self._parts.rebuilder.run, errand)

    async def _rebuild_without(self, ticket: Ticket, prepared: Prepared, request: Rebuild) -> Result:
        """Rebuild; where packages break the evaluation and the caller says so, disable them in a commit and go on."""
        try:
            return await self._rebuild(ticket, request)
        except Failed as error:
            broken = error.details.get("packages")
            if not request.keep_going_without or ticket.parameters.dry_run or not isinstance(broken, list):
                raise
        names = tuple(broken)
        switched = await self._parts.queue.run(
            self._entry(ticket, prepared, Switch(request.host, names, enabled=False))
        )
        self._committed(ticket, switched)
        ticket.cancellation = Cancellation()
        commit = switched.commit or request.commit
        rebuilt = await self._rebuild(ticket, replace(request, commit=commit, keep_going_without=False))
        told = rebuilt.outcome.rebuild and rebuilt.outcome.rebuild.model_copy(update={"disabled": names})
        outcome = rebuilt.outcome.model_copy(update={"rebuild": told, "changes": switched.outcome.changes})
        warned = f"Disabled, since the host does not evaluate with it: {', '.join(names)}."
        return replace(rebuilt, outcome=outcome, commit=commit, warnings=(*rebuilt.warnings, warned))

    # -- telling, from any thread ------------------------------------------------------------------------------------

    def _stepper(self, ticket: Ticket) -> Callable[[str], None]:
        loop = self._loop

        def step(title: str) -> None:
            if ticket.action is not None:
                self._herald.write(ticket, (title,))
            loop.call_soon_threadsafe(self._herald.step, ticket, title)

        return step

    def _teller(self, ticket: Ticket) -> Callable[[News], None]:
        loop = self._loop

        def tell(news: News) -> None:
            self._herald.write(ticket, news.lines)
            loop.call_soon_threadsafe(self._herald.news, ticket, news)

        return tell

    def _sealer(self, ticket: Ticket) -> Callable[[], None]:
        loop = self._loop

        def sealed() -> None:
            """On record before it begins: a switch may end this daemon, and the next one has to know."""
            self._parts.database.save(ticket.record().model_copy(update={"state": State.ACTIVATING}))
            loop.call_soon_threadsafe(self._herald.state, ticket, State.ACTIVATING)

        return sealed


def _compare(ticket: Ticket, prepared: Prepared) -> None:
    """What is about to be carried out has to be what was authorised, to the letter."""
    if digest_of(ticket.row.name, prepared.request) != ticket.digest or ticket.digest != prepared.digest:
        raise NotAllowed(
            "What would be carried out is not what was authorised; nothing was changed.",
            details={"transaction": ticket.id},
        )
