# SPDX-License-Identifier: GPL-3.0-or-later
"""The measurements run: one round of each. What they say is read by people, and asserted nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import PARTS
from tests.support.hermetic import PROJECT

pytestmark = [pytest.mark.integration, pytest.mark.nix]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `./bench` without preparing the machine again."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *words],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)
def test_every_part_runs_and_leaves_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = bench("--quick", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["figures"]
    assert all(figure["median"] > 0 or "beyond" in name for name, figure in found.items())
    with_baseline = [figure for figure in found.values() if "ratio" in figure]
    assert all(figure["baseline"] for figure in with_baseline)
    heads: tuple[str, ...] = (
        "3 packages",
        "2 hosts",
        "4 commits",
        "socket",
        "bus",
        "busctl",
        "bus, dbus-fast",
        "mutations",
        "signals",
        "memory",
        "search",
    )
    heads += ("parts", "switching", "going back", "phases", "ready", "activation")
    assert [head for head in heads if not any(name.startswith(head) for name in found)] == []
    assert len(heads) >= len(PARTS)


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    done = bench("nothing")
    assert done.returncode == 2
    assert "there are packages, hosts" in done.stderr
