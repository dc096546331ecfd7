# SPDX-License-Identifier: GPL-3.0-or-later
"""An event loop whose clock moves only when it would sleep: tests of timers take no time and depend on none."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop that jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """The moment it is for everything in this loop."""
        return self.now


class _Jumping(selectors.DefaultSelector):
    """Looks for events without waiting, and lets the time pass that it would have waited."""

    def __init__(self, loop: ClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen in this loop again"
        ready = super().select(0)
        if not ready:
            self._loop.now += timeout
        return ready


def on_clock(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function that runs in a loop of this kind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=ClockLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
