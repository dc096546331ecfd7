# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides, followed to the letter: the commands of the tutorial and the script of a how-to, against a real daemon."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site, new_site
from tests.support.hermetic import PROJECT, HermeticNix
from tests.support.repositories import Sources
from tests.support.switching import switchable

pytestmark = [pytest.mark.integration, pytest.mark.nix]

TUTORIAL = PROJECT / "docs" / "tutorials" / "first-steps.md"
TALKING = PROJECT / "docs" / "how-to" / "talk-to-the-daemon.md"
SWITCHING = PROJECT / "docs" / "tutorials" / "from-an-empty-machine.md"
DIFFERS = (
    (re.compile(r"/\S*/store/[0-9a-z]{32}-"), "/nix/store/…-"),
    (re.compile(r"\b[0-9a-f]{7}\b"), "commit…"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "now"),
    (re.compile(r"\d+(\.\d+)? (B|KiB)\b"), "size"),
    (re.compile(r" +"), " "),
)
"""What differs from run to run, and what stands for it: commits, times, and sizes, which depend on where the store is."""


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Site]:
    """A home without a repository or a daemon, and a nix that has built nothing yet."""
    nix = HermeticNix(tmp_path / "nix")
    with new_site(tmp_path / "newcomer", nix) as site:
        yield site
    nix.remove()


def steps(tutorial: Path) -> list[tuple[str, str]]:
    """Every command of the tutorial, with the output that it shows."""
    blocks = re.findall(r"^```console\n(.*?)^```", tutorial.read_text(), re.MULTILINE | re.DOTALL)
    found = [step.partition("\n") for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, shown) for command, _, shown in found]


def comparable(text: str) -> str:
    """Output without what differs from run to run."""
    for pattern, instead in DIFFERS:
        text = pattern.sub(instead, text)
    return text


def follow(tutorial: Path, newcomer: Site, sources: Sources) -> None:
    """Run every command of a tutorial, and compare what it prints."""
    stand_ins = ["--nixpkgs", sources.nixpkgs, "--core", sources.core, "--home-manager", sources.home_manager]
    commands = steps(tutorial)
    assert len(commands) >= 8
    for command, shown in commands:
        _, *words = shlex.split(command)
        done = newcomer.glixctl(*words, *(stand_ins if words[0] == "init" else []))
        expected = Exit.NOT_FOUND if "fierfox" in words else Exit.DONE
        assert done.returncode == expected, f"{command}: {done.stdout}{done.stderr}"
        if shown:
            assert comparable(done.stderr if expected else done.stdout) == comparable(shown), command


def test_the_tutorial_can_be_followed_to_the_letter(newcomer: Site, sources: Sources) -> None:
    follow(TUTORIAL, newcomer, sources)
    got = newcomer.evaluated()
    assert (got["system"], got["homes"]) == (["firefox"], {"alice": ["hello"]})


def test_a_machine_can_be_switched_and_rolled_back_as_the_tutorial_says(newcomer: Site, sources: Sources) -> None:
    with switchable(newcomer) as machine:
        follow(SWITCHING, newcomer, sources)
        assert machine.running == machine.system(1)
        assert machine.installed() == {"firefox"}
        newcomer.end_daemon()


def test_the_script_of_the_how_to_adds_a_package(site: Site, daemon: RunningDaemon) -> None:
    [script] = re.findall(r"^```python\n(.*?)^```", TALKING.read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=site.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("added firefox to laptop")
    assert "Glix-Reason: asked by a script" in site.git("log", "-1", "--format=%B").splitlines()
