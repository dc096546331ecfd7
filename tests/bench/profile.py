# SPDX-License-Identifier: GPL-3.0-or-later
"""What the slow paths consist of: the floors that the machine sets, how often a change stands on them, and what is computed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Final

from glixd.api import Scope
from glixd.model.change import Add, Base, Batch, Resolved
from glixd.model.manifest import Manifest
from glixd.model.operations import plan
from tests.bench.measure import Case, Figure, Report
from tests.bench.programs import BATCH, PYTHON
from tests.bench.world import MANIFEST, Client, World, bare_python, timed
from tests.support.daemon import HOST, RunningDaemon

CALLS: Final = {
    "programs": ("execve",),
    "waits for the disk": ("fsync", "fdatasync"),
    "renames": ("rename", "renameat", "renameat2"),
}
STRACE_READY: Final = 30.0


def profile(report: Report, world: World, rounds: int) -> None:
    """The floors, the parts of a short command and of a change, and the calls of the system that a change makes."""
    with world.daemon("profile", packages=100) as daemon, daemon.connect() as connection:
        site = daemon.site
        environment, client = site.environment(), Client(site)
        disk = site.repository / ".git" / "glix" / "bench"
        text = site.read(MANIFEST)

        def added() -> float:
            began = time.perf_counter()
            connection.run("Add", refs=["firefox"], evaluate=False)
            took = time.perf_counter() - began
            connection.run("Remove", names=["firefox"], evaluate=False)
            return took

        cases: dict[str, Case] = {
            PYTHON: lambda: bare_python(environment),
            "a program that does nothing": lambda: timed(["true"], environment),
            "git update-ref, nothing to do": lambda: timed(
                ["git", "-C", os.fspath(site.repository), "update-ref", "--stdin"], environment
            ),
            "nix --version": lambda: timed(["nix", "--version"], environment),
            "a file written and synchronised": lambda: _synchronised(disk),
            "glixctl, asking nobody": lambda: client("version"),
            "glixctl list": lambda: client("list"),
            "a package added, over an open connection": added,
            "computing one addition": lambda: _planned(text, 1),
            f"computing {BATCH} additions": lambda: _planned(text, BATCH),
        }
        report.interleaved("parts", cases, rounds, baseline=PYTHON)
        if shutil.which("strace"):
            _counted(report, daemon, world.folder / "calls")


def _synchronised(file: Path) -> float:
    began = time.perf_counter()
    with file.open("wb") as opened:
        opened.write(b"x" * 1000)
        opened.flush()
        os.fsync(opened.fileno())
    took = time.perf_counter() - began
    file.unlink()
    return took


def _planned(text: str, number: int) -> float:
    base = Base("", None, {HOST: Manifest.parse(text, MANIFEST)}, {HOST: text}, "x86_64-linux")
    parts = tuple(
        Add(
            HOST,
            (Resolved(HELLO, f"new-{part:03}", HELLO, "uri", None, "hello", True),),
            Scope.SYSTEM,
            None,
            None,
            True,
        )
        for part in range(number)
    )
    began = time.perf_counter()
    plan(base, Batch(HOST, parts))
    return time.perf_counter() - began


HELLO: Final = "nixpkgs#hello"


def _counted(report: Report, daemon: RunningDaemon, log: Path) -> None:
    """Which calls a change makes, in the daemon and in all that it starts."""
    wanted = ",".join(call for calls in CALLS.values() for call in calls)
    words = ["strace", "--follow-forks", f"--trace={wanted}", f"--output={log}", f"--attach={daemon.pid}"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        if tracer.stderr is None or "attached" not in tracer.stderr.readline():
            report.show("calls of a change: NOT RUN: strace may not look at another process here")
            tracer.kill()
            return
        daemon.done("Add", refs=["firefox"], evaluate=False)
        tracer.terminate()
        tracer.wait(STRACE_READY)
    found = Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))
    for what, calls in CALLS.items():
        report.add(Figure(f"calls of a change: {what}", (float(sum(found[call] for call in calls)),), "calls"))
