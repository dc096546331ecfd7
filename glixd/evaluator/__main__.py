# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection, one job: read it, do it, answer. The connection is standard input, as systemd and a parent hand it on.

A job is a line of JSON with the bytes that belong to it behind; the answer is lines of JSON, the last of which says how nix
ended. Whoever closes the connection stops the job.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from glixd.evaluator.credentials import BadCredential, Credentials, read_credentials
from glixd.evaluator.jobs import BUILD_TIMEOUT, LINE, LINE_LIMIT, TIMEOUT, Job, Kind, parse_request
from glixd.evaluator.memory import Memory
from glixd.evaluator.running import Gone, Limits, Ran, run
from glixd.evaluator.scratch import scratch, unpack, write_files

PASSED_ON: Final = re.compile(
    r"NIX_(STORE|STATE|LOG|CONF)_DIR|NIX_REMOTE|NIX_SSL_CERT_FILE|(https?|all|no|ftp)_proxy|LOCALE_ARCHIVE|PATH",
    re.IGNORECASE | re.ASCII,
)
"""What nix is given of the environment of the unit; nothing else."""
WAIT_TIMEOUT: Final = 600.0
"""Seconds that a job may take to come: the daemon connects before it has one, so that this program is loaded by then."""
RECEIVE_TIMEOUT: Final = 60.0
"""Seconds that what belongs to a job may take."""
_UCRED: Final = struct.Struct("3i")


class Client:
    """Whoever is at the other end."""

    def __init__(self, connection: socket.socket, credentials: Credentials, folder: Path) -> None:
        self.connection = connection
        self._credentials = credentials
        self._folder = os.fspath(folder)

    def line(self) -> bytes:
        """The first line; byte by byte, since what follows is read by others."""
        line = bytearray()
        while not line.endswith(b"\n"):
            waiting = self.connection.recv(64 * 1024, socket.MSG_PEEK)
            if not waiting:
                raise EOFError
            end = waiting.find(b"\n") + 1
            line += self.connection.recv(end or len(waiting))
            if len(line) > LINE_LIMIT:
                raise ValueError("the job is too long")
        return bytes(line)

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        return self.connection.recv(size)

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a line, without any secret; raises Gone when nobody reads it."""
        hidden = {key: self._hidden(value) if isinstance(value, str) else value for key, value in message.items()}
        self._send(json.dumps(hidden).encode())

    def pass_on(self, line: bytes) -> None:
        """Send a line of nix."""
        text = self._hidden(line.decode(errors="surrogateescape"))
        self._send(LINE + text.encode(errors="surrogateescape"))

    def _hidden(self, text: str) -> str:
        """Without secrets, and without the name of a folder that is gone soon."""
        return self._credentials.hide(text).replace(self._folder, ".")

    def _send(self, line: bytes) -> None:
        try:
            self.connection.sendall(line + b"\n")
        except OSError:
            raise Gone from None


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the connection on standard input."""
    arguments = _arguments(argv)
    connection = socket.socket(fileno=os.dup(0))
    with connection, suppress(Gone, EOFError, TimeoutError):
        client = Client(connection, Credentials(), arguments.state)
        try:
            _check_peer(connection, arguments.peer)
            connection.settimeout(WAIT_TIMEOUT)
            line = client.line()
            with scratch(arguments.state / "scratch") as folder:
                credentials = read_credentials(_credentials_folder(), folder)
                client = Client(connection, credentials, folder)
                client.say(_serve(line, client, credentials, folder, arguments))
        except BadCredential as error:
            client.say({"refused": str(error)})
        except (ValueError, TypeError, RecursionError) as error:
            client.say({"refused": f"the job is malformed: {error}"})
        except OSError as error:
            client.say({"refused": f"{error.strerror}"})
    return 0


def _serve(
    line: bytes, client: Client, credentials: Credentials, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    client.connection.settimeout(RECEIVE_TIMEOUT)
    job, files, pack = parse_request(line)
    environment = _environment(arguments.state, folder)
    if job.kind is Kind.LOCK:
        place, work = "", folder / "flake"
        work.mkdir()
        write_files(work, files, client.read)
        place = os.fspath(work)
    else:
        work = unpack(folder, job.commit, pack, client.read, environment)
        place = f"git+file://{work}?rev={job.commit}"
    client.connection.settimeout(None)
    ran = run(
        job.words(place, _link(job, arguments.state)),
        {**environment, **credentials.environment},
        work,
        _limits(job, arguments),
        client.connection,
        client.pass_on if job.streams else None,
    )
    if job.kind is Kind.BUILD and not job.dry_run and ran.status == 0:
        Memory(arguments.state / "built").learn(job, ran.output.decode(errors="replace"))
    return _answer(job, ran, work)


def _answer(job: Job, ran: Ran, work: Path) -> dict[str, Any]:
    output = ran.output.decode(errors="replace")
    if job.kind is Kind.LOCK and ran.status == 0:
        lock = work / "flake.lock"
        output = lock.read_text() if lock.exists() else ""
    words = ran.words.decode(errors="replace")
    return {"status": ran.status, "output": output, "words": words, "timed_out": ran.timed_out}


def _link(job: Job, state: Path) -> str:
    """What keeps the newest build of a host or home alive until it is activated."""
    folder = state / "roots"
    folder.mkdir(mode=0o755, exist_ok=True)
    return os.fspath(folder / job.root)


def _limits(job: Job, arguments: argparse.Namespace) -> Limits:
    memory = min(filter(None, (job.memory, arguments.memory * 1024 * 1024)))
    longest = arguments.build_timeout if job.kind is Kind.BUILD else arguments.timeout
    return Limits(memory, min(filter(None, (job.timeout, longest))), arguments.processes, job.background)


def _environment(state: Path, folder: Path) -> dict[str, str]:
    home = state / "home"
    for own in (home, state / "cache", folder / "tmp"):
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "PATH": "/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin",
        **{name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)},
        "HOME": os.fspath(home),
        "XDG_CACHE_HOME": os.fspath(state / "cache"),
        "XDG_CONFIG_HOME": os.fspath(home / ".config"),
        "XDG_STATE_HOME": os.fspath(home / ".local/state"),
        "XDG_DATA_HOME": os.fspath(home / ".local/share"),
        "TMPDIR": os.fspath(folder / "tmp"),
        "NIX_USER_CONF_FILES": "",
        "LC_ALL": "C.UTF-8",
    }


def _credentials_folder() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _check_peer(connection: socket.socket, name: str | None) -> None:
    """Only the daemon, root and whoever runs this may send jobs."""
    if name is None:
        return
    uid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
    if uid not in (0, os.getuid(), pwd.getpwnam(name).pw_uid):
        raise ValueError("this socket is for the daemon")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="glixd-eval", description="Lock, evaluate and build for glixd.")
    parser.add_argument("--state", type=Path, required=True, help="the folder of this user")
    parser.add_argument("--peer", help="the user whose daemon may connect")
    parser.add_argument("--memory", type=int, default=4096, help="MiB of heap")
    parser.add_argument("--timeout", type=int, default=TIMEOUT, help="seconds for locking or evaluating")
    parser.add_argument("--build-timeout", type=int, default=BUILD_TIMEOUT, help="seconds for building")
    parser.add_argument("--processes", type=int, default=512, help="processes of this user")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
