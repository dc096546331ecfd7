# SPDX-License-Identifier: GPL-3.0-or-later
"""Where log events go: the journal with fields of its own, a terminal in colours, anything else as lines of JSON.

The library is loaded with the first event, beside the first answer: it and what it loads are 15 of 220 ms of the start.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, cast

from glixd import lean

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

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


class _Later:
    """The logger of every module. It is the library's own, from the first event on."""

    def __init__(self) -> None:
        self._level: str | None = None
        self._logger: FilteringBoundLogger | None = None

    def choose(self, level: str) -> None:
        self._level, self._logger = level, None

    def load(self) -> FilteringBoundLogger:
        if self._logger is None:
            with lean.loading(without=("rich",)):
                import structlog
            if self._level is not None:
                configure(self._level)
            self._logger = structlog.get_logger()
        return self._logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)


_LATER: Final = _Later()


def get_logger() -> FilteringBoundLogger:
    """What a module logs with."""
    return cast("FilteringBoundLogger", _LATER)


def choose(level: str) -> None:
    """Say what will be logged, before anything is; it is set up with the first event."""
    _LATER.choose(level)


def load() -> None:
    """Load the library and set logging up now, in whatever thread has the time."""
    _LATER.load()


def configure(level: str) -> None:
    """Set logging up, once, before anything logs."""
    import structlog

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
    from structlog import DropEvent
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
    raise DropEvent
