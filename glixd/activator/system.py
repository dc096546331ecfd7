# SPDX-License-Identifier: GPL-3.0-or-later
"""The system: what may become it, what the repository says, and the switch. git runs as the daemon's user."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, Popen, SubprocessError, run
from typing import Any, Final

from glixd.activator.order import Order, Refused

UNIT: Final = "nixos-rebuild-switch-to-configuration"
"""The name that nixos-rebuild gives its switch: two of them exclude each other."""
MOST: Final = 1000
TAIL: Final = 50
_STATUS: Final = {0: "done", 4: "units-failed", 100: "reboot-needed"}
_SETTINGS: Final = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "log.showSignature=false")


def check(order: Order, config: Namespace) -> None:
    """Refuse what is no system of the store, no commit of the branch now, or no moment for a switch."""
    path = Path(order.path)
    config.syncing = Popen(["sync", "-f", config.store], stdin=DEVNULL)  # nix does not wait until a path is on the disk
    if not re.fullmatch(re.escape(f"{config.store}/") + "[0-9a-z]{32}-[^/]+", order.path):
        raise Refused("the store has no such path", "InvalidArgument")
    if not (path / "nixos-version").is_file() or not os.access(path / "bin/switch-to-configuration", os.X_OK):
        raise Refused("the path is no NixOS system", "InvalidArgument")
    if order.generation is not None:
        if os.path.realpath(f"{config.profile}-{order.generation}-link") != order.path:  # what it names is valid
            raise Refused(f"the path is not that of generation {order.generation}", "Conflict")
    else:
        newest = git(config, "rev-parse", "--verify", f"refs/heads/{config.branch}").decode().strip()
        sets = order.action in ("switch", "boot")  # which nix-env does with a valid path alone
        if not sets and _run("nix-store", "--check-validity", order.path).returncode:
            raise Refused("the store has no such path", "InvalidArgument")
        if newest != order.commit:
            raise Refused("the commit is not that of the branch", "Conflict")
    if config.systemd and _run("systemctl", "is-active", "--quiet", UNIT).returncode == 0:
        raise Refused("another switch is under way", "Busy")


def pending(order: Order, config: Namespace) -> tuple[str, bool]:
    """What is new since the running system, and whether all of it was trusted."""
    try:
        running = (config.current / "etc/glixos-revision").read_text().strip()
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", running):
            raise ValueError
        git(config, "merge-base", "--is-ancestor", running, order.commit)
        form = "--format=%(trailers:key=Glix-Trust,valueonly,separator=%x2C)"
        log = git(config, "log", "-z", f"--max-count={MOST + 1}", form, f"{running}..{order.commit}")
    except (OSError, ValueError, Refused):
        return "everything: the running system is of no known commit", False
    trusts = log.split(b"\0")[:-1]
    trusted = len(trusts) <= MOST and all(trust.strip() == b"trusted" for trust in trusts)
    return f"{len(trusts)} since {running[:12]}", trusted


def compare(order: Order, config: Namespace) -> None:
    """Refuse a path that is not what another uid made of the commit: the evaluator notes what it built, where it alone writes."""
    try:
        with (config.built / f"{order.commit}-host-{config.host}").open() as note:
            owner, path = os.fstat(note.fileno()).st_uid, note.read()
    except (OSError, ValueError):
        raise Refused("the evaluator did not build the commit, so it can't be compared", "EvaluationFailed") from None
    if path != order.path or owner == config.uid != 0:
        raise Refused("the path is not what the commit evaluates to", "Conflict")


def activate(order: Order, config: Namespace, say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Set the profile, and switch in a unit of its own; raises Refused when the profile can't be set."""
    config.syncing.wait()
    generation = None
    if order.action in ("switch", "boot"):
        what = ("--set", order.path) if order.generation is None else ("--switch-generation", str(order.generation))
        if (done := _run("nix-env", "--profile", os.fspath(config.profile), *what)).returncode:
            raise Refused(f"the profile can't be set: {done.stderr.decode(errors='replace')}", "ActivationFailed")
        generation = current_generation(config)
    words = [f"{order.path}/bin/switch-to-configuration", order.action]
    if config.systemd:
        how = ("--collect", "--no-ask-password", "--quiet", "--pipe", "--wait", "--service-type=exec")
        words = ["systemd-run", f"--unit={UNIT}", *how, "-ELOCALE_ARCHIVE", "-ENIXOS_INSTALL_BOOTLOADER=0", *words]
    tail: list[str] = []
    with Popen(words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True) as child:
        for line in child.stdout or ():
            tail = [*tail, line.decode(errors="replace").rstrip("\n")][-TAIL:]
            say({"line": tail[-1]})
    status = _STATUS.get(child.returncode, "failed")
    failed = _failed() if status == "units-failed" else []
    return {"status": status, "failed_units": failed, "generation": generation, "tail": tail}


def current_generation(config: Namespace) -> int | None:
    """The number of the generation that the profile is at."""
    return int(os.readlink(config.profile).split("-")[-2]) if config.profile.is_symlink() else None


def git(config: Namespace, *words: str) -> bytes:
    """What git says of the daemon's repository; it can say, and run, nothing that the daemon's user could not."""
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    who: dict[str, Any] = {"user": config.uid, "group": config.gid, "extra_groups": (), "env": environment, "cwd": "/"}
    argv = ["git", f"--git-dir={config.repository}/.git", *_SETTINGS, *words]
    try:
        return bytes(run(argv, stdin=DEVNULL, capture_output=True, timeout=60, check=True, **who).stdout)
    except (OSError, SubprocessError):
        raise Refused(f"git {words[0]} failed in the repository", "Conflict") from None


def _failed() -> list[str]:
    said = _run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend").stdout.decode(errors="replace")
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def _run(*words: str) -> CompletedProcess[bytes]:
    return run(words, stdin=DEVNULL, capture_output=True, check=False)
