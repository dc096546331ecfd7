# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole processes: what a person waits for after pressing return, at several sizes of the repository."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from tests.bench.measure import Case, Report
from tests.bench.world import Client, CommitOnly, World, bare_python, timed
from tests.support.daemon import RunningDaemon
from tests.support.hermetic import quoted

PYTHON: Final = "python3 -I -c pass"
COMMIT: Final = "git commit --only"
NIX_LOCK: Final = "nix flake lock, nothing to do"
FLOOR: Final = (COMMIT, PYTHON)
"""What a mutation can't do without: an interpreter that starts, and a commit."""
BATCH: Final = 100
MANY: Final = 10_000

READ_GOALS: Final = {"list": 2.5}
WRITE_GOALS: Final = {"add NAME": 2.2, "enable": 2.2, "set config": 2.2}


def by_packages(report: Report, world: World, sizes: tuple[int, ...], rounds: int) -> None:
    """Every verb, on one host with so many packages."""
    for size in sizes:
        with world.daemon(f"packages-{size}", packages=size) as daemon:
            few = max(3, rounds // 4) if size >= MANY else rounds
            _reading(report, daemon, size, few)
            _writing(report, world, daemon, size, few)


def by_hosts(report: Report, world: World, sizes: tuple[int, ...], rounds: int) -> None:
    """The verbs that may look at every host, with so many of them."""
    for size in sizes:
        with world.daemon(f"hosts-{size}", packages=10, hosts=size) as daemon:
            client, environment = Client(daemon.site), daemon.site.environment()
            cases: dict[str, Case] = {
                PYTHON: lambda environment=environment: bare_python(environment),  # type: ignore[misc]
                **_commands(client, list=("list",), all_hosts=("list", "--all-hosts"), info=("info",)),
                "enable": _switching(daemon, client),
            }
            report.interleaved(f"{size} hosts", cases, max(3, rounds // 2) if size >= 1000 else rounds, baseline=PYTHON)


def _reading(report: Report, daemon: RunningDaemon, size: int, rounds: int) -> None:
    client, environment = Client(daemon.site), daemon.site.environment()
    cases: dict[str, Case] = {
        PYTHON: lambda: bare_python(environment),
        **_commands(client, list=("list",), info=("info",), history=("history",), search=("search", "hello")),
    }
    if size:
        cases["show"] = lambda: client("show", "package-00000")
    report.interleaved(
        f"{size} packages, reading", cases, rounds, baseline=PYTHON, goals=READ_GOALS if size == 100 else None
    )


def _writing(report: Report, world: World, daemon: RunningDaemon, size: int, rounds: int) -> None:
    site = daemon.site
    client, environment = Client(site), site.environment()
    commit = CommitOnly(site, world.folder / f"plain-{size}")
    locked = world.folder / f"locked-{size}"
    CommitOnly(site, locked)
    cases: dict[str, Case] = {
        PYTHON: lambda: bare_python(environment),
        COMMIT: commit,
        NIX_LOCK: lambda: timed(["nix", "flake", "lock", f"path:{quoted(locked)}"], world.nix.environment()),
        "add NAME": _then(daemon, lambda: client("add", "firefox"), "Remove", names=["firefox"]),
        "remove": _after(daemon, lambda: client("remove", "firefox"), "Add", refs=["firefox"]),
        "enable": _switching(daemon, client),
        "set config": _counting(lambda number: client("set", "hello", f"config.number={number}"), daemon),
        "add NAME --dry-run": lambda: client("add", "firefox", "--dry-run"),
        "add FLAKE, a new input": _then(
            daemon,
            lambda: client("add", world.sources.hello, "--name", "fresh", "--allow-local", "--yes"),
            "Remove",
            names=["fresh"],
        ),
        f"apply, {BATCH} changes": _batch(daemon, client),
    }
    daemon.done("Add", refs=["hello"])
    report.interleaved(
        f"{size} packages, writing",
        cases,
        rounds,
        baseline=PYTHON,
        goals=WRITE_GOALS if size == 100 else None,
        sums={
            COMMIT: (PYTHON,),
            **dict.fromkeys(("add NAME", "remove", "enable", "set config", "add NAME --dry-run"), FLOOR),
            "add FLAKE, a new input": (*FLOOR, NIX_LOCK),
            f"apply, {BATCH} changes": ("add NAME",),
        },
    )


def _commands(client: Client, **lines: tuple[str, ...]) -> dict[str, Case]:
    """A case for each command line, by the line."""
    return {" ".join(words): (lambda words=words: client(*words)) for words in lines.values()}  # type: ignore[misc]


def _then(daemon: RunningDaemon, case: Case, operation: str, **parameters: object) -> Case:
    """A case that is undone afterwards, and let settle; neither is measured."""

    def run() -> float:
        took = case()
        daemon.done(operation, **parameters)
        daemon.health()
        return took

    return run


def _after(daemon: RunningDaemon, case: Case, operation: str, **parameters: object) -> Case:
    """A case that something is done for before, which is not measured."""

    def run() -> float:
        daemon.done(operation, **parameters)
        daemon.health()
        took = case()
        daemon.health()
        return took

    return run


def _switching(daemon: RunningDaemon, client: Client) -> Case:
    """`enable` of a package that is disabled again afterwards."""
    if not any(package["name"] == "git" for package in daemon.call("List", include_disabled=True)["packages"]):
        daemon.done("Add", refs=["git"])
    daemon.done("Disable", names=["git"])
    return _then(daemon, lambda: client("enable", "git"), "Disable", names=["git"])


def _counting(case: Callable[[int], float], daemon: RunningDaemon) -> Case:
    """A case that gets another number each time."""
    number = 0

    def run() -> float:
        nonlocal number
        number += 1
        took = case(number)
        daemon.health()
        return took

    return run


def _batch(daemon: RunningDaemon, client: Client) -> Case:
    """`apply` of a hundred additions from a file, taken away again afterwards."""
    names = [f"batch-{number:03}" for number in range(BATCH)]
    file = daemon.site.home / "changes.toml"
    file.write_text(
        "".join(f'[[operations]]\noperation = "Add"\nrefs = ["nixpkgs#hello"]\nname = "{name}"\n' for name in names)
    )
    return _then(daemon, lambda: client("apply", "-f", os.fspath(file)), "Remove", names=names)
