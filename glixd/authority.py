# SPDX-License-Identifier: GPL-3.0-or-later
"""Who decides on a system: root may do everything, everybody else what polkit allows. Anything but a plain yes is a no.

Every action of a request is first asked about without a dialogue, and one that is plainly refused ends it. Of those that
are left, which a password would open, the strongest is asked for with a dialogue: one prompt for one request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final

from glixd.api import Caller
from glixd.backends.polkit import Answer, Polkit, Subject, subject_of
from glixd.errors import Cancelled, NotAllowed
from glixd.policy import Check, prompted
from glixd.protocol import MAX_CHECKS_PER_UID, ErrorCode

PATIENCE: Final = 120.0
"""Seconds after which a request that nobody has authorised is over."""
OVERFLOW_UID: Final = 65534
"""What the kernel says where it can't say whose process it is: the uid of nobody, and of anybody."""
MAX_UID: Final = 0x7FFFFFFF
"""polkit, and with it everything that it asks, counts uids in 32 bits with a sign."""


class PolkitAuthority:
    """System mode."""

    def __init__(
        self, polkit: Polkit | None, *, checks_per_uid: int = MAX_CHECKS_PER_UID, patience: float = PATIENCE
    ) -> None:
        self._polkit = polkit
        self._checks_per_uid = checks_per_uid
        self._patience = patience
        self._turns: dict[int, asyncio.Semaphore] = {}
        self._asking: Counter[int] = Counter()

    async def authorise(self, caller: Caller, checks: Sequence[Check], *, interactive: bool) -> None:
        """Return when every check is allowed; raise NotAllowed else, or Cancelled when the caller left meanwhile."""
        if caller.uid == 0 or not checks:
            return
        polkit = self._polkit
        if polkit is None:
            raise NotAllowed(
                "There is no bus, and without one polkit can't be asked.",
                code=ErrorCode.AUTHORISATION_UNAVAILABLE,
                hint="Root needs no polkit.",
            )
        if not 0 < caller.uid <= MAX_UID or caller.uid == OVERFLOW_UID:
            raise NotAllowed(
                f"uid {caller.uid} stands for nobody in particular, so it can't be authorised.",
                hint="Ask as a user of this machine.",
                details={"action": checks[0].action},
            )
        await self._while_here(caller, self._in_turn(polkit, caller, checks, interactive=interactive))
        if subject_of(caller) is None:  # a pid says who it was only if the process still runs after the answer
            raise _gone()

    async def problem(self) -> str | None:
        """Why nobody but root can be authorised; None where all is well."""
        return await self._polkit.problem() if self._polkit else "there is no bus, and without one no polkit"

    async def _while_here(self, caller: Caller, decision: Coroutine[object, object, None]) -> None:
        """Decide, and take every question back as soon as the caller has left or the time is over."""
        asking = asyncio.get_running_loop().create_task(decision)
        with caller.presence.watched(asking.cancel):
            try:
                async with asyncio.timeout(self._patience):
                    await asking
            except NotAllowed:
                if subject_of(caller) is None:  # what polkit says about somebody who is not there is beside the point
                    raise _gone() from None
                raise
            except TimeoutError:
                raise NotAllowed(
                    "Nobody has authorised the request in time.",
                    code=ErrorCode.AUTHORISATION_TIMED_OUT,
                    hint="Do it again, and answer the password dialogue.",
                ) from None
            except asyncio.CancelledError:
                if not caller.presence.here:
                    raise _gone() from None
                raise
            finally:
                asking.cancel()

    async def _in_turn(self, polkit: Polkit, caller: Caller, checks: Sequence[Check], *, interactive: bool) -> None:
        async with self._turn(caller.uid):
            subject = subject_of(caller)
            if subject is None:
                raise _gone()
            await self._decide(polkit, subject, checks, interactive=interactive)

    async def _decide(self, polkit: Polkit, subject: Subject, checks: Sequence[Check], *, interactive: bool) -> None:
        closed = []
        for check in checks:
            answer = await polkit.check(
                subject, check.action, check.details, interactive=False, patience=self._patience
            )
            if answer is Answer.ASKABLE:
                closed.append(check)
            elif answer is not Answer.ALLOWED:
                raise _refused(check)
        if not closed:
            return
        if not interactive:
            raise _needs_a_password(closed[0])
        asked = prompted(closed, checks)
        answer = await polkit.check(subject, asked.action, asked.details, interactive=True, patience=self._patience)
        match answer:
            case Answer.ALLOWED:
                return
            case Answer.DISMISSED:
                raise NotAllowed("The password dialogue was closed.", code=ErrorCode.AUTHORISATION_DISMISSED)
            case Answer.ASKABLE:
                raise NotAllowed(
                    "A password is needed, and there is nothing that could ask for it.",
                    code=ErrorCode.AUTHORISATION_UNAVAILABLE,
                    hint="Start pkttyagent, or ask from a desktop session, or as root.",
                    details={"action": asked.action},
                )
            case _:
                raise _refused(asked)

    @asynccontextmanager
    async def _turn(self, uid: int) -> AsyncIterator[None]:
        """One of the few requests of a uid that may ask at the same time; more of them wait."""
        turns = self._turns.setdefault(uid, asyncio.Semaphore(self._checks_per_uid))
        self._asking[uid] += 1
        try:
            async with turns:
                yield
        finally:
            self._asking[uid] -= 1
            if not self._asking[uid]:
                del self._asking[uid], self._turns[uid]


def _refused(check: Check) -> NotAllowed:
    return NotAllowed(
        "You may not do that.",
        hint="An administrator can allow it by a polkit rule.",
        details={"action": check.action},
    )


def _needs_a_password(check: Check) -> NotAllowed:
    return NotAllowed(
        "That needs a password, and the request does not allow to ask for one.",
        hint="Leave --no-ask out; a program asks with `interactive`, on D-Bus with ALLOW_INTERACTIVE_AUTHORIZATION.",
        details={"action": check.action},
    )


def _gone() -> Cancelled:
    return Cancelled("Whoever asked has left before it was authorised; nothing was changed.")
