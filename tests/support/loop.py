# SPDX-License-Identifier: GPL-3.0-or-later
"""Asynchronous tests: each one runs in an event loop of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")

PATIENCE = 20.0
"""Seconds after which a test that waits for something has failed."""


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function; what nobody handled in the loop fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        unhandled: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
            await test(*args, **kwargs)

        asyncio.run(main())
        assert unhandled == [], unhandled

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens on its own and that nothing announces."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 — what is observed has no event
            await asyncio.sleep(0.002)
