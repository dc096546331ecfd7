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

pytestmark = [pytest.mark.integration, pytest.mark.nix]

TUTORIAL = PROJECT / "docs" / "tutorials" / "first-steps.md"
TALKING = PROJECT / "docs" / "how-to" / "talk-to-the-daemon.md"
COMMIT = re.compile(r"commit [0-9a-f]{7}\b")


@pytest.fixture
def newcomer(tmp_path: Path, nix: HermeticNix) -> Iterator[Site]:
    """A home without a repository or a daemon."""
    with new_site(tmp_path / "newcomer", nix) as site:
        yield site


def steps() -> list[tuple[str, str]]:
    """Every command of the tutorial, with the output that it shows."""
    blocks = re.findall(r"^```console\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    found = [step.partition("\n") for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, shown) for command, _, shown in found]


def comparable(text: str) -> str:
    """Output without what differs from run to run."""
    return COMMIT.sub("commit …", text)


def test_the_tutorial_can_be_followed_to_the_letter(newcomer: Site, sources: Sources) -> None:
    stand_ins = ["--nixpkgs", sources.nixpkgs, "--core", sources.core, "--home-manager", sources.home_manager]
    commands = steps()
    assert len(commands) >= 8
    for command, shown in commands:
        _, *words = shlex.split(command)
        done = newcomer.glixctl(*words, *(stand_ins if words[0] == "init" else []))
        expected = Exit.NOT_FOUND if "fierfox" in words else Exit.DONE
        assert done.returncode == expected, f"{command}: {done.stdout}{done.stderr}"
        if shown:
            assert comparable(done.stderr if expected else done.stdout) == comparable(shown), command
    got = newcomer.evaluated()
    assert (got["system"], got["homes"]) == (["firefox"], {"alice": ["hello"]})


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
