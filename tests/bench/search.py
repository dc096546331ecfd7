# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a search takes among many names, and what the index behind it costs to build: `python -m tests.bench.search`.

A real daemon builds its index of a nixpkgs of synthetic packages, by a real nix, and answers over its socket; so the times are
what a client sees, and a little longer than what the daemon needs. Nothing is asserted: figures depend on the machine.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.support.daemon import RpcClient, RunningDaemon, new_site
from tests.support.hermetic import MINI_NIXPKGS, HermeticNix, make_git_flake
from tests.support.repositories import Sources

SYLLABLES: Final = ("fire", "fox", "lib", "py", "thon", "net", "data", "web", "ser", "kit")
WORDS: Final = ("package", "library", "for", "the", "tool", "fast", "editor", "text", "server", "browser")
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


def measure(client: RpcClient, asked: Sequence[str]) -> list[tuple[float, str]]:
    """Milliseconds and the question, the fastest first."""
    times = []
    for query in asked:
        begin = time.perf_counter()
        client.call("Search", query=query, limit=PAGE)
        times.append(((time.perf_counter() - begin) * 1000, query))
    return sorted(times)


def report(times: Sequence[tuple[float, str]]) -> Iterator[str]:
    """The figures, one a line."""
    plain = [milliseconds for milliseconds, _ in times]
    p99 = plain[min(len(plain) - 1, int(len(plain) * 0.99))]
    yield f"search: {len(plain)} queries, min {plain[0]:.2f} ms, median {statistics.median(plain):.2f} ms, p99 {p99:.2f} ms"
    yield "slowest: " + ", ".join(f"{query!r} {milliseconds:.2f} ms" for milliseconds, query in times[:-4:-1])


def main() -> None:
    """Build, ask, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.search", description=__doc__)
    parser.add_argument("--names", type=int, default=100_000, help="synthetic packages")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of eleven queries")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="glix-bench-"))
    nix = HermeticNix(folder / "nix")
    try:
        sources = replace(Sources.make(folder / "sources"), nixpkgs=many_packages(folder, asked.names))
        with new_site(folder / "site", nix) as site, RunningDaemon(site) as daemon, daemon.connect() as client:
            daemon.done("Init", **site.init_parameters(sources), evaluate=False)
            peaks, begin = Peaks(), time.perf_counter()
            with peaks.watching(daemon.pid):
                status = _indexed(client)
            seconds = time.perf_counter() - begin
            print(
                f"index: {status} packages in {seconds:.0f} s, at most {peaks.nix / 2**20:.0f} MiB in a nix "
                f"and {peaks.daemon / 2**20:.0f} MiB in the daemon"
            )
            measure(client, queries(1))
            print("\n".join(report(measure(client, queries(asked.rounds)))))
    finally:
        nix.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _indexed(client: RpcClient) -> int:
    """Have the index built; how many packages it has."""
    while (status := client.call("RefreshIndex", timeout=WAIT))["state"] == "building":
        pass
    if status["state"] != "ready":
        raise SystemExit(f"the index is not ready: {status}")
    return int(status["packages"])


if __name__ == "__main__":
    main()
