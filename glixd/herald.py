# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling how far a transaction is: its state to everybody, its steps and its progress to those who watch it."""

from __future__ import annotations

from typing import Any

from glixd import api
from glixd.backends.logs import Logs
from glixd.protocol import State
from glixd.queue import Ticket
from glixd.rebuilding.building import News, told
from glixd.watchers import Watchers


class Herald:
    """Lives on the event loop."""

    def __init__(self, watchers: Watchers, logs: Logs) -> None:
        self._watchers = watchers
        self._logs = logs

    def state(self, ticket: Ticket, state: State) -> None:
        """A transaction is in another state."""
        ticket.state = state
        self._watchers.progress(api.ProgressEvent(transaction=ticket.id, state=state, step=ticket.step))
        self._watchers.state_changed(ticket.id, state)

    def step(self, ticket: Ticket, title: str) -> None:
        """A transaction does something else."""
        if ticket.state.final:
            return
        ticket.step = title
        ticket.log.append(title)
        self._watchers.progress(
            api.ProgressEvent(transaction=ticket.id, state=ticket.state, step=title, lines=(title,))
        )

    def news(self, ticket: Ticket, news: News) -> None:
        """How far a rebuild is."""
        if ticket.state.final:
            return
        fields: dict[str, Any] = told(news.progress)
        self._watchers.progress(
            api.ProgressEvent(transaction=ticket.id, state=ticket.state, step=ticket.step, lines=news.lines, **fields)
        )

    def write(self, ticket: Ticket, lines: tuple[str, ...]) -> None:
        """Keep lines in the whole log of a transaction; from any thread."""
        self._logs.append(ticket.id, lines)
