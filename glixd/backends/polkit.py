# SPDX-License-Identifier: GPL-3.0-or-later
"""polkit: may a subject do an action? Every answer but a plain yes is something else than yes, and so is every failure.

The actions that are asked for have to be registered with polkit, since one that is not can only fail. That is looked up
before the first question, and again whenever polkit has come back or says that its actions changed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from glixd.api import Caller
from glixd.backends.bus import Bus, BusError, Message, MessageFlag, Variant
from glixd.errors import GlixError, NotAllowed
from glixd.log import get_logger
from glixd.protocol import ErrorCode
from glixd.values import dataclass

log = get_logger()

NAME: Final = "org.freedesktop.PolicyKit1"
PATH: Final = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE: Final = "org.freedesktop.PolicyKit1.Authority"
SILENCE: Final = 10.0
"""Seconds after which a polkit that was asked something it need not ask anybody about counts as hanging."""

_ALLOW_USER_INTERACTION: Final = 1
_DISMISSED: Final = "polkit.dismissed"
_MAX_UID: Final = 0x7FFFFFFF
"""polkit counts uids in 32 bits with a sign."""


class Answer(StrEnum):
    """What polkit says."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    ASKABLE = "askable"
    """Not now, but after a password: nobody was asked, or nobody could be."""
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom polkit is asked about."""

    kind: str
    facts: Mapping[str, Variant]


def subject_of(caller: Caller) -> Subject | None:
    """A caller as polkit knows it: a connection of the bus, or a process with its uid; None where it is neither any more."""
    if not caller.presence.here:
        return None
    if caller.address.startswith(":"):
        return Subject("system-bus-name", {"name": Variant("s", caller.address)})
    process = caller.process
    if process is None or not process.alive or not 0 <= caller.uid <= _MAX_UID:
        return None
    facts = {"pid": ("u", process.pid), "start-time": ("t", process.start), "uid": ("i", caller.uid)}
    return Subject("unix-process", {name: Variant(*value) for name, value in facts.items()})


class Polkit:
    """The door to polkit on one bus."""

    def __init__(self, bus: Bus, actions: frozenset[str], *, silence: float = SILENCE) -> None:
        self._bus = bus
        self._actions = actions
        self._silence = silence
        self._known = False
        self._changes = 0
        self._examining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Hear from the bus when polkit comes, goes or changes its mind."""
        await self._bus.subscribe("org.freedesktop.DBus", "NameOwnerChanged", self._owner_changed, f"arg0='{NAME}'")
        await self._bus.subscribe(INTERFACE, "Changed", self._changed, f"sender='{NAME}'")

    async def check(
        self, subject: Subject, action: str, details: Mapping[str, str], *, interactive: bool, patience: float
    ) -> Answer:
        """Ask about one action; raises AuthorisationUnavailable. With `interactive` polkit may ask a person.

        Giving up, after `patience` seconds or by cancellation, takes the question back, with its dialogue.
        """
        await self.ready()
        identity = secrets.token_hex(16)
        flags = _ALLOW_USER_INTERACTION if interactive else 0
        body = [[subject.kind, dict(subject.facts)], action, dict(details), flags, identity]
        call = Message(
            destination=NAME,
            path=PATH,
            interface=INTERFACE,
            member="CheckAuthorization",
            signature="(sa{sv})sa{ss}us",
            body=body,
        )
        answered = False
        try:
            reply = await self._bus.call(call, patience if interactive else min(patience, self._silence))
            answered = True
            return _answer(reply)
        except BusError as error:
            answered = error.code is not ErrorCode.TIMED_OUT
            if interactive and not answered:
                raise _timed_out() from error
            raise _unavailable(error) from error
        finally:
            if not answered:
                self._take_back(identity)

    async def ready(self) -> None:
        """Return when polkit knows every action; raises AuthorisationUnavailable else."""
        while not self._known:
            if self._examining is None or self._examining.done():
                self._examining = asyncio.get_running_loop().create_task(self._examine())
                self._examining.add_done_callback(_heard)
            await asyncio.shield(self._examining)

    async def problem(self) -> str | None:
        """Why nobody can be authorised, as far as can be told by asking anew; None where all is well."""
        self._known = False
        try:
            await self.ready()
        except GlixError as error:
            return error.message
        return None

    async def _examine(self) -> None:
        """Compare the actions that polkit knows with those that are asked for."""
        changes = self._changes
        call = Message(
            destination=NAME, path=PATH, interface=INTERFACE, member="EnumerateActions", signature="s", body=[""]
        )
        try:
            reply = await self._bus.call(call, self._silence)
        except BusError as error:
            raise _unavailable(error) from error
        if reply.signature != "a(ssssssuuua{ss})":
            raise NotAllowed("What answers as polkit is none.", code=ErrorCode.AUTHORISATION_UNAVAILABLE)
        missing = sorted(self._actions - {action[0] for action in reply.body[0]})
        if missing:
            raise NotAllowed(
                f"polkit does not know {_some(missing)}, so nobody can be asked about it.",
                code=ErrorCode.AUTHORISATION_UNAVAILABLE,
                hint="Install org.glixos.glix1.policy into /usr/share/polkit-1/actions, whole and of this version.",
                details={"missing": missing},
            )
        self._known = changes == self._changes

    def _take_back(self, identity: str) -> None:
        """Let polkit forget a question; nobody waits for what it says to that."""
        if self._bus.lost.done():
            return
        self._bus.send(
            Message(
                destination=NAME,
                path=PATH,
                interface=INTERFACE,
                member="CancelCheckAuthorization",
                signature="s",
                body=[identity],
                flags=MessageFlag.NO_REPLY_EXPECTED | MessageFlag.NO_AUTOSTART,
            )
        )

    def _owner_changed(self, message: Message) -> None:
        if message.sender == "org.freedesktop.DBus" and message.signature == "sss" and message.body[0] == NAME:
            self._forget()

    def _changed(self, _message: Message) -> None:
        self._forget()  # whoever sent it: to look again never makes anything allowed

    def _forget(self) -> None:
        self._known = False
        self._changes += 1


def _heard(examined: asyncio.Task[None]) -> None:
    """Whoever waited for it may have given up; then its error is nobody's."""
    if not examined.cancelled():
        examined.exception()


def _answer(reply: Message) -> Answer:
    """What an answer means. Only a plain yes, in the form that polkit has, is one."""
    if reply.signature != "(bba{ss})":
        raise NotAllowed("What answers as polkit is none.", code=ErrorCode.AUTHORISATION_UNAVAILABLE)
    authorised, challenge, details = reply.body[0]
    if authorised is True:
        return Answer.ALLOWED
    if details.get(_DISMISSED):
        return Answer.DISMISSED
    return Answer.ASKABLE if challenge else Answer.REFUSED


def _unavailable(error: BusError) -> NotAllowed:
    log.warning("polkit does not answer", error=error.name, reason=error.message)
    hanging = error.code is ErrorCode.TIMED_OUT
    return NotAllowed(
        "polkit does not answer, so nobody can be authorised."
        if hanging
        else "polkit can't be asked, so nobody can be authorised.",
        code=ErrorCode.AUTHORISATION_UNAVAILABLE,
        hint="`systemctl status polkit` says more; root needs no polkit.",
    )


def _timed_out() -> NotAllowed:
    return NotAllowed(
        "Nobody answered the password dialogue in time.",
        code=ErrorCode.AUTHORISATION_TIMED_OUT,
        hint="Do it again, and answer within two minutes.",
    )


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more of the actions of glixd"
