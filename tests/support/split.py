# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon, the evaluator and the activator, each with a uid of its own, on a machine with a real polkitd and nix's daemon.

Only systemd is missing: the sockets are the tests', and the switch runs without a unit.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.activator import Programs, programs
from tests.support.machine import PATIENCE, UIDS
from tests.support.system import System, system

EVALUATOR: Final = 4300
"""The uid of the evaluator."""


@dataclass
class Split:
    """The system with its helpers."""

    at: System
    helpers: Programs
    environment: dict[str, str]
    """What a program of another uid than the daemon's finds: the store is behind nix's daemon."""

    @property
    def head(self) -> str:
        """The commit of the branch."""
        return self.at.git("rev-parse", "refs/heads/main")

    def as_evaluator(self, *words: str) -> list[str]:
        """A command line of the evaluator's user."""
        return [*self.helpers.evaluator_prefix, *words]


@contextmanager
def split(*, rules: Mapping[str, str] | None = None, wishes_given: bool = True) -> Iterator[Split]:
    """All of it, running."""
    with system(rules=rules, start=False) as at:
        root = at.root
        store = {name: f"{root}/nix/{folder}" for name, folder in _PLACES.items()}
        environment = {
            **store,
            "PATH": f"{root}/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "NIX_REMOTE": "daemon",
            "NIX_USER_CONF_FILES": "",
            "DBUS_SYSTEM_BUS_ADDRESS": at.machine.bus,
            "LC_ALL": "C.UTF-8",
        }
        (root / "bin" / "nix-daemon").symlink_to("nix")
        wrapper = root / "nix-wrapper"  # in place, since it is seen elsewhere
        wrapper.write_text(wrapper.read_text().replace("NIX_REMOTE=local", "NIX_REMOTE=daemon"))
        with (root / "nix" / "etc" / "nix.conf").open("a") as settings:
            settings.write(f"build-hook = {root}/bin/build-remote\n")  # else that is a wrapper, which asks the daemon
        (root / "bin" / "build-remote").symlink_to("nix")
        subprocess.run(["chown", "-R", "0:0", root / "nix"], check=True)
        daemon = at.machine.start(
            "root", f"{root}/bin/nix-daemon", log="nix-daemon.log", extra={**environment, "NIX_REMOTE": "local"}
        )
        _await(root / "nix/state/daemon-socket/socket", daemon)
        inside = ("nsenter", f"--mount=/proc/{at.machine.holder.pid}/ns/mnt", "--")
        other = ("setpriv", f"--reuid={EVALUATOR}", f"--regid={EVALUATOR}", "--clear-groups", "--inh-caps=-all", "--")
        for folder, owner in (("helpers", 0), ("helpers/evaluator", EVALUATOR)):
            (root / folder).mkdir(mode=0o755)
            os.chown(root / folder, owner, owner)
        with programs(
            root / "helpers",
            at.repository,
            environment,
            peer="glixd",
            wishes_given=wishes_given,
            prefix=inside,
            evaluator_prefix=(*inside, *other),
        ) as helpers:
            for socket in helpers.folder.iterdir():
                os.chown(socket, UIDS["glixd"], UIDS["glixd"])
                socket.chmod(0o600)
            at.repository.chmod(0o700)
            at.start({**helpers.settings(), "GLIXD_EVALUATOR": os.fspath(helpers.evaluator.path)})
            yield Split(at, helpers, environment)


_PLACES: Final = {
    "NIX_STORE_DIR": "store",
    "NIX_STATE_DIR": "state",
    "NIX_LOG_DIR": "log",
    "NIX_CONF_DIR": "etc",
}


def _await(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)
