# SPDX-License-Identifier: GPL-3.0-or-later
"""Building, switching and going back, against the nix commands that do the same by hand.

Every round builds a commit of its own, once by hand and once through glixd, since what is built already costs nothing. Here
root asks, and the activator then evaluates the commit once more to compare; for everybody else it asks polkit instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.measure import Case, Report
from tests.bench.world import QUIET, Client, World
from tests.support.daemon import RunningDaemon, Site
from tests.support.hermetic import quoted
from tests.support.switching import Machine, switchable

BY_HAND: Final = "nix build, nix-env --set, switch-to-configuration"
BACK_BY_HAND: Final = "nix-env --switch-generation, switch-to-configuration"
DEFAULT: Final = "hosts/laptop/default.nix"


def switching(report: Report, world: World, rounds: int) -> None:
    """A rebuild, a build alone, and a rollback to a generation."""
    with (
        world.site("switching") as site,
        switchable(site) as machine,
        RunningDaemon(site, extra=QUIET) as daemon,
    ):
        client = Client(site)
        hand = _Hand(site, machine)
        numbers = count(1)

        def fresh(case: Case) -> Case:
            def run() -> float:
                text = f'{{ ... }}: {{ users.users.alice.isNormalUser = true; environment.etc.round.text = "{next(numbers)}"; }}\n'
                site.commit({DEFAULT: text})
                return case()

            return run

        cases: dict[str, Case] = {
            BY_HAND: fresh(hand.switch),
            "glixctl rebuild": fresh(lambda: client("rebuild")),
        }
        report.interleaved("switching", cases, rounds, baseline=BY_HAND)
        first, second = _two_generations(daemon, site)
        turn = count()
        cases = {
            BACK_BY_HAND: lambda: hand.back(first if next(turn) % 2 else second),
            "glixctl rollback --to": _rolling(client, first, second),
        }
        report.interleaved("going back", cases, rounds, baseline=BACK_BY_HAND)


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
