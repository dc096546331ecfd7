# SPDX-License-Identifier: GPL-3.0-or-later
"""The transactions that are under way: limits per uid, joining of identical requests, one at a time in order of arrival."""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, TypeVar

from glixd import api
from glixd.api import Caller, Operation
from glixd.backends.process import Cancellation
from glixd.errors import Cancelled, Failed, GlixError
from glixd.log import get_logger
from glixd.protocol import MAX_PENDING, MAX_PENDING_PER_UID, ErrorCode, State, json_code

log = get_logger()

Result = TypeVar("Result")

JOINABLE: Final = frozenset({"Add", "Remove", "Enable", "Disable", "Regenerate"})
"""Operations of which doing it twice at once is doing it once."""
TOGETHER: Final = 32
"""Changes that share a commit point at most; whoever waits behind them waits for all."""
LOG_LINES: Final = 500
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_DIGITS: Final = 10
"""Of the digits of an id so many say when it was given."""
"""Crockford's base 32, in lower case."""


class Ticket:
    """One transaction while it is under way. Its request is frozen; what changes is how far it is."""

    def __init__(self, identifier: str, row: Operation, parameters: api.MutationParameters, caller: Caller) -> None:
        self.id = identifier
        self.row = row
        self.parameters = parameters
        self.caller = caller
        self.created = now()
        self.finished: str | None = None
        self.state = State.PREPARING
        self.host = parameters.host
        self.digest: str | None = None
        self.action = action_of(parameters)
        self.commit: str | None = None
        self.rebuilding: str | None = None
        """The commit that is being built, or switched to."""
        self.step: str | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.warnings: tuple[str, ...] = ()
        self.outcome: api.Outcome | None = None
        self.error: GlixError | None = None
        self.cancellation = Cancellation()
        self.ended = asyncio.Event()

    def record(self) -> api.Transaction:
        """The transaction as callers see it."""
        return api.Transaction(
            id=self.id,
            operation=self.row.name,
            host=self.host,
            state=self.state,
            uid=self.caller.uid,
            login=self.caller.login,
            created=self.created,
            finished=self.finished,
            dry_run=self.parameters.dry_run,
            action=self.action,
            rebuilding=self.rebuilding,
            digest=self.digest,
            commit=self.commit,
            step=None if self.state.final else self.step,
            reason=self.parameters.reason,
            warnings=self.warnings,
            log=tuple(self.log),
            outcome=self.outcome,
            error=error_info(self.error) if self.error else None,
        )


class Entry(Generic[Result]):
    """The work of one transaction, on its way through the queue.

    `work` does it alone. With `together` it can share a commit point with others that have the same: that is given the jobs of
    all, and answers with the result or the error of each, or raises what stopped them all, and then nothing was changed.
    """

    def __init__(
        self,
        ticket: Ticket,
        work: Callable[[], Result],
        started: Callable[[], None],
        *,
        job: object = None,
        together: Callable[[Sequence[Any]], Sequence[Result | BaseException]] | None = None,
    ) -> None:
        self.ticket = ticket
        self.work = work
        self.job = job
        self.together = together
        self.ended: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._started = started

    def begins(self) -> bool:
        """Say that it begins; False when somebody has cancelled it, and then it has ended."""
        try:
            self.ticket.cancellation.check()
        except Cancelled as error:
            self.end(error)
            return False
        self._started()
        return True

    def end(self, outcome: Result | BaseException) -> None:
        """Hand its result, or its error, to whoever waits for it."""
        if isinstance(outcome, BaseException):
            self.ended.set_exception(outcome)
        else:
            self.ended.set_result(outcome)


class Queue:
    """Admits transactions and runs them one at a time, on a thread of their own."""

    def __init__(self, *, pending: int = MAX_PENDING, pending_per_uid: int = MAX_PENDING_PER_UID) -> None:
        self._limits = (pending, pending_per_uid)
        self._under_way: dict[str, Ticket] = {}
        self._last: Ticket | None = None
        self._turn = asyncio.Lock()
        self._waiting: deque[Entry[Any]] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="transaction")
        self._moment = 0
        self._closed = False

    def __len__(self) -> int:
        """How many transactions are under way."""
        return len(self._under_way)

    def get(self, identifier: str) -> Ticket | None:
        """The transaction of that id, while it is under way."""
        return self._under_way.get(identifier)

    @property
    def tickets(self) -> list[Ticket]:
        """What is under way, the oldest first."""
        return list(self._under_way.values())

    def join(self, row: Operation, parameters: api.MutationParameters, caller: Caller) -> Ticket | None:
        """The last transaction that was admitted, where this request is the same and it has not begun to run."""
        last = self._last
        if last is None or last.row is not row or row.name not in JOINABLE or last.caller.uid != caller.uid:
            return None
        waiting = last.id in self._under_way and last.state is not State.RUNNING and not last.cancellation.requested
        return last if waiting and last.parameters == parameters else None

    def admit(self, row: Operation, parameters: api.MutationParameters, caller: Caller) -> Ticket:
        """A new transaction; raises LimitExceeded when the caller, or everybody together, has too many under way."""
        if self._closed:
            raise Failed("The daemon is stopping.", code=ErrorCode.BUSY, hint="Try again in a moment.")
        total, per_uid = self._limits
        mine = Counter(ticket.caller.uid for ticket in self._under_way.values())[caller.uid]
        if mine >= per_uid:
            raise _exceeded(f"uid {caller.uid} has {mine} transactions under way; {per_uid} are allowed")
        if len(self._under_way) >= (total if caller.uid else total + per_uid):
            raise _exceeded(f"{len(self._under_way)} transactions are under way; {total} are allowed")
        ticket = Ticket(self._new_id(), row, parameters, caller)
        self._under_way[ticket.id] = ticket
        self._last = ticket
        return ticket

    async def run(self, entry: Entry[Result]) -> Result:
        """Wait for the turn of an entry, then do its work on the worker thread; raises what it raises.

        Entries that wait behind each other and can share a commit point are done together.
        """
        self._waiting.append(entry)
        async with self._turn:
            if not entry.ended.done():
                await self._do(self._next())
        return entry.ended.result()

    def _next(self) -> list[Entry[Any]]:
        """The entry that is next, with those right behind it that can share its commit point."""
        group = [self._waiting.popleft()]
        while group[0].together and self._waiting and len(group) < TOGETHER:
            if self._waiting[0].together != group[0].together:
                break
            group.append(self._waiting.popleft())
        return group

    async def _do(self, group: list[Entry[Any]]) -> None:
        going = [entry for entry in group if entry.begins()]
        loop = asyncio.get_running_loop()
        together = group[0].together
        if together and len(going) > 1:
            shared = loop.run_in_executor(self._worker, together, [entry.job for entry in going])
            await asyncio.wait((shared,))
            error = shared.exception()
            passed = any(entry.ticket.commit for entry in going)  # what comes after the commit point undoes nothing
            if passed or not error:
                for entry, outcome in zip(going, [error] * len(going) if error else shared.result(), strict=True):
                    entry.end(outcome)
                return
            log.info("changes that waited together are made one by one", reason=repr(error))
        for entry in going:  # also where another program came between, or one of them met a defect
            (outcome,) = await asyncio.gather(loop.run_in_executor(self._worker, entry.work), return_exceptions=True)
            entry.end(outcome)

    def leave(self, ticket: Ticket) -> None:
        """The transaction has ended."""
        self._under_way.pop(ticket.id, None)

    def follow(self, identifier: str) -> None:
        """Let all ids come after this one, though the clock may have gone back since it was given."""
        moment = 0
        for character in identifier[:TIME_DIGITS]:
            moment = moment << 5 | ALPHABET.index(character)
        self._moment = max(self._moment, moment)

    def close(self) -> None:
        """Admit nothing any more."""
        self._closed = True

    def shut_down(self) -> None:
        """End the worker thread; nothing runs any more."""
        self._worker.shutdown()

    def _new_id(self) -> str:
        """A ULID: 48 bits of milliseconds, 80 random bits; ids of one daemon rise, also within a millisecond."""
        self._moment = max(self._moment + 1, time.time_ns() // 1_000_000)
        number = self._moment << 80 | secrets.randbits(80)
        return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def action_of(parameters: api.MutationParameters) -> str | None:
    """What becomes of the machine, where anything is asked for it."""
    match parameters:
        case api.RebuildParameters():
            return parameters.action.value
        case api.RollbackParameters() if parameters.to_generation is not None:
            return (api.Action.BOOT if parameters.boot else api.Action.SWITCH).value
        case _:
            return api.Action.SWITCH.value if parameters.apply else None


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def error_info(error: GlixError) -> api.ErrorInfo:
    """An error as it is kept and told."""
    return api.ErrorInfo(
        code=json_code(error.code), name=error.code, message=error.message, hint=error.hint, details=error.details
    )


def _exceeded(why: str) -> GlixError:
    return GlixError(
        f"Too much at once: {why}.",
        code=ErrorCode.LIMIT_EXCEEDED,
        hint="Wait until some have ended: glixctl transaction list",
    )
