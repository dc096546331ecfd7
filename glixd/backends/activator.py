# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the activator, the program of root that makes a built system the running one.

One connection carries one order: a line of JSON there, lines of JSON back. The activator asks polkit itself, about the
caller whom the order names; it believes nothing else that it is told. Its result is in a file too, since a switch may
restart the daemon that waits for it.
"""

from __future__ import annotations

import fcntl
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from glixd.backends.doorway import Doorway
from glixd.backends.process import Cancellation
from glixd.errors import Cancelled, Failed, GlixError, NotAllowed, Refused
from glixd.protocol import ErrorCode
from glixd.values import dataclass

ORDER_LIMIT: Final = 4096
"""Bytes of an order."""
GO: Final = b"go\n"
"""What the activator waits for after it was told that the caller may: from there on nothing stops it."""
READY: Final = 300.0
"""Seconds for which a connection without an order is good; the activator waits for twice as long."""
TRANSACTION_ID: Final = frozenset("0123456789abcdefghjkmnpqrstvwxyz")

OnLine = Callable[[str], None]


class Action(StrEnum):
    """What is to become of a built system; the words of switch-to-configuration."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    DRY_ACTIVATE = "dry-activate"


class Status(StrEnum):
    """How an activation ended."""

    DONE = "done"
    UNITS_FAILED = "units-failed"
    """The system is switched, and some of its units failed."""
    REBOOT_NEEDED = "reboot-needed"
    """The system is switched, and part of it waits for a reboot."""
    FAILED = "failed"
    """The activation script failed: what runs is between the two systems."""
    INTERRUPTED = "interrupted"
    """The activator was killed in the middle."""
    RUNNING = "running"
    """It has not ended yet."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the activator is asked to do."""

    transaction: str
    commit: str
    """What `refs/heads/main` says; for a generation that exists already, the commit it was built from or empty."""
    path: str
    """The system in the store."""
    action: Action
    caller: str
    """The subject of the authorisation: a unique bus name (`:1.42`), or `pid:1234` after a pidfd check."""
    generation: int | None = None
    """Switch the profile back to this generation, whose system `path` is, instead of making a new one."""
    interactive: bool = False
    """Whether the caller may be asked for a password."""

    def line(self) -> bytes:
        """The order as it is sent; raises Refused when it is too long."""
        words: dict[str, str | int] = {
            "transaction": self.transaction,
            "commit": self.commit,
            "path": self.path,
            "action": self.action.value,
            "caller": self.caller,
            "interactive": self.interactive,
        }
        if self.generation is not None:
            words["generation"] = self.generation
        line = json.dumps(words, ensure_ascii=True).encode() + b"\n"
        if len(line) > ORDER_LIMIT:
            raise Refused("The order for the activator is too long.", code=ErrorCode.TOO_LARGE)
        return line


@dataclass(frozen=True, slots=True)
class Activated:
    """How an activation went."""

    status: Status
    failed_units: tuple[str, ...] = ()
    reboot_needed: bool = False
    generation: int | None = None
    """The generation of the profile that is now the current one, where the profile was set."""
    tail: tuple[str, ...] = ()
    """The last lines of what was said."""

    @classmethod
    def parse(cls, value: Any) -> Activated:
        """What the activator wrote; raises ValueError for anything else."""
        generation, status = value["generation"], Status(value["status"])
        return cls(
            status,
            tuple(str(unit) for unit in value["failed_units"]),
            status is Status.REBOOT_NEEDED,
            generation if isinstance(generation, int) else None,
            tuple(str(line) for line in value["tail"]),
        )


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What the daemon does while the activator is at work."""

    it_is_checked: Callable[[], object] = lambda: None
    """What has to be done before the activator may go on; what it raises is why it may not."""
    it_is_done: Callable[[], object] = lambda: None
    """What can be done once it goes on; it is quick, and raises nothing."""


NOTHING: Final = Meanwhile()


class Activator(Protocol):
    """Whoever activates a built system."""

    def knock(self) -> None:
        """Have the activator started, since there will probably be an order soon; harmless where there is none."""

    def stay_ready(self) -> None:
        """Have it started in a moment, since there may be another order soon."""

    def activate(
        self, order: Order, on_line: OnLine, cancellation: Cancellation, meanwhile: Meanwhile = NOTHING
    ) -> Activated:
        """Activate a system; raises NotAllowed, Refused or Cancelled, and then nothing was changed.

        From the moment the caller is known to be allowed the cancellation is sealed. `on_line` hears what is said.
        """

    def result(self, transaction: str) -> Activated | None:
        """How an earlier activation ended, whoever asked for it; None where there was none."""


class ActivatorDoor:
    """The activator behind its socket."""

    def __init__(self, path: Path, results: Path) -> None:
        self._results = results
        self._doorway = Doorway(path, program="activator", unit="glixd-activate.socket", patience=READY)

    def knock(self) -> None:
        """Let the activator start; any order may take it."""
        self._doorway.knock()

    def stay_ready(self) -> None:
        """Let it start in a moment."""
        self._doorway.stay_ready()

    def activate(
        self, order: Order, on_line: OnLine, cancellation: Cancellation, meanwhile: Meanwhile = NOTHING
    ) -> Activated:
        """Send the order, and hear what becomes of it."""
        line = order.line()
        cancellation.check()
        with self._doorway.connect() as connection:
            cancellation.follow(_Connection(connection))
            try:
                connection.sendall(line)
                meanwhile.it_is_checked()
                answer = _listen(connection, on_line, cancellation, meanwhile)
            except OSError as error:
                raise Failed(f"The activator does not answer: {error.strerror}.") from error
            finally:
                cancellation.follow(None)
        if answer is None:
            cancellation.check()
            answer = self.result(order.transaction) or Activated(Status.INTERRUPTED)
        return answer

    def result(self, transaction: str) -> Activated | None:
        """Read the file that the activator wrote: one that says no more than that it began is of one that runs or died."""
        if not transaction or not set(transaction) <= TRANSACTION_ID:
            return None
        file = self._results / f"{transaction}.json"
        try:
            activated = Activated.parse(json.loads(file.read_text()))
            if activated.status is not Status.INTERRUPTED or not self._is_running():
                return activated
            again = Activated.parse(json.loads(file.read_text()))  # it may have ended between the two looks
            return replace(again, status=Status.RUNNING) if again.status is Status.INTERRUPTED else again
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"The result of the activation {transaction} can't be read: {error}.") from error

    def _is_running(self) -> bool:
        """Whether the activator holds its lock."""
        with (self._results / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


class _Connection:
    """What a cancellation stops: the activator takes the end of its connection as a no."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def stop(self) -> None:
        """End the connection; the reader sees its end."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _listen(
    connection: socket.socket, on_line: OnLine, cancellation: Cancellation, meanwhile: Meanwhile
) -> Activated | None:
    """The result that comes over a connection; None where it ends without one."""
    with connection.makefile("rb") as lines:
        for raw in lines:
            message = json.loads(raw)
            match message:
                case {"line": str(said)}:
                    on_line(said)
                case {"allowed": True}:
                    cancellation.seal()  # whoever cancelled before this is heard: the connection ends without the word
                    connection.sendall(GO)
                    meanwhile.it_is_done()
                case {"refused": {"code": str(code), "message": str(words)}}:
                    raise _refusal(code, words)
                case {"result": value}:
                    return Activated.parse(value)
                case _:
                    raise Failed("The activator answered what it never should.")
    return None


def _refusal(code: str, words: str) -> GlixError:
    known = ErrorCode(code) if code in set(ErrorCode) else ErrorCode.NOT_AUTHORISED
    match known:
        case (
            ErrorCode.NOT_AUTHORISED
            | ErrorCode.AUTHORISATION_DISMISSED
            | ErrorCode.AUTHORISATION_TIMED_OUT
            | ErrorCode.AUTHORISATION_UNAVAILABLE
        ):
            return NotAllowed(words, code=known)
        case ErrorCode.CANCELLED:
            return Cancelled(words)
        case ErrorCode.INTERNAL | ErrorCode.ACTIVATION_FAILED:
            return Failed(words, code=known)
        case _:
            return Refused(words, code=known)
