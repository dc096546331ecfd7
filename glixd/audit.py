# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail: each decision and each mutation is one event with fixed fields, in the journal under an id of its own.

Names, reasons and descriptions are values of fields and never a part of their names or of a sentence. `journalctl
MESSAGE_ID=…` finds them all, whatever else is logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from glixd.api import Caller, Transaction
from glixd.errors import GlixError
from glixd.log import get_logger
from glixd.protocol import ErrorCode

log = get_logger()

DECIDED: Final = "5d1f2c84b7e64b0f9c1a7b63d0a4e9f2"
"""MESSAGE_ID of a decision: whether a caller may do something."""
DONE: Final = "a3c7e90d52f14c8c8e6b1f04d97b6a1e"
"""MESSAGE_ID of the end of a mutation, however it ended."""

RESULTS: Final = {
    ErrorCode.NOT_AUTHORISED: "refused",
    ErrorCode.AUTHORISATION_DISMISSED: "dismissed",
    ErrorCode.AUTHORISATION_TIMED_OUT: "timed-out",
    ErrorCode.AUTHORISATION_UNAVAILABLE: "unavailable",
    ErrorCode.CANCELLED: "cancelled",
}
"""How a decision is called that was no yes."""


def decided(
    caller: Caller,
    operation: str,
    actions: Sequence[str],
    *,
    transaction: str,
    host: str | None = None,
    digest: str | None = None,
    error: GlixError | None = None,
) -> None:
    """Whether a caller was allowed to do something; `error` is what it was told if not."""
    log.info(
        "authorisation decided",
        message_id=DECIDED,
        transaction=transaction,
        uid=caller.uid,
        login=caller.login,
        address=caller.address,
        host=host,
        operation=operation,
        actions=list(dict.fromkeys(actions)),
        digest=digest,
        result=RESULTS.get(error.code, "refused") if error else "allowed",
        reason=error.message if error else None,
    )


def done(record: Transaction) -> None:
    """How a mutation ended."""
    log.info(
        "transaction done",
        message_id=DONE,
        transaction=record.id,
        uid=record.uid,
        login=record.login,
        host=record.host,
        operation=record.operation,
        dry_run=record.dry_run or None,
        digest=record.digest,
        commit=record.commit,
        result=str(record.state),
        error=record.error.name if record.error else None,
        reason=record.error.message if record.error else None,
        why=record.reason,
    )
