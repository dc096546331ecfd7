# SPDX-License-Identifier: GPL-3.0-or-later
"""Building, switching and going back, against the nix commands that do the same by hand.

Every round builds a commit of its own, once by hand and once through glixd, since what is built already costs nothing. As on
a system, the evaluator builds for glixd. Here root asks, and the activator then looks at what the evaluator made of the commit;
for everybody else it asks polkit instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Final

from glixd.backends.doorway import MOMENT
from tests.bench.measure import Case, Figure, Report
from tests.bench.world import QUIET, Client, World, running
from tests.support.daemon import RunningDaemon, Site
from tests.support.hermetic import quoted
from tests.support.switching import Machine, switchable

BY_HAND: Final = "nix build, nix-env --set, switch-to-configuration"
BACK_BY_HAND: Final = "nix-env --switch-generation, switch-to-configuration"
SETTLED: Final = MOMENT + 0.3
"""Seconds between what a change leaves to be done in the background and the next command: after a switch the daemon has its
programs started in a moment, and whoever measures the next one must not share the machine with that."""
DEFAULT: Final = "hosts/laptop/default.nix"


def switching(report: Report, world: World, rounds: int) -> None:
    """A rebuild, a build alone, and a rollback to a generation."""
    with (
        world.site("switching") as site,
        switchable(site) as machine,
        running(RunningDaemon(site, extra=QUIET)) as daemon,
    ):
        client = Client(site)
        hand = _Hand(site, machine)
        numbers = count(1)

        def settled(case: Case) -> Case:
            def run() -> float:
                daemon.health()
                time.sleep(SETTLED)
                return case()

            return run

        def fresh(case: Case) -> Case:
            def run() -> float:
                text = f'{{ ... }}: {{ users.users.alice.isNormalUser = true; environment.etc.round.text = "{next(numbers)}"; }}\n'
                site.commit({DEFAULT: text})
                return settled(case)()

            return run

        cases: dict[str, Case] = {
            BY_HAND: fresh(hand.switch),
            "glixctl rebuild": fresh(lambda: client("rebuild")),
        }
        report.interleaved("switching", cases, rounds, baseline=BY_HAND)
        _beyond(report, "switching: glixctl rebuild", f"switching: {BY_HAND}", 1.05, 100.0)
        first, second = _two_generations(daemon, site)
        turn = count()
        cases = {
            BACK_BY_HAND: settled(lambda: hand.back(first if next(turn) % 2 else second)),
            "glixctl rollback --to": settled(_rolling(client, first, second)),
        }
        report.interleaved("going back", cases, rounds, baseline=BACK_BY_HAND)
        _beyond(report, "going back: glixctl rollback --to", f"going back: {BACK_BY_HAND}", 1.2, 50.0)
        _phases(report, daemon, fresh, rounds)


def _beyond(report: Report, name: str, base: str, times: float, goal: float) -> None:
    """How much longer than so many times the baseline something takes."""
    took, by_hand = report.median(name), report.median(base)
    if took is not None and by_hand is not None:
        report.add(Figure(f"{name}, beyond {times:g} × by hand", (max(0.0, took - times * by_hand),), goal=goal))


def _phases(report: Report, daemon: RunningDaemon, fresh: Callable[[Case], Case], rounds: int) -> None:
    """When a rebuild is where, as whoever waits for it is told; ten times a second at most, so by as much too late."""
    marks: dict[str, list[float]] = {}
    for _ in range(rounds):
        fresh(lambda: _watched(daemon, marks))()
    for name, values in marks.items():
        report.add(Figure(f"phases of a rebuild: {name}", tuple(values)))


def _watched(daemon: RunningDaemon, marks: dict[str, list[float]]) -> float:
    began = time.perf_counter()
    seen: set[str] = set()
    with daemon.connect() as client:
        number = client.send("Wait", transaction=client.call("Rebuild", action="switch")["transaction"], timeout=600)
        while (message := client.receive()).get("id") != number:
            told = message.get("params", {})
            step = str(told.get("step", ""))
            reached = {"building": "the build begins", "activating": "built, and the activator is asked"}
            mark = (
                "allowed, and switching" if told.get("state") == "activating" else reached.get(step.partition(" ")[0])
            )
            if mark and mark not in seen:
                seen.add(mark)
                marks.setdefault(mark, []).append((time.perf_counter() - began) * 1000)
    took = time.perf_counter() - began
    marks.setdefault("done", []).append(took * 1000)
    return took


class _Hand:
    """What an administrator types."""

    def __init__(self, site: Site, machine: Machine) -> None:
        self._site = site
        self._profile = os.fspath(machine.profile)
        self._environment = {**site.nix.environment(), "MINI_ROOT": os.fspath(machine.root)}

    def switch(self) -> float:
        """Build the newest commit, and switch to it; the seconds."""
        began = time.perf_counter()
        url = f"git+file://{quoted(self._site.repository)}?rev={self._site.git('rev-parse', 'HEAD')}"
        attribute = 'nixosConfigurations."laptop".config.system.build.toplevel'
        built = json.loads(_run(self._environment, "nix", "build", "--no-link", "--json", f"{url}#{attribute}"))
        system = built[0]["outputs"]["out"]
        _run(self._environment, "nix-env", "--profile", self._profile, "--set", system)
        _run(self._environment, f"{system}/bin/switch-to-configuration", "switch")
        return time.perf_counter() - began

    def back(self, number: int) -> float:
        """Switch to a generation; the seconds."""
        began = time.perf_counter()
        _run(self._environment, "nix-env", "--profile", self._profile, "--switch-generation", str(number))
        _run(self._environment, f"{self._profile}/bin/switch-to-configuration", "switch")
        return time.perf_counter() - began


def _run(environment: Mapping[str, str], *words: str) -> str:
    done = subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=Path("/")
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _two_generations(daemon: RunningDaemon, site: Site) -> tuple[int, int]:
    """Two generations whose manifests differ, so that each way between them is a commit."""
    found = [
        daemon.done("Add", refs=[name], apply=True)["outcome"]["rebuild"]["generation"] for name in ("hello", "git")
    ]
    return found[0], found[1]


def _rolling(client: Client, first: int, second: int) -> Case:
    turn = count()
    return lambda: client("rollback", "--to", str(first if next(turn) % 2 == 0 else second))
