# SPDX-License-Identifier: GPL-3.0-or-later
"""A small honest daemon for the tests of glixctl: real JSON-RPC on a real Unix socket, with answers that the test chooses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Notify = Callable[[dict[str, Any]], None]
Play = Callable[[dict[str, Any], Notify], dict[str, Any]]

TRANSACTION = "01hzy7k3m5n8p0q2r4s6t8v0wx"


class WireError(Exception):
    """An error that the daemon answers with."""

    def __init__(self, name: str, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.wire = {"code": -32001, "message": message, "data": {"name": name, "hint": hint, "details": details}}


class HangUp(Exception):
    """The daemon closes the connection instead of answering, after it has said `words`."""

    def __init__(self, words: bytes = b"") -> None:
        super().__init__()
        self.words = words


class Daemon:
    """Answers each method by its play, and remembers what was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plays: dict[str, list[Play]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def play(self, method: str, *plays: Play | dict[str, Any] | Exception) -> None:
        """Answer `method` with these, one after the other; the last one stays."""
        self.plays[method] = [_as_play(play) for play in plays]

    def play_transaction(self, method: str, **transaction: Any) -> None:
        """Let the mutation `method` start a transaction that ends like this."""
        ended = {"id": TRANSACTION, "operation": method, "state": "succeeded", "dry_run": False, "uid": 1000}
        self.play(method, {"transaction": TRANSACTION})
        self.play("Wait", {**ended, "login": "alice", "created": "2026-03-04T05:06:07Z", **transaction})

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rwb") as stream:
            try:
                for line in stream:
                    stream.write(self._answer(json.loads(line), stream))
                    stream.flush()
            except HangUp as end:
                stream.write(end.words)

    def _answer(self, request: dict[str, Any], stream: Any) -> bytes:
        def notify(params: dict[str, Any]) -> None:
            stream.write(_line({"method": "Progress", "params": params}))
            stream.flush()

        method, params = request["method"], request["params"]
        with self._lock:
            self.asked.append((method, params))
            plays = self.plays[method]
            play = plays.pop(0) if len(plays) > 1 else plays[0]
        try:
            return _line({"id": request["id"], "result": play(params, notify)})
        except WireError as error:
            return _line({"id": request["id"], "error": error.wire})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def _as_play(play: Play | dict[str, Any] | Exception) -> Play:
    if isinstance(play, dict):
        return lambda params, notify: play
    if isinstance(play, Exception):
        return _raising(play)
    return play


def _raising(error: Exception) -> Play:
    def raise_it(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        raise error

    return raise_it


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's environment of the test's own; returns the path of the user's socket."""
    for name in ("NO_COLOR", "COLUMNS", "TERM", "GLIX_MODE", "GLIX_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "run" / "glixd" / "rpc.sock"


@pytest.fixture
def daemon(runtime: Path) -> Iterator[Daemon]:
    """The user's daemon, listening."""
    daemon = Daemon(runtime)
    yield daemon
    daemon.stop()


@pytest.fixture
def wire_error() -> type[WireError]:
    """The error that a play may raise."""
    return WireError


@pytest.fixture
def hang_up() -> type[HangUp]:
    """What a play raises to end the connection."""
    return HangUp
