# SPDX-License-Identifier: GPL-3.0-or-later
"""What is answered at once, without a transaction: queries, and what watches or stops a transaction."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from glixd import api, audit, policy
from glixd.api import Caller
from glixd.backends.logs import page_of
from glixd.backends.state import unknown_transaction
from glixd.errors import Failed, GlixError, NotAllowed, Refused, invalid
from glixd.parts import Parts
from glixd.protocol import COMMIT, VERSION, ErrorCode, State
from glixd.threads import Threads
from glixd.watchers import Client

POLL: Final = 0.1
"""Seconds between two looks at a transaction that no daemon of now carries."""
Answer = TypeVar("Answer")


class Answers:
    """One method for each row of the table that is no mutation."""

    def __init__(self, parts: Parts, readers: Threads) -> None:
        self._parts = parts
        self._readers = readers

    async def answer(self, row: api.Operation, parameters: api.Parameters, caller: Caller, client: Client) -> api.Value:
        """Answer a validated request; raises a GlixError."""
        return await _ANSWERS[row.name](self, row, parameters, caller, client)

    async def _read(self, caller: Caller, work: Callable[..., Answer], *arguments: object) -> Answer:
        """Answer a question that everybody may ask whom the authority lets in at all."""
        await self._parts.authority.authorise(caller, (), interactive=False)
        return await self._readers.run(work, *arguments)

    async def _allowed(self, row: api.Operation, caller: Caller, asked: api.TransactionParameters) -> api.Transaction:
        """A transaction that the caller may touch in the way of `row`."""
        record = await self._find(asked.transaction)
        needed = policy.checks(policy.Request(row.policy, transaction=record.id, owner=record.uid), caller)
        actions = [check.action for check in needed]
        told = partial(audit.decided, caller, row.name, actions, transaction=record.id, host=record.host)
        try:
            await self._parts.authority.authorise(caller, needed, interactive=asked.interactive)
        except GlixError as error:
            told(error=error)
            raise
        if needed:  # one's own is nothing to write down
            told()
        return record

    async def _find(self, identifier: str) -> api.Transaction:
        ticket = self._parts.queue.get(identifier)
        record = ticket.record() if ticket else await self._readers.run(self._parts.database.load, identifier)
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
        with self._parts.health.giving_way():
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
        owners = {record.uid for record in running} | set(await self._readers.run(self._parts.database.owners))
        readable = [uid for uid in sorted(owners) if await self._may_read(row, caller, uid)]
        ended = await self._readers.run(
            self._parts.database.recent, tuple(states), asked.limit + len(known), tuple(readable)
        )
        merged = [
            record
            for record in (*running, *(record for record in ended if record.id not in known))
            if record.uid in readable and (not states or record.state in states)
        ]
        brief = [
            record.model_copy(update={"log": (), "outcome": _brief(record.outcome)}) for record in merged[: asked.limit]
        ]
        return api.Transactions(transactions=tuple(brief))

    async def _may_read(self, row: api.Operation, caller: Caller, owner: int) -> bool:
        """Whether a caller may read the transactions of a user without being asked."""
        asked = policy.Request(row.policy, owner=owner)
        try:
            await self._parts.authority.authorise(caller, policy.checks(asked, caller), interactive=False)
        except NotAllowed:
            return False
        return True

    async def transaction(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Show one transaction."""
        return await self._allowed(row, caller, asked)

    async def watch(self, row: api.Operation, asked: Any, caller: Caller, client: Client) -> api.Value:
        """Send the caller the progress of a transaction; of one that has ended, its last state at once."""
        record = await self._allowed(row, caller, asked)
        self._parts.watchers.watch(client, record.id)
        if self._parts.queue.get(record.id) is None:  # it has ended, maybe while we asked who may watch it
            ended = record if State(record.state).final else await self._find(record.id)
            self._parts.watchers.progress(api.ProgressEvent(transaction=ended.id, state=ended.state))
        return api.Empty()

    async def unwatch(self, row: api.Operation, asked: Any, caller: Caller, client: Client) -> api.Value:
        """Stop that."""
        await self._allowed(row, caller, asked)
        self._parts.watchers.unwatch(client, asked.transaction)
        return api.Empty()

    async def wait(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Answer when a transaction has ended; raises TimedOut when it has not in the time given."""
        await self._allowed(row, caller, asked)
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
        return await self._settled(asked.transaction, asked.timeout)

    async def _settled(self, identifier: str, patience: float) -> api.Transaction:
        """A transaction that is in nobody's hands: it has ended, or what an earlier daemon began is about to."""
        deadline = asyncio.get_running_loop().time() + patience
        while not State((record := await self._find(identifier)).state).final:
            if asyncio.get_running_loop().time() >= deadline:
                raise Failed(f"Transaction {identifier} has not ended yet; it goes on.", code=ErrorCode.TIMED_OUT)
            await asyncio.sleep(POLL)
        return record

    async def log(self, row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Show a part of the log of a transaction."""
        record = await self._allowed(row, caller, asked)
        ended = State(record.state).final
        return await self._readers.run(partial(page_of, self._parts.logs, record, asked, ended=ended))

    async def generations(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """List the generations of a host."""
        return await self._read(caller, self._parts.generations.list, asked)

    async def diff_generations(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Compare two generations."""
        return await self._read(caller, self._parts.generations.difference, asked)

    async def bundle(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Give a piece of a bundle of the branch."""
        return await self._read(caller, self._piece, asked)

    def _piece(self, asked: api.BundleParameters) -> api.Piece:
        repository = self._parts.repository
        commit = repository.snapshot().commit
        if asked.commit not in (None, commit):
            raise Refused(
                "The repository has changed since the first piece was read.",
                code=ErrorCode.CONFLICT,
                hint="Begin again without a commit.",
            )
        data, size = self._parts.bundles.piece(repository.branch, commit, asked.offset)
        end = asked.offset + len(data)
        return api.Piece(
            commit=commit,
            branch=repository.branch.removeprefix("refs/heads/"),
            data=base64.b64encode(data).decode(),
            size=size,
            next=end if end < size else None,
        )

    async def upload(self, _row: api.Operation, asked: Any, caller: Caller, _client: Client) -> api.Value:
        """Take a piece of a bundle in."""
        try:
            data = base64.b64decode(asked.data, validate=True)
        except ValueError:
            raise invalid("data", "it is no base 64") from None
        name, size = await self._read(caller, self._parts.uploads.add, caller.uid, asked.upload, asked.offset, data)
        return api.Received(upload=name, size=size)

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
        return await self._readers.run(self._parts.searcher.index, asked.host)

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
        await self._allowed(row, caller, asked)
        ticket = self._parts.queue.get(asked.transaction)
        if ticket and not ticket.cancellation.request() and ticket.state is State.ACTIVATING:
            raise Refused(
                f"Transaction {asked.transaction} can't be stopped: the machine is being switched, and half a switch is "
                "worse than either system.",
                hint="Wait for its end, then go back with: glixctl rollback",
                details={"transaction": asked.transaction, "state": State.ACTIVATING},
            )
        if ticket is None or not ticket.cancellation.requested:
            raise Refused(
                f"Transaction {asked.transaction} can't be stopped any more: it has passed its commit point or ended.",
                hint="Undo what it did with another change.",
                details={"transaction": asked.transaction},
            )
        return api.Empty()


Method = Callable[[Answers, api.Operation, Any, Caller, Client], Awaitable[api.Value]]

_ANSWERS: Final[Mapping[str, Method]] = {
    "Ping": Answers.ping,
    "GetCapabilities": Answers.capabilities,
    "ListHosts": Answers.hosts,
    "List": Answers.packages,
    "Show": Answers.show,
    "Info": Answers.info,
    "Resolve": Answers.resolve,
    "ListInputs": Answers.inputs,
    "Diff": Answers.diff,
    "Doctor": Answers.doctor,
    "History": Answers.history,
    "ListTransactions": Answers.transactions,
    "GetTransaction": Answers.transaction,
    "Watch": Answers.watch,
    "Unwatch": Answers.unwatch,
    "Wait": Answers.wait,
    "Cancel": Answers.cancel,
    "TransactionLog": Answers.log,
    "ListGenerations": Answers.generations,
    "DiffGenerations": Answers.diff_generations,
    "GetBundle": Answers.bundle,
    "Upload": Answers.upload,
    "Search": Answers.search,
    "RefreshIndex": Answers.refresh_index,
    "ListRegistries": Answers.registries,
    "RefreshRegistries": Answers.refresh_registries,
    "ShowRegistry": Answers.registry,
}


def _brief(outcome: api.Outcome | None) -> api.Outcome | None:
    """An outcome for a list: without its diff."""
    return outcome.model_copy(update={"diff": None}) if outcome else None
