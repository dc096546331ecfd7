# SPDX-License-Identifier: GPL-3.0-or-later
"""Where log events go: the journal with fields of its own, a terminal in colours, anything else as lines of JSON."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

FIELDS: Final = {
    "transaction": "GLIX_TRANSACTION",
    "uid": "GLIX_UID",
    "host": "GLIX_HOST",
    "operation": "GLIX_ACTION",
    "result": "GLIX_RESULT",
    "message_id": "MESSAGE_ID",
}
"""Event field → journal field."""
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}


def configure(level: str) -> None:
    """Set logging up, once, before anything logs."""
    journal = _stderr_is_journal()
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]
    if journal:
        renderers: list[Any] = [structlog.processors.format_exc_info, _to_journal]
    elif sys.stderr.isatty():
        renderers = [structlog.processors.TimeStamper("%H:%M:%S"), structlog.dev.ConsoleRenderer()]
    else:
        renderers = [
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _stderr_is_journal() -> bool:
    """Whether systemd connected our standard error to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    device, colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not colon:
        return False
    facts = os.fstat(2)
    return (device, inode) == (str(facts.st_dev), str(facts.st_ino))


def _to_journal(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Send an event to the journal with its fields, and print nothing."""
    from systemd import journal

    message = str(event.pop("event"))
    level = str(event.pop("level", "info"))
    fields = {
        FIELDS.get(name, f"GLIX_{name.upper()}"): str(value) for name, value in event.items() if value is not None
    }
    shown = " ".join(f"{name}={value!r}" for name, value in event.items() if value is not None and name != "exception")
    if "exception" in event:
        shown = f"{shown}\n{event['exception']}"
    journal.send(
        f"{message} {shown}".rstrip(), PRIORITY=str(PRIORITIES.get(level, 6)), SYSLOG_IDENTIFIER="glixd", **fields
    )
    raise structlog.DropEvent
