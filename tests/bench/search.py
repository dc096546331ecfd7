# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a search takes among many names, and what the index behind it costs to build.

A real daemon builds its index of a nixpkgs of synthetic packages, by a real nix, and answers over its socket; so the times are
what a client sees, and a little longer than what the daemon needs.
"""

from __future__ import annotations

import random
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.bench.measure import Figure, Report
from tests.bench.world import World, running
from tests.support.daemon import RpcClient, RunningDaemon, new_site
from tests.support.hermetic import MINI_NIXPKGS, make_git_flake

SYLLABLES: Final = ("fire", "fox", "lib", "py", "thon", "net", "data", "web", "ser", "kit")
WORDS: Final = ("package", "library", "for", "the", "tool", "fast", "editor", "text", "server", "browser")
QUERIES: Final = 11
"""Queries of one round."""
SLOWEST: Final = 10.0
"""Milliseconds in which 99 of 100 queries are meant to be answered."""
MOST_MEMORY: Final = 300.0
"""MiB that building the index is meant to need at most."""
PAGE: Final = 20
"""Matches of one answer, as glixctl asks for them."""
SAMPLE: Final = 0.02
"""Seconds between two looks at the memory of nix; the kernel keeps the peak of each process itself."""
WAIT: Final = 60.0
"""Seconds of one wait for the index."""

_MANY: Final = """
  digits = count: number: if count == 0 then [ ] else
    let rest = number / 10; in digits (count - 1) rest ++ [ (number - rest * 10) ];
  at = list: builtins.elemAt list;
  named = number: builtins.concatStringsSep "" (map (at SYLLABLES) (digits 3 number)) + "-" + toString number;
  many = builtins.listToAttrs (builtins.genList
    (number: let name = named number; in {
      inherit name;
      value = mk name "1.0" { description = builtins.concatStringsSep " " (map (at WORDS) (digits 6 number)); };
    }) COUNT);
in
self // many
"""


@dataclass
class Peaks:
    """The most memory that each kind of process has had, in bytes."""

    daemon: int = 0
    nix: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self, daemon: int) -> Iterator[None]:
        """Watch a daemon and the programs that it starts."""
        watcher = threading.Thread(target=self._watch, args=(daemon,))
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()

    def _watch(self, daemon: int) -> None:
        while not self._over.wait(SAMPLE):
            self.daemon = max(self.daemon, _peak(daemon))
            self.nix = max([self.nix, *map(_peak, _children(daemon))])


def _children(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, children.read_text().split())


def _peak(pid: int) -> int:
    """The most memory that a process has had; nothing when it is gone."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return 0


def many_packages(folder: Path, count: int) -> str:
    """The flake reference of a nixpkgs with that many packages beside the few of the fixture."""
    nixpkgs = folder / "nixpkgs"
    shutil.copytree(MINI_NIXPKGS, nixpkgs)
    packages = nixpkgs / "pkgs.nix"
    values = {"SYLLABLES": _nix(SYLLABLES), "WORDS": _nix(WORDS), "COUNT": str(count)}
    text = _MANY
    for name, value in values.items():
        text = text.replace(name, value)
    packages.write_text(packages.read_text().rstrip().removesuffix("in\nself") + text)
    return make_git_flake(nixpkgs)


def _nix(words: Sequence[str]) -> str:
    return "[ " + " ".join(f'"{word}"' for word in words) + " ]"


def queries(rounds: int) -> list[str]:
    """What people type: names, beginnings of names letter by letter, words of descriptions, and mistakes."""
    dice = random.Random(1)
    found: list[str] = []
    for _ in range(rounds):
        name = "".join(dice.choices(SYLLABLES, k=3))
        found += [name[:length] for length in range(1, 7)]
        found += [f"{name}-{dice.randrange(10**5)}", dice.choice(WORDS), " ".join(dice.choices(WORDS, k=2))]
        found += [f"{dice.choice(SYLLABLES)} {dice.choice(WORDS)}", name[:2] + "x" + name[3:]]
    return found


def among_names(report: Report, world: World, names: int, rounds: int) -> None:
    """Build the index of so many packages, and search it in rounds of eleven queries; beside them pings."""
    folder = world.folder / "search"
    sources = replace(world.sources, nixpkgs=many_packages(folder, names))
    group = f"search: {names} names"
    with (
        new_site(folder / "site", world.nix) as site,
        running(RunningDaemon(site)) as daemon,
        daemon.connect() as client,
    ):
        daemon.done("Init", **site.init_parameters(sources), evaluate=False)
        peaks, begin = Peaks(), time.perf_counter()
        with peaks.watching(daemon.pid):
            _indexed(client, names)
        report.add(Figure(f"{group}, index built", (time.perf_counter() - begin,), unit="s"))
        report.add(Figure(f"{group}, most memory of a nix", (peaks.nix / 2**20,), unit="MiB", goal=MOST_MEMORY))
        report.add(Figure(f"{group}, most memory of the daemon", (peaks.daemon / 2**20,), unit="MiB"))
        _answered(client, "Search", queries(1))
        pings, searches = [], []
        for asked in batched(queries(rounds), QUERIES):
            pings += _answered(client, "Ping", [""] * QUERIES)
            searches += _answered(client, "Search", asked)
        found = Figure(f"{group}, one query", tuple(searches), baseline="ping", base=statistics.median(pings))
        report.add(found)
        report.add(Figure(f"{group}, p99", (found.quantile(0.99),), goal=SLOWEST))


def batched(queries: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The queries in rounds."""
    return (queries[begin : begin + size] for begin in range(0, len(queries), size))


def _answered(client: RpcClient, method: str, asked: Sequence[str]) -> list[float]:
    """The milliseconds of each answer."""
    times = []
    for query in asked:
        parameters = {"query": query, "limit": PAGE} if method == "Search" else {}
        begin = time.perf_counter()
        client.call(method, **parameters)
        times.append((time.perf_counter() - begin) * 1000)
    return times


def _indexed(client: RpcClient, names: int) -> None:
    """Have the index built."""
    while (status := client.call("RefreshIndex", timeout=WAIT))["state"] == "building":
        pass
    if status["state"] != "ready" or int(status["packages"]) < names:
        raise RuntimeError(f"the index is not ready: {status}")
