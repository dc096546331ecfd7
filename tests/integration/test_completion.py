# SPDX-License-Identifier: GPL-3.0-or-later
"""Completion in real shells: a person types at a terminal, presses tab, and runs what stands there then."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from glixctl.complete import LIMIT
from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site, Template, new_site
from tests.support.hermetic import HermeticNix
from tests.support.switching import switchable

READY: Final = "shell-is-ready"
RAN: Final = "glixctl-was-run"
PATIENCE: Final = 30.0
"""Seconds after which a shell that does not answer has failed the test."""


@dataclass(frozen=True)
class Shell:
    """A shell without the user's own files, and what a user of glixctl puts into them."""

    name: str
    command: tuple[str, ...]
    setup: tuple[str, ...]


# The function stands before the program and writes its arguments down.
SHELLS: Final = (
    Shell(
        "bash",
        ("bash", "--norc", "--noprofile", "-i"),
        ("source <(glixctl completion bash)", "glixctl() { printf '%s\\0' \"$@\" >~/words; echo glixctl-was-run; }"),
    ),
    Shell(
        "zsh",
        ("zsh", "-f", "-i"),
        (
            "autoload -Uz compinit && compinit -D -u",
            "source <(glixctl completion zsh)",
            "glixctl() { printf '%s\\0' \"$@\" >~/words; echo glixctl-was-run; }",
        ),
    ),
    Shell(
        "fish",
        ("fish", "--no-config", "--interactive"),
        (
            "glixctl completion fish | source",
            "function glixctl; printf '%s\\0' $argv >~/words; echo glixctl-was-run; end",
        ),
    ),
)


class Terminal:
    """A shell at a terminal."""

    def __init__(self, shell: Shell, site: Site) -> None:
        self._shell = shell
        self._site = site
        self._shown = b""

    def __enter__(self) -> Self:
        environment = {**self._site.environment(), "TERM": "xterm"}
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(self._site.home)
                os.execvpe(self._shell.command[0], self._shell.command, environment)
            finally:
                os._exit(127)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        for number, line in enumerate((*self._shell.setup, "true")):
            self.type(f"{line}; echo {READY}-{number}'-'\r")
            self.read(rf"{READY}-{number}-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        print(self.screen)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    @property
    def screen(self) -> str:
        """Everything that was shown."""
        return self._shown.decode(errors="replace")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def read(self, pattern: str) -> str:
        """Read until a match of `pattern` is on the screen; what has been shown since the last one is forgotten."""
        deadline = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.screen)):
            assert select.select([self._master], [], [], deadline - time.monotonic())[0], self.screen
            self._shown += os.read(self._master, 1 << 16)
        shown, self._shown = self.screen, self.screen[match.end() :].encode()
        return shown

    def run(self, line: str) -> list[str]:
        """The arguments that glixctl got when a person typed `line`, with tabs in it, and pressed return."""
        self.type(f"{line}\r")
        self.read(RAN)
        return (self._site.home / "words").read_text().split("\0")[:-1]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, template: Template) -> Iterator[Site]:
    """A home whose host has packages and a generation, with a daemon."""
    with (
        new_site(tmp_path_factory.mktemp("completion"), nix, template) as site,
        switchable(site),
        RunningDaemon(site) as daemon,
    ):
        daemon.done("Add", refs=["firefox"])
        daemon.done("Add", refs=["git"], name="git+tools", apply=True)
        yield site


@pytest.fixture(params=SHELLS, ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    """Each shell."""
    found: Shell = request.param
    return found


def test_a_shell_completes_verbs_flags_and_live_words(shell: Shell, furnished: Site) -> None:
    with Terminal(shell, furnished) as terminal:
        assert terminal.run("glixctl histo\t") == ["history"]
        assert terminal.run("glixctl tra\tsho\tabc") == ["transaction", "show", "abc"]
        assert terminal.run("glixctl list --all-h\t--js\t") == ["list", "--all-hosts", "--json"]
        assert terminal.run("glixctl add x --scope ho\t") == ["add", "x", "--scope", "home"]
        assert terminal.run("glixctl add x --scope=ho\t") == ["add", "x", "--scope=home"]
        assert terminal.run("glixctl remove fire\t") == ["remove", "firefox"]
        assert terminal.run("glixctl remove firefox git\t") == ["remove", "firefox", "git+tools"]
        assert terminal.run("glixctl --host lap\tshow firef\t") == ["--host", "laptop", "show", "firefox"]
        assert terminal.run("glixctl show firefox --host=lap\t") == ["show", "firefox", "--host=laptop"]
        assert terminal.run("glixctl add github:o/r=b --user al\t") == ["add", "github:o/r=b", "--user", "alice"]
        assert terminal.run("glixctl set firefox scope=h\t") == ["set", "firefox", "scope=home"]
        assert terminal.run("glixctl set firefox pi\tv1 conf\ta=1") == ["set", "firefox", "pin=v1", "config.a=1"]
        assert terminal.run("glixctl update nixp\thome-m\t") == ["update", "nixpkgs", "home-manager"]
        assert terminal.run("glixctl system diff \t") == ["system", "diff", "1"]
        assert terminal.run("glixctl system rollback --to \t") == ["system", "rollback", "--to", "1"]


@pytest.mark.parametrize(
    "before",
    [
        ("remove", "fire"),
        ("host", "remove", "lap"),
        ("add", "x", "--user", "al"),
        ("update", "nix"),
        ("system", "diff", ""),
        ("transaction", "show", ""),
    ],
    ids=("packages", "hosts", "users", "inputs", "generations", "transactions"),
)
def test_live_words_come_in_a_time_that_is_told(furnished: Site, before: tuple[str, ...]) -> None:
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        done = furnished.glixctl("__complete", "glixctl", *before)
        took.append((time.perf_counter() - begin) * 1000)
        assert done.returncode == Exit.DONE, done.stderr
    print(f"{' '.join(before)}: {min(took):.0f} to {max(took):.0f} ms; 300 are meant to be enough")
    # What the daemon has not said in time is left out: on a busy machine that is an answer too.
    assert done.stdout or max(took) > LIMIT * 1000


def test_a_shell_completes_the_id_of_a_transaction(shell: Shell, furnished: Site) -> None:
    ids = [found["id"] for found in _transactions(furnished)]
    with Terminal(shell, furnished) as terminal:
        for identifier in ids:
            others = [other for other in ids if other != identifier]
            length = next(n for n in range(1, 27) if not any(other.startswith(identifier[:n]) for other in others))
            assert terminal.run(f"glixctl transaction show {identifier[:length]}\t")[-1] == identifier


def _transactions(site: Site) -> list[dict[str, str]]:
    answer = json.loads(site.glixctl("transaction", "list", "--json").stdout)
    found: list[dict[str, str]] = answer["transactions"]
    return found


def test_a_shell_completes_folders_for_another_repository(shell: Shell, furnished: Site) -> None:
    (furnished.home / "my other place").mkdir(exist_ok=True)
    with Terminal(shell, furnished) as terminal:
        last = terminal.run("glixctl list --dir my\t")[-1]
        assert Path(last).name == "my other place"


def test_a_shell_starts_no_daemon_to_complete(shell: Shell, site: Site) -> None:
    with Terminal(shell, site) as terminal:
        assert terminal.run("glixctl remove fire\t") == ["remove", "fire"]
        assert terminal.run("glixctl remove --dry-r\tfire") == ["remove", "--dry-run", "fire"]
    assert site.daemon_pid() is None
    assert not site.socket.exists()
