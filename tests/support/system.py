# SPDX-License-Identifier: GPL-3.0-or-later
"""A glixd of system mode on a machine of a test's own: unprivileged, on a system bus with a real polkitd, with a real nix.

Sessions are played, because nothing here is a login manager: who sits at the machine is said by a rule that polkitd reads
before the others, and by one that it reads last and that grants what the policy file grants active sessions.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from glixd.actions import ACTIONS
from glixd.protocol import BUS_NAME, POLKIT_PREFIX
from tests.support.daemon import HOST, Answer, RpcClient, Template
from tests.support.hermetic import PROJECT, HermeticNix
from tests.support.machine import UIDS, Machine, end, machine
from tests.support.repositories import Sources

AT_THE_MACHINE: Final = ("wanda", "alice")
"""Who has an active session; bob and nobody have none."""
WHEEL_RULE: Final = PROJECT / "polkit" / "50-glixd-wheel.rules"

_NIX: Final = """\
#!/bin/sh
export NIX_STORE_DIR={root}/nix/store NIX_STATE_DIR={root}/nix/state NIX_LOG_DIR={root}/nix/log
export NIX_CONF_DIR={root}/nix/etc NIX_REMOTE=local
exec {root}/bin/$(basename "$0") "$@"
"""
"""In the place of nix, since system mode passes no variables on: the same nix, with a store in the folder of the test."""

_PLAYED: Final = """\
var addRule = polkit.addRule;
polkit.addRule = function (rule) {
    addRule.call(polkit, function (action, subject) {
        if (SEATED.indexOf(subject.user) >= 0) {
            subject.local = true;
            subject.active = true;
        }
        return rule(action, subject);
    });
};
"""
_ACTIVE: Final = """\
polkit.addRule(function (action, subject) {
    if (subject.active && DEFAULTS.hasOwnProperty(action.id)) {
        return DEFAULTS[action.id];
    }
});
"""


def session_rules(seated: Sequence[str] = AT_THE_MACHINE) -> dict[str, str]:
    """Rules that play sessions."""
    defaults = {POLKIT_PREFIX + action.name: action.active for action in ACTIONS}
    return {
        "00-sessions.rules": f"var SEATED = {json.dumps(list(seated))};\n{_PLAYED}",
        "99-active.rules": f"var DEFAULTS = {json.dumps(defaults)};\n{_ACTIVE}",
    }


class Visitor:
    """A process of a user with one connection to the daemon."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.name: str = self._line()["name"]

    def say(self, method: str, **parameters: Any) -> None:
        """Ask, and do not wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, parameters]) + "\n")
        self._process.stdin.flush()

    async def ask(self, method: str, **parameters: Any) -> Answer:
        """Ask, and return the answer; agents of the test go on meanwhile."""
        self.say(method, **parameters)
        return await asyncio.get_running_loop().run_in_executor(None, self._line)

    def leave(self) -> None:
        """End the process, whatever it waits for."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _line(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the caller has ended"
        answer: Answer = json.loads(line)
        return answer


@dataclass
class System:
    """The machine with its daemon."""

    machine: Machine
    sources: Sources
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        """The folder of everything."""
        return self.machine.root

    @property
    def socket(self) -> Path:
        """The socket of the daemon."""
        return self.root / "run" / "rpc.sock"

    @property
    def repository(self) -> Path:
        """The repository of the system."""
        return self.root / "var" / "repo"

    def start(self, extra: Mapping[str, str] | None = None, *arguments: str) -> None:
        """Start the daemon and wait until it has its name."""
        words = ["--mode", "system", "--repository", f"{self.repository}", "--state", f"{self.root}/var/state"]
        words += ["--socket", f"{self.socket}", "--host", HOST, "--idle-exit", "0", *arguments]
        quick = {"GLIXD_CALLS_PER_SECOND": "100000", "GLIXD_CALLS_AT_ONCE": "100000", "GLIXD_INDEX": "false"}
        quick |= {"GLIXD_PENDING": "10000", "GLIXD_PENDING_PER_UID": "10000"}  # limits have tests of their own
        quick["GLIXD_EVALUATOR"] = "child"  # the same program as behind the socket, with the uid of the daemon
        command = [sys.executable, "-m", "glixd", *words]
        self.daemon = self.machine.start("glixd", *command, log="glixd.log", extra={**quick, **(extra or {})})
        self.machine.await_name(BUS_NAME, self.daemon)

    def stop(self) -> None:
        """End the daemon."""
        if self.daemon is not None:
            end(self.daemon)
            self.daemon = None

    @contextmanager
    def as_root(self) -> Iterator[RpcClient]:
        """A connection as root."""
        client = RpcClient(self.socket)
        try:
            yield client
        finally:
            client.close()

    def git(self, *words: str) -> str:
        """Ask git about the repository."""
        command = ["git", "-c", "safe.directory=*", "-C", os.fspath(self.repository), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, files: Mapping[str, str]) -> None:
        """Commit files, as a person with the rights of the daemon would."""
        for path, content in files.items():
            place = self.repository / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
        subprocess.run(["chown", "-R", f"{UIDS['glixd']}", self.repository], check=True)
        for words in (["add", "--all"], [*identity, "commit", "--quiet", "--message=By hand"]):
            done = self.machine.run("glixd", "git", "-C", os.fspath(self.repository), *words)
            assert done.returncode == 0, done.stderr

    def glixctl(
        self, user: str, *words: str, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the client as a user of the machine."""
        program = Path(sys.executable).parent / "glixctl"
        return self.machine.run(user, os.fspath(program), "--mode", "system", "--transport", "bus", *words, extra=extra)

    @contextmanager
    def visitor(self, user: str, transport: str) -> Iterator[Visitor]:
        """A user who is connected and asks when told to."""
        address = f"{self.socket}" if transport == "socket" else self.machine.bus
        words = [sys.executable, "-m", "tests.support.principal", transport, address, "-"]
        visitor = Visitor(self.machine.command(user, *words), self.machine.environment())
        try:
            yield visitor
        finally:
            visitor.leave()

    def ask(self, user: str, transport: str, requests: Sequence[tuple[str, Answer]]) -> list[Answer]:
        """What a user is answered, request by request; a mutation is waited for (see principal.py)."""
        address = f"{self.socket}" if transport == "socket" else self.machine.bus
        asked = self.root / "tmp" / f"{user}-{transport}.json"
        asked.write_text(json.dumps(requests))
        asked.chmod(0o644)
        done = self.machine.run(
            user, sys.executable, "-m", "tests.support.principal", transport, address, os.fspath(asked)
        )
        assert done.returncode == 0, done.stderr
        answers: list[Answer] = json.loads(done.stdout)
        return answers

    def log(self) -> str:
        """The log of the daemon."""
        return self.machine.log("glixd.log")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name in the log."""
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in found if event["event"] == name]


@contextmanager
def system(*, rules: Mapping[str, str] | None = None, start: bool = True) -> Iterator[System]:
    """A system with the host laptop, whose primary user is alice."""

    def prepare(root: Path) -> None:
        (root / "nix-wrapper").write_text(_NIX.format(root=root))
        (root / "nix-wrapper").chmod(0o755)

    nix = _program("nix")
    with machine(rules=rules, places=[("nix-wrapper", os.fspath(nix))], prepare=prepare) as made:
        root = made.root
        for folder in ("bin", "var", "run"):
            (root / folder).mkdir()
        shutil.copy(nix, root / "bin" / "nix")
        for name in ("nix-build", "nix-env", "nix-instantiate", "nix-store"):
            (root / "bin" / name).symlink_to("nix")
        sources = Sources.make(root / "sources")
        template = Template.make(root / "template", HermeticNix(root / "nix"), sources)
        shutil.copytree(template.folder, root / "var" / "repo", symlinks=True)
        shutil.copytree(template.cache, root / "var" / "state" / "cache", symlinks=True)
        for folder in ("nix", "sources", "var", "run"):
            subprocess.run(["chown", "-R", f"{UIDS['glixd']}:{UIDS['glixd']}", root / folder], check=True)
        at = System(made, sources)
        try:
            if start:
                at.start()
            yield at
        finally:
            at.stop()


def _program(name: str) -> Path:
    """The program itself: in a chroot the one on the path is a script around it."""
    return Path(f"/usr/bin/{name}").resolve()
