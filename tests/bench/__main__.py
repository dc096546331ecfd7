# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures glixd on this machine: figures with their goals, and what got worse since the run that was kept.

Everything together takes about a quarter of an hour on a machine with two cores that does nothing else. Each ratio is to a
baseline of the same run, taken in turns with it, so that it says something on another machine, too.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts import performance
from scripts.performance import RESULTS
from tests.bench import modes, programs, search, service, switching
from tests.bench import profile as parts
from tests.bench.measure import Report, worse
from tests.bench.world import World


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    packages: tuple[int, ...]
    hosts: tuple[int, ...]
    commits: tuple[int, ...]
    processes: int
    """Rounds of whole processes."""
    trips: int
    """Round trips."""
    mutations: int
    """Mutations of each of 32 clients; an even number, so that they end where they began."""
    names: int
    """Packages that are searched."""
    searches: int
    """Rounds of searches."""


WHOLE: Final = Size((0, 100, 1000, 10_000), (1, 10, 1000), (1, 1000, 10_000), 15, 2000, 20, 100_000, 100)
QUICK: Final = Size((3,), (2,), (4,), 1, 64, 2, 50, 1)

PARTS: Final[Mapping[str, Callable[[Report, World, Size], None]]] = {
    "packages": lambda report, world, size: programs.by_packages(report, world, size.packages, size.processes),
    "hosts": lambda report, world, size: programs.by_hosts(report, world, size.hosts, size.processes),
    "commits": lambda report, world, size: programs.by_commits(report, world, size.commits, size.processes),
    "trips": lambda report, world, size: service.round_trips(report, world, size.trips),
    "mutations": lambda report, world, size: service.mutations(report, world, size.mutations),
    "memory": lambda report, world, size: service.memory(
        report, world, tuple(dict.fromkeys((size.packages[0], size.packages[-1])))
    ),
    "modes": lambda report, world, size: modes.modes(report, world, size.processes),
    "profile": lambda report, world, size: parts.profile(report, world, size.processes),
    "switching": lambda report, world, size: switching.switching(report, world, size.processes),
    "search": lambda report, world, size: search.among_names(report, world, size.names, size.searches),
    "ready": lambda report, world, size: service.readiness(report, world, size.processes),
}


def main() -> int:
    """Measure what the command line asks for; the status is 0 whatever the figures say."""
    parser = argparse.ArgumentParser(
        prog="./bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--quick", action="store_true", help="one round of everything, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go, as JSON")
    parser.add_argument(
        "--keep",
        action="store_true",
        help=f"make them what later runs are compared with, and what the page about performance tells ({RESULTS.name}); "
        "the figures of parts that are not measured stay",
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    _compile()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="glix-bench-", ignore_cleanup_errors=True) as folder:
        world = World.make(Path(folder))
        for name in options.parts or PARTS:
            PARTS[name](report, world, QUICK if options.quick else WHOLE)
        world.nix.remove()
    earlier = json.loads(RESULTS.read_text())["figures"] if RESULTS.exists() else {}
    _conclude(report, earlier)
    figures = {figure.name: figure.as_json() for figure in report.figures}
    if options.out:
        _write(options.out, figures)
    if options.keep:
        _write(RESULTS, {**earlier, **figures} if options.parts else figures)
        performance.write()
    return 0


def _write(file: Path, figures: Mapping[str, Any]) -> None:
    results = {"machine": _machine(), "figures": figures}
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _compile() -> None:
    """What is installed has compiled files; a checkout may lack some, and would be measured reading its sources."""
    for package in ("glixd", "glixctl"):
        compileall.compile_dir(performance.CHECKOUT / package, quiet=1)


def _conclude(report: Report, earlier: Mapping[str, Any]) -> None:
    judged = [figure for figure in report.figures if figure.met is not None]
    missed = [figure.name for figure in judged if not figure.met]
    report.show(f"\n{len(report.figures)} figures; {len(judged) - len(missed)} of {len(judged)} goals met")
    for name in missed:
        report.show(f"missed: {name}")
    for sentence in worse(report.figures, earlier):
        report.show(f"worse than before: {sentence}")
    if not earlier:
        report.show(f"nothing to compare with: there is no {RESULTS.name} yet; --keep makes one")


def _machine() -> dict[str, Any]:
    """What figures without a ratio depend on."""
    git, nix = (
        subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        for name in ("git", "nix")
    )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "arch": platform.machine(),
        "Python": platform.python_version(),
        "git": git,
        "nix": nix,
    }


if __name__ == "__main__":
    sys.exit(main())
