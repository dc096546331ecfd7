# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole processes: what a person waits for after pressing return, at several sizes of the repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tests.bench.measure import Case, Figure, Report
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
WRITE_GOALS: Final = {"add NAME": 2.2, "enable": 2.2, "set config": 2.2, "add FLAKE, a new input": 0.97}
"""What the issue of speed asks for at 100 packages; a new input is a lock besides, and no more."""
BATCH_GOAL: Final = {f"apply, {BATCH} changes": 2.0}
USUAL: Final = 100
GROWN: Final = {"reading": {"list": 1.5}, "writing": dict.fromkeys(("add NAME", "remove", "enable", "set config"), 3.0)}
"""How many times what it takes at 100 packages something may take at 10,000."""


def by_packages(report: Report, world: World, sizes: tuple[int, ...], rounds: int) -> None:
    """Every verb, on one host with so many packages."""
    for size in sizes:
        with world.daemon(f"packages-{size}", packages=size) as daemon:
            few, usual = max(3, rounds // 4) if size >= MANY else rounds, size == USUAL
            group = f"{size} packages"
            _reading(report, daemon, group, few, "package-00000" if size else None, READ_GOALS if usual else None)
            _writing(report, world, daemon, group, few, WRITE_GOALS | BATCH_GOAL if usual else None)
    for kind, goals in GROWN.items():
        for verb, goal in goals.items():
            before, after = (report.median(f"{size} packages, {kind}: {verb}") for size in (USUAL, MANY))
            if before and after:
                report.add(
                    Figure(
                        f"{MANY} packages: {verb}", (after,), baseline=f"at {USUAL} packages", base=before, goal=goal
                    )
                )


def by_hosts(report: Report, world: World, sizes: tuple[int, ...], rounds: int) -> None:
    """The same with so many hosts; those that may look at every host besides."""
    for size in sizes:
        with world.daemon(f"hosts-{size}", packages=10, hosts=size) as daemon:
            few = max(3, rounds // 4) if size >= 1000 else max(3, rounds // 2)
            _reading(report, daemon, f"{size} hosts", few, "package-00000", None, ("list", "--all-hosts"))
            _writing(report, world, daemon, f"{size} hosts", few, None)


def by_commits(report: Report, world: World, sizes: tuple[int, ...], rounds: int) -> None:
    """What may depend on the length of the history, with so many commits."""
    for size in sizes:
        with world.daemon(f"commits-{size}", packages=10, commits=size) as daemon:
            client, environment = Client(daemon.site), daemon.site.environment()
            cases: dict[str, Case] = {
                PYTHON: lambda environment=environment: bare_python(environment),  # type: ignore[misc]
                **_commands(client, [("list",), ("history",)]),
                "enable": _switching(daemon, client),
                "rollback": _after(daemon, lambda client=client: client("rollback"), "Enable", names=["git"]),  # type: ignore[misc]
            }
            report.interleaved(f"{size} commits", cases, max(3, rounds // 2), baseline=PYTHON)


def _reading(
    report: Report,
    daemon: RunningDaemon,
    group: str,
    rounds: int,
    package: str | None,
    goals: Mapping[str, float] | None,
    *more: tuple[str, ...],
) -> None:
    client, environment = Client(daemon.site), daemon.site.environment()
    lines = [("list",), ("info",), ("history",), ("search", "hello"), *more]
    cases: dict[str, Case] = {PYTHON: lambda: bare_python(environment), **_commands(client, lines)}
    if package:
        cases["show"] = lambda: client("show", package)
    report.interleaved(f"{group}, reading", cases, rounds, baseline=PYTHON, goals=goals)


def _writing(
    report: Report, world: World, daemon: RunningDaemon, group: str, rounds: int, goals: Mapping[str, float] | None
) -> None:
    site = daemon.site
    client, environment = Client(site), site.environment()
    place = group.replace(" ", "-")
    commit = CommitOnly(site, world.folder / f"plain-{place}")
    locked = world.folder / f"locked-{place}"
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
        f"{group}, writing",
        cases,
        rounds,
        baseline=PYTHON,
        goals=goals,
        sums={
            COMMIT: (PYTHON,),
            **dict.fromkeys(("add NAME", "remove", "enable", "set config", "add NAME --dry-run"), FLOOR),
            "add FLAKE, a new input": (NIX_LOCK, *((2.2, part) for part in FLOOR)),
            f"apply, {BATCH} changes": ("add NAME",),
        },
    )


def _commands(client: Client, lines: Iterable[tuple[str, ...]]) -> dict[str, Case]:
    """A case for each command line, by the line."""
    return {" ".join(words): (lambda words=words: client(*words)) for words in lines}  # type: ignore[misc]


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
