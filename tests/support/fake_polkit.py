# SPDX-License-Identifier: GPL-3.0-or-later
"""A service in the place of polkit that answers as a test says: also what the real one says only when it is broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from glixd.actions import REGISTERED
from glixd.backends.bus import Bus, Message, Variant
from glixd.backends.polkit import NAME

RESULT: Final = "(bba{ss})"

Answers = Callable[[Message], None]


@dataclass
class FakePolkit:
    """The service. `answer` is called for every check; one that answers nothing hangs."""

    bus: Bus
    answer: Answers
    actions: frozenset[str] = REGISTERED
    checks: list[Message] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    enumerations: int = 0

    def handle(self, message: Message) -> None:
        """Whatever is called."""
        match message.member:
            case "EnumerateActions":
                self.enumerations += 1
                body = [[name, *([""] * 5), 0, 0, 0, {}] for name in sorted(self.actions)]
                self.bus.answer(message, "a(ssssssuuua{ss})", [body])
            case "CheckAuthorization":
                self.checks.append(message)
                self.answer(message)
            case "CancelCheckAuthorization":
                self.taken_back.append(message.body[0])
                self.bus.answer(message)

    def say(self, *, authorised: bool, challenge: bool = False, **details: str) -> Answers:
        """Always the same answer."""
        told = {name.replace("_", "."): value for name, value in details.items()}
        return lambda message: self.bus.answer(message, RESULT, [[authorised, challenge, told]])

    def fail(self, name: str) -> Answers:
        """Always the same error."""
        return lambda message: self.bus.refuse(message, name, "as the test wants it")

    def spell(self, signature: str, *body: Any) -> Answers:
        """An answer of another form."""
        return lambda message: self.bus.answer(message, signature, body)

    def by_action(self, words: dict[str, tuple[bool, bool]]) -> Answers:
        """An answer for each action, named without its prefix; what is not named is refused."""

        def answer(message: Message) -> None:
            authorised, challenge = words.get(message.body[1].rpartition(".")[2], (False, False))
            interactive = bool(message.body[3] & 1)
            if challenge and interactive:
                authorised, challenge = True, False
            self.bus.answer(message, RESULT, [[authorised, challenge, {}]])

        return answer

    def change(self) -> None:
        """Say that the actions changed."""
        self.bus.signal(
            "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority", "Changed", "", []
        )


@asynccontextmanager
async def fake_polkit(address: str) -> AsyncIterator[FakePolkit]:
    """The service on a bus, refusing everything until it is told otherwise."""
    bus = await Bus.connect(address)
    made = FakePolkit(bus, lambda _: None)
    made.answer = made.say(authorised=False)
    bus.handler = made.handle
    await bus.request_name(NAME)
    try:
        yield made
    finally:
        await bus.close()


def asked(check: Message) -> tuple[str, dict[str, Any], str, dict[str, str], bool]:
    """A check as it arrived: kind and facts of the subject, action, details, and whether a person may be asked."""
    (kind, facts), action, details, flags, _ = check.body
    plain = {name: value.value if isinstance(value, Variant) else value for name, value in facts.items()}
    return kind, plain, action.rpartition(".")[2], details, bool(flags & 1)
