# SPDX-License-Identifier: GPL-3.0-or-later
"""The live view of a build on a terminal: a bar, what is being built with the last line of its log, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from glixctl import output

SHOWN = 6
"""Derivations that are shown at once."""


class View:
    """Rewrites a few lines at the end of a terminal, and leaves nothing behind."""

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        self._console = console or Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._live.start()

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event; what an activation says stays on the screen."""
        if event.get("phase") == "activating":
            for line in event.get("lines") or ():
                self._console.print(Text("  " + output.escape(line)))
        self._live.update(rendered(event), refresh=True)

    def close(self) -> None:
        """Take the view away."""
        self._live.update(Text(""), refresh=True)
        self._live.stop()


def rendered(event: Mapping[str, Any]) -> Group:
    """What an event looks like."""
    percent = event.get("percent")
    head = Table.grid(padding=(0, 1))
    elapsed = Text(output.duration(event.get("elapsed") or 0), style="dim")
    bar = ProgressBar(total=100, completed=percent or 0, width=24, pulse=percent is None)
    head.add_row(bar, Text(output.stage({**event, "current": ()}), overflow="ellipsis", no_wrap=True), elapsed)
    rows = Table.grid(padding=(0, 1))
    for one in (event.get("current") or ())[:SHOWN]:
        rows.add_row(
            Text("  " + output.escape(one["name"]), style="bold", no_wrap=True),
            Text(output.escape(one.get("phase") or ""), style="cyan", no_wrap=True),
            Text(output.escape(one.get("line") or ""), style="dim", overflow="ellipsis", no_wrap=True),
        )
    return Group(head, rows)
