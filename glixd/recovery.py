# SPDX-License-Identifier: GPL-3.0-or-later
"""How the transactions ended that an earlier daemon left in the middle: by their commits, and by what the activator wrote."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Final

from glixd import api
from glixd.backends.activator import Activated, Status
from glixd.backends.git import LogEntry
from glixd.errors import GlixError
from glixd.log import get_logger
from glixd.model.change import ALL_HOSTS
from glixd.parts import Parts
from glixd.protocol import ErrorCode, State, json_code
from glixd.queue import ALPHABET, now
from glixd.rebuilding.rebuilder import told_afterwards

log = get_logger()

SEARCHED: Final = 1000
"""Commits among which recovery looks for that of a transaction."""
_LEFT: Final = {
    "CollectGarbage": "what was deleted stays deleted",
    "RememberGeneration": "the tag may have been written",
}
"""What an interrupted operation leaves that makes no commit, and is not undone by having none."""
_ID: Final = re.compile(f"[{ALPHABET}]{{26}}")
_OPERATIONS: Final = {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(): name for name in api.OPERATIONS}
"""Operations by the verb in the subject of their commits."""
WENT: Final = (Status.DONE, Status.UNITS_FAILED, Status.REBOOT_NEEDED)


class Recovery:
    """Settles records before the first request."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def settled(self, record: api.Transaction) -> api.Transaction | None:
        """A record of a transaction that no daemon works on any more, with its end; None while its activation runs."""
        commit = self._commit_of(record.id)
        if record.state == State.ACTIVATING:
            activated = self._activated(record.id)
            if activated and activated.status is Status.RUNNING:
                return None
            if activated and activated.status in WENT:
                return self._went(record, commit, activated)
        if commit and record.action is None:
            return _ended(record, State.SUCCEEDED, commit)
        if record.state == State.ACTIVATING:
            return _failed(
                record,
                commit,
                "The daemon ended while the machine was being switched.",
                "See what runs: glixctl generations",
            )
        if commit:
            message = "The change is committed, and the daemon ended before the machine was switched."
            return _failed(record, commit, message, "Run: glixctl rebuild")
        left = _LEFT.get(record.operation, "nothing was changed")
        return _failed(record, None, f"The daemon ended in the middle of this transaction; {left}.", "Do it again.")

    def remembered(self) -> Iterator[api.Transaction]:
        """The transactions that the commits tell of, where their records were lost."""
        try:
            entries = self._parts.repository.git.log(self._parts.repository.snapshot().commit, limit=SEARCHED)
        except GlixError as error:
            log.warning("the history of transactions can't be read from the commits", reason=error.message)
            return
        for entry in entries:
            if record := _told(entry):
                yield record

    def _activated(self, transaction: str) -> Activated | None:
        try:
            return self._parts.activation.result(transaction)
        except GlixError as error:
            log.warning("the result of an activation can't be read", transaction=transaction, reason=error.message)
            return None

    def _went(self, record: api.Transaction, commit: str | None, activated: Activated) -> api.Transaction:
        """The switch went well: what was still to be done after it is done now."""
        if record.operation == "Rollback" and commit is None:
            commit = self._committed(record)
            if commit is None:
                message = "The generation is live again, and the daemon ended before its manifest was committed."
                return _failed(record, None, message, "Run the same rollback again: it only commits.")
        elif record.operation != "Rollback" and activated.generation is not None:
            self._remember(record, activated.generation)
        return _ended(told_afterwards(record, self._built_from(record, activated), activated), State.SUCCEEDED, commit)

    def _built_from(self, record: api.Transaction, activated: Activated) -> str:
        if record.operation != "Rollback" or record.host is None or activated.generation is None:
            return record.rebuilding or ""
        return self._parts.rebuilder.built_from(record.host, activated.generation)

    def _remember(self, record: api.Transaction, generation: int) -> None:
        rebuilt = record.rebuilding
        if rebuilt is None or record.host is None:
            return
        try:
            path = self._parts.profile.path(generation)
            self._parts.rebuilder.remember(record.host, generation, path, rebuilt, record.id)
        except GlixError as error:
            log.warning("the tag of a generation could not be written", generation=generation, reason=error.message)

    def _committed(self, record: api.Transaction) -> str | None:
        """Finish the commit that was made and not published yet; None where it does not fit any more."""
        repository, commit = self._parts.repository, record.rebuilding
        try:
            with repository.locked() as held:
                base = repository.snapshot().commit
                if commit is None or repository.git.ref(f"{commit}~1") != base:
                    return None
                (made,) = repository.git.log(commit, limit=1)
                if made.transaction != record.id:
                    return None
                repository.commit_point(held, commit, base)
                repository.publish(held, commit, repository.git.changed_paths(base, commit))
                return commit
        except GlixError as error:
            log.warning("a rollback could not be finished", transaction=record.id, reason=error.message)
            return None

    def _commit_of(self, transaction: str) -> str | None:
        try:
            entries = self._parts.repository.git.log(self._parts.repository.snapshot().commit, limit=SEARCHED)
        except GlixError:
            return None
        return next((entry.oid for entry in entries if entry.transaction == transaction), None)


def _told(entry: LogEntry) -> api.Transaction | None:
    """The transaction that made a commit; None where a person did."""
    identifier, uid = entry.trailers.get("Glix-Transaction", ""), entry.trailers.get("Glix-Uid", "")
    words = entry.subject.split()
    if not _ID.fullmatch(identifier) or not uid.isdecimal() or words[:1] != ["glix"] or len(words) < 3:
        return None
    host = words[2].removesuffix(":")
    moment = datetime.datetime.fromtimestamp(entry.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return api.Transaction(
        id=identifier,
        operation=_OPERATIONS.get(words[1], words[1]),
        host=None if host == ALL_HOSTS else host,
        state=State.SUCCEEDED,
        uid=int(uid),
        login=entry.author,
        created=moment,
        finished=moment,
        dry_run=False,
        digest=entry.trailers.get("Glix-Request-Digest"),
        commit=entry.oid,
        warnings=("The record was lost; this is what the commit says.",),
    )


def _ended(record: api.Transaction, state: State, commit: str | None) -> api.Transaction:
    return record.model_copy(update={"state": state, "commit": commit, "finished": now(), "step": None})


def _failed(record: api.Transaction, commit: str | None, message: str, hint: str) -> api.Transaction:
    error = api.ErrorInfo(code=json_code(ErrorCode.INTERRUPTED), name=ErrorCode.INTERRUPTED, message=message, hint=hint)
    return _ended(record, State.FAILED, commit).model_copy(update={"error": error})
