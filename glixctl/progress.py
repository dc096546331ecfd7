# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transaction is doing, shown while it runs: a live line or view on a terminal, plain lines in a pipe, or JSON."""

from __future__ import annotations

import sys
import time

from glixctl import output, wire
from glixd.protocol import ENDS, WAITING_FOR_AUTHORISATION

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TextIO

    from glixctl.live import View

BRIEF = 1.0
"""Seconds in which a change that is over need not have said what it was doing."""


class Progress:
    """What a transaction is doing: one line that is rewritten on a terminal, a line for each step in a pipe.

    How it ended is the answer's to say. In a pipe the steps of a transaction that is over at once are never printed; with
    `log`, for somebody who came to watch, each is printed when it begins, and so is the log. A build on a terminal gets a view
    of its own; in a pipe it gets a line for every tenth of it. With `documents`, each event is one line of JSON.
    """

    def __init__(
        self,
        *,
        quiet: bool,
        log: bool = False,
        documents: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._log = log
        self._documents = documents
        self._view: View | None = None
        self._tenth = (0, "")
        self._live = output.is_terminal(self._stream)
        self._last = ""
        self._held: list[str] = []
        self._clock = clock
        self._patient_until = clock() + (0 if log else BRIEF)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event of the daemon."""
        if self._quiet:
            return
        if self._documents:
            output.say(self._stream, wire.dumps(event))
            return
        if event.get("phase"):
            self._build(event)
            return
        if event.get("state") == WAITING_FOR_AUTHORISATION:
            self.clear()  # the line belongs to whoever asks for a password
            return
        self._end_view()
        if self._log:
            self._show_log(event.get("lines") or ())
        text = output.escape(event.get("step") or event.get("state") or "")
        if not text or event.get("state") in ENDS:
            return
        if self._live:
            self._rewrite(text + output.share(event))
        else:
            self._list(text)

    def clear(self) -> None:
        """Take the live line away."""
        self._end_view()
        if self._live and self._last:
            self._last = ""
            output.write(self._stream, "\r\x1b[K")

    def _end_view(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None

    def _build(self, event: Mapping[str, Any]) -> None:
        """How far a build is: in a view on a terminal where rich is installed, else in plain lines."""
        if self._live and self._view is None:
            self.clear()
            try:
                from glixctl.live import View  # rich is slow to load, and an extra
            except ImportError:
                self._view = None
            else:
                self._view = View(self._stream)
        if self._view is not None:
            self._view.show(event)
        elif self._live:
            self._rewrite(output.stage(event))
        elif self._log or event["phase"] == "activating":
            self._show_log(event.get("lines") or ())
        else:
            tenth = (int((event.get("percent") or 0) // 10), str(event["phase"]))
            if tenth != self._tenth:
                self._tenth = tenth
                self._list(output.stage(event))

    def _rewrite(self, text: str) -> None:
        self._last = output.cut(text, (output.terminal_columns(self._stream) or 80) - 1)
        output.write(self._stream, f"\r{self._last}\x1b[K")

    def _list(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._held.append(text)
        if self._clock() >= self._patient_until:
            for held in self._held:
                output.say(self._stream, held)
            self._held.clear()

    def _show_log(self, lines: Iterable[object]) -> None:
        for text in lines:
            self.clear()
            output.say(self._stream, f"  {output.escape(text)}")
