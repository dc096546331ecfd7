# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios share: commands as this or that person, sessions, units, and waiting for what must come."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

PATIENCE: Final = 180.0
SEAT: Final = {"XDG_SEAT": "seat0", "XDG_SESSION_CLASS": "user", "XDG_SESSION_TYPE": "tty"}
"""What makes a session one of somebody who sits at the machine."""
UNIT: Final = "glixd.service"
BUS: Final = ("org.glixos.Glix1", "/org/glixos/Glix1", "org.glixos.Glix1.Manager")

T = TypeVar("T")
Done = subprocess.CompletedProcess[str]


def run(*command: str, check: bool = True, timeout: float = PATIENCE, **options: Any) -> Done:
    """Run a command as root; what it said comes with the failure."""
    __tracebackhide__ = True
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **options)
    if check:
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


def as_user(user: str, *command: str, **options: Any) -> Done:
    """Run a command as a user without a session, as a service or a cron job would."""
    identity = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env", "--inh-caps=-all")
    return run(*identity, *command, cwd="/", **options)


def in_session(
    user: str, *command: str, seat: bool, environment: Mapping[str, str] | None = None, **options: Any
) -> Done:
    """Run a command in a login session of its own, at the seat (active and local) or not."""
    return run(*session(user, seat=seat, environment=environment), *command, **options)


def session(user: str, *, seat: bool, environment: Mapping[str, str] | None = None) -> list[str]:
    """The words that start a command in a session."""
    variables = {**(SEAT if seat else {"XDG_SESSION_TYPE": "tty", "XDG_SESSION_CLASS": "user"}), **(environment or {})}
    words = [f"--setenv={name}={value}" for name, value in variables.items()]
    return [
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--uid={user}", "--property=PAMName=login"),
        *words,
        "--working-directory=/",
        "--",
    ]


def glixctl(*arguments: str, user: str = "root", **options: Any) -> Done:
    """Run glixctl as a user without a session."""
    return run("glixctl", *arguments, **options) if user == "root" else as_user(user, "glixctl", *arguments, **options)


def answer(*arguments: str, **options: Any) -> Any:
    """What glixctl answers, as data."""
    return json.loads(glixctl("--json", *arguments, **options).stdout)


def call(method: str, *arguments: str, user: str = "root", **options: Any) -> Done:
    """Call a method over the bus, with busctl."""
    command = ("busctl", "--json=short", "call", *BUS, method, *arguments)
    return run(*command, **options) if user == "root" else as_user(user, *command, **options)


def unit(name: str, key: str) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--value", f"--property={key}", name).stdout.strip()


def main_pid(name: str = UNIT) -> int:
    """The process of a service; 0 when it does not run."""
    return int(unit(name, "MainPID"))


def stop(name: str = UNIT) -> None:
    """Stop a service, which stays activatable."""
    run("systemctl", "stop", name)
    run("systemctl", "reset-failed", name, check=False)
    assert main_pid(name) == 0


def subject(path: str = "/var/lib/glixd/repo") -> str:
    """The subject of the newest commit."""
    return git("log", "-1", "--format=%s", path=path)


def git(*arguments: str, path: str = "/var/lib/glixd/repo") -> str:
    """What git says of a repository, as its owner."""
    return as_user(Path(path).owner(), "git", "-C", path, *arguments).stdout.strip()


def copied() -> bool:
    """Whether the copy in /etc/glixos is the newest commit."""
    file = Path("/etc/glixos/.glixd-revision")
    return file.exists() and file.read_text().strip() == git("rev-parse", "main")


def journal(*matches: str, after: str = "") -> list[dict[str, Any]]:
    """The entries of the journal that match, oldest first."""
    run("journalctl", "--sync")
    since = (f"--after-cursor={after}",) if after else ()
    lines = run("journalctl", "--output=json", "--all", "--no-pager", *since, *matches).stdout.splitlines()
    return [json.loads(line) for line in lines]


def eventually(ask: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The first answer that holds; for what nothing announces."""
    deadline = time.monotonic() + patience
    while not (said := ask()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)
    return said


@contextmanager
def drop_in(name: str, text: str, *, file: str = "scenario.conf") -> Iterator[None]:
    """A setting of a unit for a while."""
    folder = Path("/run/systemd/system") / f"{name}.d"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_text(text)
    run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        path.unlink()
        run("systemctl", "daemon-reload")


def owner(path: str | Path) -> tuple[int, int, int]:
    """Owner, group and mode of a file."""
    facts = os.stat(path)
    return facts.st_uid, facts.st_gid, facts.st_mode & 0o7777
