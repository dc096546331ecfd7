# SPDX-License-Identifier: GPL-3.0-or-later
"""An authentication agent for tests: polkit asks it instead of a person, and it counts how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from glixd.backends.bus import Bus, Message, Variant

POLKIT: Final = "org.freedesktop.PolicyKit1"
AUTHORITY: Final = "/org/freedesktop/PolicyKit1/Authority"
OBJECT: Final = "/org/glixos/TestAgent"


class Reply(StrEnum):
    """What the person does."""

    YES = "gives the right password"
    NO = "gives a wrong one"
    DISMISS = "closes the dialogue"
    NEVER = "does nothing"


@dataclass(frozen=True)
class Prompt:
    """One dialogue."""

    action: str
    message: str
    details: dict[str, str]


@dataclass
class Agent:
    """An agent on the bus, as root: the only one who may tell polkit that somebody has authenticated."""

    bus: Bus
    reply: Reply = Reply.YES
    prompts: list[Prompt] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    _work: set[asyncio.Task[None]] = field(default_factory=set)
    _open: dict[str, Message] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)

    @property
    def taken_back(self) -> int:
        """How many dialogues polkit has closed again; it may say so twice of one whose caller has left the bus."""
        return len(self._closed)

    async def serve(self, kind: str, **facts: tuple[str, Any]) -> None:
        """Be the agent of a subject: `unix-process` with pid and start-time, or a session."""
        subject = [kind, {name.replace("_", "-"): Variant(*value) for name, value in facts.items()}]
        await self._call("RegisterAuthenticationAgent", "(sa{sv})ss", [subject, "C", OBJECT])

    async def serve_process(self, pid: int) -> None:
        """Be the agent of a process."""
        with open(f"/proc/{pid}/stat") as file:  # noqa: ASYNC230
            start = int(file.read().rpartition(")")[2].split()[19])
        await self.serve("unix-process", pid=("u", pid), start_time=("t", start))

    def handle(self, message: Message) -> None:
        """What polkit calls."""
        if message.member == "BeginAuthentication":
            task = asyncio.get_running_loop().create_task(self._begin(message))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
            return
        if message.member == "CancelAuthentication":
            self._closed.add(message.body[0])
            if waiting := self._open.pop(message.body[0], None):
                self.bus.refuse(waiting, f"{POLKIT}.Error.Cancelled", "taken back")
        self.bus.answer(message)

    async def _begin(self, message: Message) -> None:
        action, text, _, details, cookie, identities = message.body
        self.prompts.append(Prompt(action, text, details))
        self.asked.set()
        match self.reply:
            case Reply.YES:
                # polkit waits for the answer of this process, and for the agent to have ended, in this order
                body = [0, cookie, identities[0]]
                await self._call("AuthenticationAgentResponse2", "us(sa{sv})", body)
                self.bus.answer(message)
            case Reply.NO:
                self.bus.answer(message)
            case Reply.DISMISS:
                self.bus.refuse(message, f"{POLKIT}.Error.Cancelled", "closed")
            case Reply.NEVER:
                self._open[cookie] = message

    async def _call(self, member: str, signature: str, body: list[Any]) -> None:
        await self.bus.call(
            Message(
                destination=POLKIT,
                path=AUTHORITY,
                interface=f"{POLKIT}.Authority",
                member=member,
                signature=signature,
                body=body,
            )
        )


@asynccontextmanager
async def agent(address: str, reply: Reply = Reply.YES) -> AsyncIterator[Agent]:
    """An agent that answers in one way."""
    bus = await Bus.connect(address)
    made = Agent(bus, reply)
    bus.handler = made.handle
    try:
        yield made
    finally:
        await bus.close()
