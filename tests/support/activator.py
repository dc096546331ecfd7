# SPDX-License-Identifier: GPL-3.0-or-later
"""The real activator and the real evaluator behind sockets, as systemd would start them, with the places of a test."""

from __future__ import annotations

import json
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from glixd.backends.activator import Action, Order

PATIENCE: Final = 60.0
ID: Final = "01hzy0000000000000000000{:02d}"
"""The ids of transactions, by number."""


@dataclass
class Server:
    """A socket whose connections are each the standard input of a program, as `Accept=yes` has it."""

    path: Path
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    log: Path
    before: Callable[[sockets.socket], sockets.socket] = lambda connection: connection
    """Called with each connection before its program is started; answers what the program is given."""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(16)
        self._closing = False
        self._connections: dict[threading.Thread, sockets.socket] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no connection any more, and end what runs."""
        with suppress(OSError):
            self._listener.shutdown(sockets.SHUT_RDWR)
        self._listener.close()
        self._closing = True
        self._thread.join(PATIENCE)
        for thread, connection in self._connections.items():
            with suppress(OSError):
                connection.shutdown(sockets.SHUT_RDWR)
            thread.join(PATIENCE)
        for child in self.running:
            if child.poll() is None:
                child.kill()
            child.wait()

    def kill(self) -> None:
        """Kill the newest program, as a crash would."""
        self.running[-1].send_signal(signal.SIGKILL)
        self.running[-1].wait(PATIENCE)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._start, args=(connection,), daemon=True)
            self._connections[thread] = connection
            thread.start()

    def _start(self, connection: sockets.socket) -> None:
        """Start a program, in a thread of its own: what comes before may wait for a message that never comes."""
        with connection, self.log.open("ab") as log, self.before(connection) as given:
            if not self._closing:
                self.running.append(
                    subprocess.Popen(
                        self.command(), stdin=given.fileno(), stdout=log, stderr=log, env=self.environment, cwd="/"
                    )
                )


def _relayed(connection: sockets.socket, first: Callable[[bytes], None]) -> sockets.socket:
    """The other end of a connection, on which `first` sees what comes first before the other end has it."""
    ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_STREAM)
    outer = connection.dup()

    def relay() -> None:
        with outer, ours:
            back = threading.Thread(target=_copied, args=(ours, outer), daemon=True)
            back.start()
            with suppress(OSError):
                data = outer.recv(65536)
                first(data)
                ours.sendall(data)
            _copied(outer, ours)
            back.join()

    threading.Thread(target=relay, daemon=True).start()
    return theirs


def _copied(source: sockets.socket, target: sockets.socket) -> None:
    """Pass on all that comes, and its end."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(sockets.SHUT_WR)


@dataclass
class Programs:
    """The two programs, and the places of a machine that they work on."""

    root: Path
    repository: Path
    environment: Mapping[str, str]
    peer: str = "root"
    wishes_given: bool = True
    """Whether root wants whatever is ordered in its name."""
    prefix: tuple[str, ...] = ()
    """Words before the activator's command line, such as nsenter's."""
    evaluator_prefix: tuple[str, ...] = ()
    """Words before the evaluator's, such as setpriv's."""
    built: Path | None = None
    """What an evaluator noted of its builds, where it is another one."""

    def __post_init__(self) -> None:
        self.folder = Path(
            mkdtemp(prefix="glix-")
        )  # a socket's path has to be short, and those of test folders are not
        self.folder.chmod(0o755)
        for place in (self.results, self.wishes, self.profile.parent, self.root / "run"):
            place.mkdir(parents=True, exist_ok=True)
        self.results.chmod(0o755)
        self.wishes.chmod(0o700)
        environment = {**self.environment, "MINI_ROOT": os.fspath(self.root)}
        self.evaluator = Server(self.folder / "eval", self._evaluate, environment, self.root / "evaluator.log")
        self.activator = Server(
            self.folder / "activate", self._activate, environment, self.root / "activator.log", self._wish
        )

    @property
    def socket(self) -> Path:
        """The socket of the activator."""
        return self.activator.path

    @property
    def results(self) -> Path:
        """Where the activator writes its results."""
        return self.root / "results"

    @property
    def wishes(self) -> Path:
        """Where root says what it wants."""
        return self.root / "wishes"

    @property
    def profile(self) -> Path:
        """The profile of the system."""
        return self.root / "profiles" / "system"

    @property
    def current(self) -> Path:
        """The system that runs."""
        return self.root / "run" / "current-system"

    def settings(self) -> dict[str, str]:
        """The variables that lead a daemon to these programs."""
        return {
            "GLIXD_ACTIVATOR": os.fspath(self.socket),
            "GLIXD_EVALUATOR": os.fspath(self.evaluator.path),
            "GLIXD_ACTIVATIONS": os.fspath(self.results),
            "GLIXD_SYSTEM_PROFILE": os.fspath(self.profile),
            "GLIXD_SYSTEM_ROOT": os.fspath(self.root),
        }

    def wish(self, transaction: str) -> None:
        """Say as root that it wants a transaction."""
        (self.wishes / transaction).touch(0o600)

    def close(self) -> None:
        """End both."""
        self.activator.close()
        self.evaluator.close()
        for left in self.folder.iterdir():
            left.unlink()
        self.folder.rmdir()

    def _wish(self, connection: sockets.socket) -> sockets.socket:
        """Root wants what is ordered. An order may come late, so it is read on its way where the kernel then says the same."""
        if self.wishes_given and self.peer == "root":
            return _relayed(connection, self._read_wish)
        if self.wishes_given:
            self._read_wish(connection.recv(4096, sockets.MSG_PEEK))
        return connection

    def _read_wish(self, line: bytes) -> None:
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            order = json.loads(line)
            if isinstance(order["transaction"], str) and order["transaction"].isalnum():
                self.wish(order["transaction"])

    def _activate(self) -> Sequence[str]:
        return [
            *(*self.prefix, sys.executable, "-I", "-m", "glixd.activator", "--peer", self.peer, "--without-systemd"),
            *("--repository", os.fspath(self.repository), "--results", os.fspath(self.results)),
            *(
                "--wishes",
                os.fspath(self.wishes),
                "--built",
                os.fspath(self.built or self.root / "evaluator" / "built"),
            ),
            *("--store", self.environment["NIX_STORE_DIR"], "--profile", os.fspath(self.profile)),
            *("--current", os.fspath(self.current), "--host", "laptop"),
        ]

    def _evaluate(self) -> Sequence[str]:
        words = ("-I", "-m", "glixd.evaluator", "--state", os.fspath(self.root / "evaluator"))
        return [*self.evaluator_prefix, sys.executable, *words]


@contextmanager
def programs(root: Path, repository: Path, environment: Mapping[str, str], **options: Any) -> Iterator[Programs]:
    """Both programs while the context lasts; their logs are in `root`."""
    with ExitStack() as stack:
        made = Programs(root, repository, environment, **options)
        stack.callback(made.close)
        yield made


def order(path: str, commit: str, *, number: int = 1, **changes: Any) -> Order:
    """An order of root's own, with a transaction of its own."""
    words: dict[str, Any] = {
        "transaction": ID.format(number),
        "commit": commit,
        "path": path,
        "action": Action.SWITCH,
        "caller": f"pid:{os.getpid()}",
        **changes,
    }
    return Order(**words)
