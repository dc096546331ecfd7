# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the suites of ./check beside each other and says what passed, failed or could not run.

A suite is one of the static checks, or a folder below tests/ that holds tests. It runs with the standard library alone,
so that it can still say why nothing runs when no virtual environment could be made.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / ".cache"
LOGS = CACHE / "check"
VENV_PROGRAMS = CHECKOUT / ".venv" / "bin"
CORES = len(os.sched_getaffinity(0))
SUITE_LIMIT = 1800.0
"""Seconds after which a suite is ended: a test has a limit of its own, but what it left behind has none."""
TAIL = 60

VENV = "the virtual environment"
"""The need for .venv: this very Python is its Python, or else making it failed and there are no tools."""

CONTAINER = "the right to start a container"
"""The need for namespaces and for control groups that can be written to."""

FAST = ("format", "lint", "types", "imports", "unit")
ON_REQUEST = ("bench", "soak")
CODE = ("glixd", "glixctl", "tests", "scripts")


class Status(IntEnum):
    """The exit statuses of ./check."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    NOT_RUN = 3


class Outcome(StrEnum):
    """What became of one suite."""

    PASSED = "ok"
    FAILED = "FAILED"
    NOT_RUN = "NOT RUN"


@dataclass(frozen=True)
class Suite:
    """One thing to run: its command, and what the machine must have for it."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    junit: Path | None = None
    alone: bool = False
    """Whether it keeps every core busy by itself, so that nothing runs beside it."""


@dataclass(frozen=True)
class Result:
    """How one suite ended."""

    suite: Suite
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    passed: int = 0
    failed: int = 0
    skipped: tuple[str, ...] = ()
    """Why tests were left out; a skip is no pass."""
    failures: tuple[str, ...] = ()
    """The tests that failed, each with the first line of what it said."""


def static_suites() -> Iterator[Suite]:
    """The checks that read the code and run none of it."""
    code = tuple(folder for folder in CODE if (CHECKOUT / folder).is_dir())
    yield Suite("format", (_program("ruff"), "format", "--check", "."), needs=(VENV,))
    yield Suite("lint", (_program("ruff"), "check", "--output-format=concise", "."), needs=(VENV,))
    yield Suite("types", (_program("mypy"), *code), needs=(VENV,))
    yield Suite("imports", (_program("lint-imports"), "--cache-dir", str(CACHE / "imports")), needs=(VENV,))


def test_suites() -> Iterator[Suite]:
    """One suite for every folder below tests/ that holds tests."""
    for folder in sorted((CHECKOUT / "tests").glob("*/")):
        if any(folder.rglob("test_*.py")):
            yield _test_suite(folder.name)


def _test_suite(name: str) -> Suite:
    junit = LOGS / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", f"tests/{name}", f"--junitxml={junit}"]
    alone = name in SPREAD and CORES > 1
    if alone:
        command += ["--numprocesses", str(CORES), "--dist", "loadfile"]
    return Suite(name, tuple(command), needs=NEEDS.get(name, EVERYTHING), junit=junit, alone=alone)


SPREAD = ("integration",)
"""Suites that take longer than all others together: a worker for each core, and nothing beside them."""

EVERYTHING = (
    VENV,
    "systemd-python",
    "git",
    "nix",
    "openssl",
    "dbus-daemon",
    "busctl",
    "gdbus",
    "gdbus-codegen",
    "qdbusxml2cpp",
    "sdbus-c++-xml2cpp",
    "xmllint",
    "zsh",
    "fish",
)
NEEDS = {
    "unit": (VENV, "systemd-python"),
    "house": (VENV, "git", "man"),
    "nix": (VENV, "git", "nix", "openssl"),
    "system": (*EVERYTHING, "cc"),
    "booted": (VENV, "systemd-python", "git", "root", "debootstrap", "systemd-nspawn", CONTAINER),
    "machines": (*EVERYTHING, "root", "unshare", "nsenter", "ip", "ssh", "sshd"),
    "authorisation": (*EVERYTHING, "root", "polkitd", "pkcheck", "pkttyagent", "unshare", "nsenter", "setpriv"),
}
"""What the machine must have for a suite; a suite without an entry needs everything."""


def _can_contain() -> bool:
    """Whether a container could be given namespaces and a control group of its own."""
    namespaces = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--mount-proc", "true")
    hierarchies = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"))
    return (
        _which("unshare") is not None
        and subprocess.run(namespaces, capture_output=True, check=False).returncode == 0
        and any((folder / "cgroup.procs").exists() and os.access(folder, os.W_OK) for folder in hierarchies)
    )


_PROBES: dict[str, Callable[[], bool]] = {
    VENV: lambda: Path(sys.prefix).resolve() == (CHECKOUT / ".venv").resolve(),
    "polkitd": lambda: os.access("/usr/lib/polkit-1/polkitd", os.X_OK),
    "root": lambda: os.geteuid() == 0,
    "sshd": lambda: os.access("/usr/sbin/sshd", os.X_OK),
    "systemd-python": lambda: importlib.util.find_spec("systemd") is not None,
    CONTAINER: _can_contain,
}


def _program(name: str) -> str:
    return str(VENV_PROGRAMS / name)


def lacking(suite: Suite) -> list[str]:
    """What SUITE needs and this machine does not have."""
    return [need for need in suite.needs if not _PROBES.get(need, lambda need=need: _which(need) is not None)()]


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{VENV_PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


class Running:
    """The processes of the suites that are under way, so that an interruption ends them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, command: tuple[str, ...], log: Path) -> int:
        """Run COMMAND in a process group of its own, with its output in LOG; the exit status."""
        with log.open("wb") as output:
            with self._lock:
                if self._ended:
                    return -signal.SIGTERM
                process = subprocess.Popen(
                    command,
                    cwd=CHECKOUT,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._processes.add(process)
            try:
                return process.wait(SUITE_LIMIT)
            except subprocess.TimeoutExpired:
                output.write(f"\nended after {SUITE_LIMIT:.0f} seconds\n".encode())
                return self._kill(process)
            finally:
                with self._lock:
                    self._processes.discard(process)

    def end(self) -> None:
        """End what runs and start nothing more."""
        with self._lock:
            self._ended = True
            processes = list(self._processes)
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> int:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _environment() -> dict[str, str]:
    """The caller's environment, with this checkout's programs first and its caches inside the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = f"{VENV_PROGRAMS}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment["PYTHONPYCACHEPREFIX"] = str(CACHE / "pycache")
    return environment


def run(suite: Suite, running: Running) -> Result:
    """Run one suite to its end, or say what it lacks."""
    if missing := lacking(suite):
        return Result(suite, Outcome.NOT_RUN, reason=f"missing: {', '.join(missing)}")
    if suite.junit is not None:
        suite.junit.unlink(missing_ok=True)
    started = time.monotonic()
    status = running.run(suite.command, _log(suite))
    seconds = time.monotonic() - started
    passed, failures, skipped = _counts(suite)
    if status == 0 and not failures:
        return Result(suite, Outcome.PASSED, seconds, passed=passed, skipped=skipped)
    # A suite that ended without a failed test (nothing collected, a crash, a signal) is a failure all the same.
    failed = len(failures) if failures or suite.junit is None else 1
    reason = f"status {status}, see {_shown(_log(suite))}"
    return Result(suite, Outcome.FAILED, seconds, reason, passed, failed, failures=failures)


def _log(suite: Suite) -> Path:
    return LOGS / f"{suite.name}.log"


def _shown(path: Path) -> Path:
    return path.relative_to(CHECKOUT)


def _counts(suite: Suite) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """How many tests of SUITE passed, which failed, and why others were skipped, from the report that pytest wrote."""
    if suite.junit is None or not suite.junit.exists():
        return 0, (), ()
    passed = 0
    failures = []
    skipped = []
    for case in ElementTree.parse(suite.junit).iter("testcase"):  # noqa: S314 - written by our own pytest, just now
        said = {child.tag: child.get("message") or "" for child in case}
        if wrong := said.keys() & {"failure", "error"}:
            told = said[min(wrong)].splitlines() or [""]
            failures.append(f"{case.get('classname')}::{case.get('name')}: {told[0][:200]}")
        elif "skipped" in said:
            skipped.append(said["skipped"])
        else:
            passed += 1
    return passed, tuple(failures), tuple(skipped)


def report(result: Result) -> None:
    """Print how one suite ended, and the end of its log where it failed."""
    match result.outcome:
        case Outcome.NOT_RUN:
            print(f"NOT RUN {result.suite.name}: {result.reason}", flush=True)
        case Outcome.PASSED:
            tests = f"  {result.passed} passed" if result.suite.junit else ""
            print(f"ok      {result.suite.name:<12} {result.seconds:6.1f} s{tests}", flush=True)
            for reason in sorted(set(result.skipped)):
                times = result.skipped.count(reason)
                print(f"NOT RUN {result.suite.name}: {times} tests: {reason}", flush=True)
        case Outcome.FAILED:
            print(f"FAILED  {result.suite.name:<12} {result.seconds:6.1f} s  {result.reason}", flush=True)
            for line in _log(result.suite).read_text(errors="replace").splitlines()[-TAIL:]:
                print(f"    {line}")
            for failure in result.failures:
                print(f"    failed: {failure}")
            sys.stdout.flush()


def summarise(results: list[Result]) -> Status:
    """Print the totals and choose the exit status: a failure outweighs what could not run."""
    count = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    print(
        f"suites: {count[Outcome.PASSED]} ok, {count[Outcome.FAILED]} failed, {count[Outcome.NOT_RUN]} not run; tests:"
    )
    print(f"{sum(result.passed for result in results)} passed, {sum(result.failed for result in results)} failed")
    if count[Outcome.FAILED]:
        return Status.FAILED
    incomplete = count[Outcome.NOT_RUN] or any(result.skipped for result in results)
    return Status.NOT_RUN if incomplete else Status.PASSED


def choose(known: dict[str, Suite], names: list[str], fast: bool) -> list[Suite]:
    """The suites that were asked for; without names, all but those that run on request only."""
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    if fast:
        return [suite for name, suite in known.items() if name in FAST]
    for name in sorted(known.keys() & set(ON_REQUEST)):
        print(f"on request only: ./check {name}")
    return [suite for name, suite in known.items() if name not in ON_REQUEST]


def main() -> int:
    """Run what the arguments ask for."""
    known = {suite.name: suite for suite in (*static_suites(), *test_suites())}
    parser = argparse.ArgumentParser(prog="./check", description="Check the code and run the tests.")
    parser.add_argument("--fast", action="store_true", help=f"only {', '.join(FAST)}")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"one of {', '.join(known)}")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.suites if name not in known]:
        parser.error(f"no such suite: {', '.join(unknown)} (there are {', '.join(known)})")

    LOGS.mkdir(parents=True, exist_ok=True)
    suites = choose(known, arguments.suites, arguments.fast)
    together = [suite for suite in suites if not suite.alone]
    spread = [suite for suite in suites if suite.alone]
    print(f"running {', '.join(suite.name for suite in (*together, *spread))}; {CORES} at a time", flush=True)
    running = Running()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = []
    with ThreadPoolExecutor(max_workers=CORES) as pool:
        try:
            for group in (together, *([suite] for suite in spread)):
                for future in as_completed([pool.submit(run, suite, running) for suite in group]):
                    results.append(future.result())
                    report(results[-1])
        except BaseException:
            running.end()
            raise
    return summarise(results)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
