# SPDX-License-Identifier: GPL-3.0-or-later
"""A real glixd for tests: the program itself, in the home of a user of its own, with a real nix and a real git behind it."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Final, Self

from glixd.protocol import State, user_repository, user_socket, user_state
from tests.support.hermetic import PROJECT, HermeticNix, NixError, git, quoted, write_files
from tests.support.repositories import Sources

HOST: Final = "laptop"
SYSTEM: Final = "x86_64-linux"
PATIENCE: Final = 120.0
"""Seconds after which a daemon, a command or an answer that does not come has failed the test."""
DEFECTS: Final = ("Traceback (most recent call last)", "met a defect", "could not be recorded")
"""What never stands in the log of a healthy daemon."""

SUMMARY: Final = """c: let names = ps: builtins.sort builtins.lessThan (map (p: p.pname or p.name) ps); in {
  system = names c.environment.systemPackages;
  homes = builtins.mapAttrs (_: names) c.system.homePackages;
  files = c.system.homeFiles;
  etc = builtins.mapAttrs (_: file: file.text) c.environment.etc;
  inherit (c) warnings;
}"""
"""What a host gets: its packages, those of its homes, and a few files."""

Answer = dict[str, Any]


class RpcError(Exception):
    """The daemon answered with an error."""

    def __init__(self, error: Answer) -> None:
        super().__init__(json.dumps(error))
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.name: str = error["data"]["name"]
        self.hint: str = error["data"].get("hint", "")
        self.details: Answer = error["data"].get("details", {})


class DaemonEnded(Exception):
    """The daemon ended before it was ready."""

    def __init__(self, status: int, log: str) -> None:
        super().__init__(f"glixd ended with {status}:\n{log}")
        self.status = status
        self.log = log


class RpcClient:
    """One connection to the JSON-RPC socket, one request at a time; notifications are kept in the order they came."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(os.fspath(path))
        self._lines = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self.notifications: list[Answer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; what was started goes on."""
        self._lines.close()
        self._socket.close()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def send(self, method: str, **parameters: Any) -> int:
        """Send one request without waiting for its answer; the id it has."""
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
        self.write(json.dumps(request).encode() + b"\n")
        return number

    def receive(self) -> Answer:
        """The next message, whatever it is; raises EOFError at the end."""
        line = self._lines.readline()
        if not line:
            raise EOFError
        message: Answer = json.loads(line)
        if "method" in message:
            self.notifications.append(message)
        return message

    def answer(self, number: int) -> Any:
        """The result of the request `number`; raises RpcError. Notifications on the way are kept."""
        while (message := self.receive()).get("id") != number:
            if message.get("id") is None and "error" in message:
                raise RpcError(message["error"])
        if "error" in message:
            raise RpcError(message["error"])
        return message["result"]

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of an operation; raises RpcError."""
        return self.answer(self.send(method, **parameters))

    def wait(self, transaction: str) -> Answer:
        """The transaction, when it has ended."""
        ended: Answer = self.call("Wait", transaction=transaction, timeout=PATIENCE)
        return ended

    def run(self, method: str, **parameters: Any) -> Answer:
        """The transaction of a mutation, when it has ended."""
        return self.wait(self.call(method, **parameters)["transaction"])

    def reach(self, transaction: str, state: str) -> None:
        """Return when a transaction that this connection watches is in a state, or beyond it."""
        states = [member.value for member in State]
        while self.call("GetTransaction", transaction=transaction)["state"] not in states[states.index(state) :]:
            self.receive()

    def progress(self, key: str, *values: object) -> None:
        """Return when a progress of what this connection watches has said something of that key, or one of these values."""
        while not any(event.get(key) in values if values else event.get(key) for event in self.notified("Progress")):
            self.receive()

    def notified(self, method: str) -> list[Answer]:
        """The parameters of the notifications of that name that have come so far."""
        return [message["params"] for message in self.notifications if message["method"] == method]


@dataclass
class Site:
    """The home of one user: where the default repository, the state and the sockets of that user's daemon are."""

    root: Path
    nix: HermeticNix
    extra: dict[str, str] = field(default_factory=dict)
    """Variables that everything which runs here gets too."""

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        # A socket's path has to be short, and those of test folders are not.
        self.runtime = Path(mkdtemp(prefix="glix-"))

    @property
    def home(self) -> Path:
        """The HOME of the user."""
        return self.root / "home"

    @property
    def repository(self) -> Path:
        """The default repository of the user."""
        return Path(user_repository(self.environment()))

    @property
    def state(self) -> Path:
        """Where the daemon of the default repository keeps its history and its log."""
        return Path(user_state(self.environment(), os.fspath(self.repository)))

    @property
    def socket(self) -> Path:
        """The socket of the daemon of the default repository."""
        return Path(user_socket(self.environment()))

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of the user's programs."""
        nix = {name: value for name, value in self.nix.environment().items() if not name.startswith("XDG_")}
        return {
            **nix,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{nix['PATH']}",
            "PYTHONPATH": os.fspath(PROJECT),
            "HOME": os.fspath(self.home),
            "XDG_RUNTIME_DIR": os.fspath(self.runtime),
            "GLIXD_CALLS_PER_SECOND": "1000000",  # tests ask faster than people
            "GLIXD_CALLS_AT_ONCE": "1000000",
            "GLIXD_HOST": HOST,  # a daemon that a client starts has no arguments that say so
            **self.extra,
            **(extra or {}),
        }

    def glixctl(self, *arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `glixctl ARGUMENTS` as the user would, and return how it ended."""
        return subprocess.run(
            glixctl_command(*arguments),
            cwd=self.home,
            env=self.environment(extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def git(self, *arguments: str) -> str:
        """Run git in the repository, as a person would, and return what it prints."""
        return git(self.repository, *arguments)

    def commits(self) -> list[str]:
        """The subjects of all commits, the oldest first."""
        return self.git("log", "--reverse", "--format=%s").splitlines()

    def read(self, path: str) -> str:
        """A file of the work tree."""
        return (self.repository / path).read_text()

    def committed(self, path: str, revision: str = "HEAD") -> str:
        """A file of a commit, byte for byte."""
        return subprocess.run(
            ["git", "-C", os.fspath(self.repository), "show", f"{revision}:{path}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        ).stdout.decode()

    def lock_nodes(self, revision: str = "HEAD") -> Answer:
        """The nodes of flake.lock at a commit."""
        nodes: Answer = json.loads(self.committed("flake.lock", revision))["nodes"]
        return nodes

    def evaluated(self, host: str = HOST, revision: str = "HEAD") -> Answer:
        """What nix makes of a host at a commit, as nixos-rebuild would (see SUMMARY)."""
        url = f"git+file://{quoted(self.repository)}?rev={self.git('rev-parse', revision)}"
        done = subprocess.run(
            ["nix", "eval", "--json", f"{url}#nixosConfigurations.{host}.config", "--apply", SUMMARY],
            env=self.nix.environment(self.extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NixError(done.stderr)
        answer: Answer = json.loads(done.stdout)
        return answer

    def write(self, files: Mapping[str, str]) -> None:
        """Write files of the work tree, as a person would."""
        write_files(self.repository, files)

    def commit(self, files: Mapping[str, str]) -> str:
        """Write files and commit them, as a person would; the commit."""
        self.write(files)
        self.git("add", "--", *files)
        self.git("commit", "--quiet", "--message", "By hand", "--", *files)
        return self.git("rev-parse", "HEAD")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the repository, so that a transaction which runs comes no further."""
        descriptor = os.open(self.repository / ".git" / "glix" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def trace(self) -> dict[str, str]:
        """A digest of every file of the repository, git's own included; equal before and after what left no trace.

        The empty file by which a daemon holds its right to serve the repository says nothing about what is in it.
        """
        right = self.repository / ".git" / "glix" / "daemon.lock"
        found = (path for path in sorted(self.repository.rglob("*")) if path != right)
        files = [path for path in found if not path.is_dir() or path.is_symlink()]
        return {os.fspath(path.relative_to(self.repository)): _digest(path) for path in files}

    def init_parameters(self, sources: Sources) -> Answer:
        """The parameters of `Init` that make the repository of this user from local sources."""
        return {
            "host": HOST,
            "user": "alice",
            "system": SYSTEM,
            "nixpkgs": sources.nixpkgs,
            "core": sources.core,
            "home_manager": sources.home_manager,
        }

    def remove(self) -> None:
        """End the daemons that clients started here, by their pids, and delete the runtime folder."""
        for path in (self.runtime / "glixd").glob("*.sock"):
            self.end_daemon(path)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def daemon_pid(self, path: Path | None = None) -> int | None:
        """The process that listens on a socket, by default that of this user; None when nobody does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(os.fspath(path or self.socket))
            except OSError:
                return None
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)

    def end_daemon(self, path: Path | None = None) -> None:
        """End the daemon that listens here, if there is one, and wait until it is gone."""
        if pid := self.daemon_pid(path):
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                    assert select.select([descriptor], [], [], PATIENCE)[0], "glixd does not end"
                finally:
                    os.close(descriptor)


def _digest(path: Path) -> str:
    mode = oct(path.lstat().st_mode)
    content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
    return f"{mode} {hashlib.sha256(content).hexdigest()}"


@contextmanager
def notify_socket(site: Site) -> Iterator[socket.socket]:
    """A socket for sd_notify messages, and NOTIFY_SOCKET in the environment of the site."""
    path = os.fspath(site.runtime / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(PATIENCE)
        site.extra["NOTIFY_SOCKET"] = path
        try:
            yield listener
        finally:
            del site.extra["NOTIFY_SOCKET"]
            os.unlink(path)


@contextmanager
def registry(nix: HermeticNix, entries: Mapping[str, str]) -> Iterator[None]:
    """Let the global registry of a nix map these names to flake references of the kinds git and github."""
    file = nix.root / "etc" / "empty-registry.json"
    empty = file.read_text()
    flakes = [{"from": {"type": "indirect", "id": name}, "to": _attributes(url)} for name, url in entries.items()]
    file.write_text(json.dumps({"flakes": flakes, "version": 2}))
    try:
        yield
    finally:
        file.write_text(empty)


def _attributes(url: str) -> Answer:
    """A flake reference as registries spell it."""
    if url.startswith("github:"):
        owner, repository = url.removeprefix("github:").split("/")
        return {"type": "github", "owner": owner, "repo": repository}
    address, _, query = url.removeprefix("git+").partition("?")
    return {"type": "git", "url": address, **dict(pair.split("=") for pair in query.split("&") if pair)}


def glixctl_command(*arguments: str) -> list[str]:
    """The command line of the client of this checkout."""
    beside = Path(sys.executable).parent / "glixctl"
    program = [os.fspath(beside)] if beside.exists() else [sys.executable, "-m", "glixctl"]
    return [*program, *arguments]


class RunningDaemon:
    """One glixd process on a site; a context manager that ends it and shows its log when the test fails."""

    def __init__(
        self,
        site: Site,
        *,
        bus: str = "none",
        host: str = HOST,
        idle_exit: float = 0,
        repository: Path | None = None,
        state: Path | None = None,
        socket: Path | None = None,
        arguments: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.site = site
        self.repository = repository or site.repository
        self.state = state or site.state
        self.socket = socket or site.socket
        self.log_path = site.root / "glixd.log"
        self._begin = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._extra = dict(extra or {})
        self._command = [
            *(sys.executable, "-m", "glixd", "--mode", "user"),
            *("--repository", os.fspath(self.repository), "--state", os.fspath(self.state)),
            *("--socket", os.fspath(self.socket), "--bus", bus, "--host", host, "--idle-exit", str(idle_exit)),
            *arguments,
        ]

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the daemon and return when it serves; raises DaemonEnded when it refuses to."""
        assert self._process is None, "it runs already"
        ready, told = os.pipe()
        try:
            with self.log_path.open("ab") as log:
                self._begin = log.tell()
                self._process = subprocess.Popen(
                    [*self._command, "--ready-fd", str(told)],
                    cwd=self.site.home,
                    env=self.site.environment(self._extra),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(told,),
                    start_new_session=True,
                )
            os.close(told)
            assert select.select([ready], [], [], PATIENCE)[0], f"glixd is not ready in time:\n{self.log}"
            if not os.read(ready, 1):
                raise DaemonEnded(self.wait(), self.log)
        finally:
            os.close(ready)
        return self

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        return self.kill(signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.signal(number)
        return self.wait()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._running.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        status = self._running.wait(PATIENCE)
        self._process = None
        return status

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written since it was last started."""
        with self.log_path.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace")

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            try:
                self.stop()
            finally:
                if self._process is not None:
                    self.kill()
        sys.stdout.write(f"--- log of glixd\n{self.log}")  # pytest shows it with a failure only
        if error is None:
            defects = [line for line in self.log.splitlines() if any(defect in line for defect in DEFECTS)]
            assert not defects, f"glixd logged a defect:\n{self.log}"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it does not run"
        return self._process

    # -- talking to it ---------------------------------------------------------------------------------------------

    def connect(self) -> RpcClient:
        """A connection that the test closes."""
        return RpcClient(self.socket)

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of an operation, over a connection of its own; raises RpcError."""
        with self.connect() as client:
            return client.call(method, **parameters)

    def run(self, method: str, **parameters: Any) -> Answer:
        """The transaction of a mutation, when it has ended; raises RpcError for a malformed request."""
        with self.connect() as client:
            return client.run(method, **parameters)

    def done(self, method: str, **parameters: Any) -> Answer:
        """The transaction of a mutation that must succeed."""
        transaction = self.run(method, **parameters)
        assert transaction["state"] == "succeeded", transaction.get("error")
        return transaction

    def failed(self, method: str, **parameters: Any) -> Answer:
        """The error of a mutation that must fail."""
        transaction = self.run(method, **parameters)
        assert transaction["state"] == "failed", transaction
        error: Answer = transaction["error"]
        return error

    def health(self, host: str = HOST) -> Answer:
        """The health of a host, once its evaluation is over."""
        deadline = time.monotonic() + PATIENCE
        while True:
            hosts = {found["name"]: found["health"] for found in self.call("ListHosts")["hosts"]}
            health: Answer = hosts[host]
            if health["state"] != "evaluating":
                return health
            assert time.monotonic() < deadline, "the evaluation does not end"
            time.sleep(0.01)  # nothing announces the end of an evaluation


@dataclass(frozen=True)
class Template:
    """A repository that `Init` made once, to be copied for each test."""

    folder: Path
    cache: Path
    nix: HermeticNix

    @classmethod
    def make(cls, folder: Path, nix: HermeticNix, sources: Sources) -> Template:
        """Make the repository by a real daemon."""
        with new_site(folder, nix) as site, RunningDaemon(site) as daemon:
            daemon.done("Init", **site.init_parameters(sources))
            return cls(site.repository, site.state / "cache", nix)

    def copy_to(self, site: Site) -> None:
        """Give a site a copy of the repository, and of nix's cache of what was fetched; not the history."""
        shutil.copytree(self.folder, site.repository, symlinks=True)
        shutil.copytree(self.cache, site.state / "cache", symlinks=True)


@contextmanager
def new_site(
    root: Path, nix: HermeticNix, template: Template | None = None, extra: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """A home below `root`, with a copy of the repository of `template`; daemons that clients start there are ended."""
    site = Site(root, nix, dict(extra or {}))
    try:
        if template:
            template.copy_to(site)
        yield site
    finally:
        site.remove()
