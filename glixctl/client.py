# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation with the daemon: where it is, one request after the other, and the end of a transaction.

On the socket a message is one line of JSON-RPC 2.0. The `_socket` module is the socket type that `socket` wraps; the
wrapper costs more time to load than the whole conversation takes.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from glixctl import wire, wish
from glixctl.errors import UNREACHABLE, ClientError, Disconnected, NotListening, Unreachable, UsageError
from glixd.protocol import CANCELLED, SYSTEM_SOCKET, user_repository, user_socket

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    Answer = dict[str, Any]
    OnProgress = Callable[[Answer], None]

    class Transport(Protocol):
        """One connection to the daemon."""

        def request(self, method: str, params: Mapping[str, Any], on_progress: OnProgress) -> Answer:
            """The result of one request."""

        def close(self) -> None:
            """End the connection."""


WAIT = 300.0
"""Seconds for which one `Wait` waits; it is repeated until the transaction has ended."""
SILENCE = WAIT + 30
"""Seconds after which a daemon that says nothing counts as unreachable."""
START = 15.0
"""Seconds in which the user's daemon has to come up."""
AFTER_CANCEL = 10.0
"""Seconds for which an interrupted client waits to learn how the transaction ended."""

RETURN = 60.0
"""Seconds in which a daemon of the system that went away has to come back."""
PAUSE = 0.1

MODES = ("user", "system")
TRANSPORTS = ("socket", "bus")


class Target:
    """The daemon that is meant: its mode, its socket, the transport and, in user mode, its repository."""

    __slots__ = ("mode", "note", "repository", "socket", "transport")

    def __init__(self, mode: str, socket: str, transport: str, repository: str | None = None, note: str = "") -> None:
        self.mode = mode
        self.socket = socket
        self.transport = transport
        self.repository = repository
        self.note = note
        """Which daemon was chosen, where there are two."""

    @classmethod
    def choose(
        cls,
        environment: Mapping[str, str],
        *,
        mode: str | None = None,
        directory: str | None = None,
        transport: str | None = None,
        system_socket: str = SYSTEM_SOCKET,
    ) -> Target:
        """The target that the flags and the environment name, else the system daemon where there is one."""
        system_there = os.path.exists(system_socket)
        mode = mode or _mode_of(environment) or ("system" if system_there and not directory else "user")
        if mode == "system":
            if directory:
                raise UsageError("--dir names a repository of user mode, and the mode is system.")
            there = user_socket(environment)
            note = f"asking the system daemon; --mode user asks yours ({there})" if os.path.exists(there) else ""
            return cls("system", system_socket, transport or ("socket" if system_there else "bus"), None, note)
        repository = os.path.abspath(directory) if directory else user_repository(environment)
        path = user_socket(environment, repository)
        if transport == "bus" and path != user_socket(environment):
            raise UsageError("Only the default repository has a name on the bus.", "Leave --transport out.")
        note = "asking your own daemon; --mode system asks the system's" if system_there else ""
        return cls("user", path, transport or "socket", repository, note if os.path.exists(path) else "")


class SocketTransport:
    """A connection to the daemon's Unix socket."""

    def __init__(self, path: str) -> None:
        self._socket = _connected(path)
        self._buffer = bytearray()
        self._answering = False
        self._id = 0

    def request(self, method: str, params: Mapping[str, Any], on_progress: OnProgress) -> Answer:
        """Send one request and return its result; progress that comes before it goes to `on_progress`."""
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self._send(wire.dumps(request).encode() + b"\n")
        while True:
            message = _parsed(self._line())
            if message.get("method") == "Progress":
                on_progress(message["params"])
            elif message.get("id") == self._id or (message.get("id") is None and "error" in message):
                return _result(message)

    def close(self) -> None:
        """End the connection; what was started goes on."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise _silent() from None
        except (BrokenPipeError, ConnectionResetError):
            return  # a daemon that turns callers away says why before it closes: that is still to be read
        except OSError as error:
            raise Unreachable(f"The daemon can't be asked: {error.strerror}.") from None

    def _line(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._buffer += self._received()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _received(self) -> bytes:
        try:
            received = self._socket.recv(1 << 16)
        except TimeoutError:
            raise _silent() from None
        except OSError:
            received = b""
        if not received:
            raise Disconnected(answering=self._answering)
        self._answering = True
        return received


class Client:
    """What commands talk to. It connects with the first request, and starts the user's daemon when nobody listens."""

    def __init__(self, target: Target, environment: Mapping[str, str], *, asks: bool = True) -> None:
        self.target = target
        self.asks = asks
        """Whether somebody may be asked for a password."""
        self.transaction: str | None = None
        """The transaction that this client started and waits for."""
        self._environment = environment
        self._transport: Transport | None = None

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        """The answer to a query; asked once more where the daemon was just about to end when it came."""
        first = self._transport is None
        try:
            return self._request(method, params or {}, _ignore)
        except Disconnected as lost:
            if not first or lost.answering:
                raise
            self.close()
            return self._request(method, params or {}, _ignore)

    def run(self, method: str, params: Mapping[str, Any], on_progress: OnProgress) -> Answer:
        """Start a mutation and return its transaction once that has ended, however it ended."""
        with self.answering():
            asked = {**params, "interactive": self.asks}
            started = self.transaction = str(self._request(method, asked, on_progress)["transaction"])
            wanted = wish.wants(self.target.mode, method, params, os.geteuid())
            if wanted:
                wish.say(started)
            try:
                transaction = self._wait(started, on_progress)
            finally:
                if wanted:
                    wish.take_back(started)
        self.transaction = None
        return transaction

    def answering(self) -> AbstractContextManager[None]:
        """Have somebody here who asks for a password when the daemon of the system wants one."""
        if self.asks and self.target.mode == "system":
            from glixctl import agent  # a daemon of one's own asks for nothing

            if agent.wanted():
                return agent.listening(self._environment)
        return _Nobody()

    def call_interactively(self, method: str, params: Mapping[str, Any]) -> Answer:
        """The answer to a query about what may be somebody else's."""
        with self.answering():
            return self.call(method, {**params, "interactive": self.asks})

    def watch(self, transaction: str, on_progress: OnProgress) -> Answer:
        """Follow a transaction that somebody started, and return it once it has ended."""
        self.call_interactively("Watch", {"transaction": transaction})
        return self._wait(transaction, on_progress)

    def interrupt(self) -> str:
        """Cancel the transaction under way, and say in a sentence what became of it."""
        if (transaction := self.transaction) is None:
            return "Interrupted."
        self.transaction = None
        self.close()
        look = f"`glixctl transaction show {transaction}` tells how it ended"
        try:
            ended = self._cancelled(transaction)
        except ClientError as error:
            return f"Interrupted; transaction {transaction} was not cancelled ({error.message}); {look}."
        if ended.get("state") == CANCELLED:
            return f"Interrupted; transaction {transaction} is cancelled and nothing was changed."
        return f"Interrupted; transaction {transaction} ended as {ended.get('state')}; {look}."

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _request(self, method: str, params: Mapping[str, Any], on_progress: OnProgress) -> Answer:
        if self._transport is None:
            self._transport = self._connect()
        return self._transport.request(method, params, on_progress)

    def _connect(self) -> Transport:
        try:
            return _open(self.target)
        except NotListening:
            if self.target.repository is None:
                raise
            return self._started(self.target.repository)

    def _started(self, repository: str) -> Transport:
        """A connection to the user's daemon, which is started unless somebody else is starting it."""
        from glixctl.start import start  # most commands find a daemon

        deadline = time.monotonic() + START
        while True:
            start(repository, self._environment, deadline)
            try:
                return _patiently(self.target, min(deadline, time.monotonic() + 1))
            except NotListening:
                if time.monotonic() >= deadline:
                    raise

    def _cancelled(self, transaction: str) -> Answer:
        connection = self._transport = _open(self.target)
        connection.request("Cancel", {"transaction": transaction}, _ignore)
        return connection.request("Wait", {"transaction": transaction, "timeout": AFTER_CANCEL}, _ignore)

    def _wait(self, transaction: str, on_progress: OnProgress) -> Answer:
        """The end of a transaction; a daemon of the system that goes away meanwhile, as in its own update, comes back."""
        patience = RETURN if self.target.mode == "system" else 0.0
        lost: float | None = None
        while True:
            try:
                return self._request("Wait", {"transaction": transaction, "timeout": WAIT}, on_progress)
            except ClientError as error:
                from glixd.protocol import ErrorCode

                if error.name == ErrorCode.TIMED_OUT:
                    lost = None
                elif error.name not in (UNREACHABLE, ErrorCode.INTERRUPTED):  # the daemon went away, or stops
                    raise
                else:
                    lost = lost or time.monotonic()
                    if time.monotonic() - lost >= patience:
                        raise _unknown(error, transaction) from error
                    self.close()
                    time.sleep(PAUSE)


class _Nobody:
    """Nobody who asks; `contextlib` has the same and takes a tenth of the start of a command to load."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _unknown(error: ClientError, transaction: str) -> Unreachable:
    return Unreachable(
        f"{error.message} What became of transaction {transaction} is not known here.",
        f"`glixctl transaction show {transaction}` looks it up; nothing is half done.",
    )


def _open(target: Target) -> Transport:
    if target.transport == "bus":
        from glixctl.bus import BusTransport  # the bus library is slow to load

        return BusTransport(target.mode, SILENCE)
    return SocketTransport(target.socket)


def _patiently(target: Target, deadline: float) -> Transport:
    """A connection to a daemon that is about to listen."""
    while True:
        try:
            return _open(target)
        except NotListening:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _connected(path: str) -> _socket.socket:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    connection.settimeout(SILENCE)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            hint = "`systemctl status glixd.socket glixd.service` says why." if path == SYSTEM_SOCKET else ""
            raise NotListening(f"No daemon listens at {path}: {reason}.", hint) from None
        raise Unreachable(f"The daemon's socket {path} can't be used: {reason}.") from None
    return connection


def _silent() -> Unreachable:
    return Unreachable(f"The daemon has said nothing for {SILENCE:.0f} seconds.")


def _parsed(line: bytes) -> Answer:
    try:
        message = wire.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Unreachable("What answers is no glixd: its words are no JSON-RPC.")
    return message


def _result(message: Answer) -> Answer:
    if error := message.get("error"):
        raise ClientError.from_wire({"message": error.get("message"), **(error.get("data") or {})})
    result: Answer = message.get("result") or {}
    return result


def _mode_of(environment: Mapping[str, str]) -> str | None:
    mode = environment.get("GLIX_MODE") or None
    if mode is not None and mode not in MODES:
        raise UsageError(f"GLIX_MODE is {mode!a}; it can be user or system.")
    return mode


def _ignore(_: Answer) -> None:
    """Progress that nobody asked for."""
