# SPDX-License-Identifier: GPL-3.0-or-later
"""On a disk that is full, or nearly, the repository stays exactly old or becomes exactly new, and recovers in place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hermetic import PROJECT
from tests.support.sweep import prepare

ALONE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
NAMESPACES = ((*ALONE, "--propagation", "private"), (*ALONE, "--propagation", "unchanged"))
"""A mount namespace of one's own; below a changed root that is no mount point only the second can be had."""
LEVELS = {
    "bytes": (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 256),
    "inodes": (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 40),
}


def _namespace(folder: Path) -> tuple[str, ...] | None:
    """The words that start a program where a tmpfs can be mounted on `folder` and goes away with the program."""
    mount = ("mount", "-t", "tmpfs", "tmpfs", os.fspath(folder))
    for namespace in NAMESPACES:
        mounted = subprocess.run([*namespace, *mount], capture_output=True, check=False).returncode == 0
        if mounted and not folder.is_mount():
            return namespace
        if mounted:  # it went further than its namespace
            subprocess.run(["umount", os.fspath(folder)], check=True)
    return None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", LEVELS)
def test_a_full_disk_leaves_the_old_state_or_the_new_one(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    namespace = _namespace(folder)
    if namespace is None:
        pytest.skip("no tmpfs can be mounted here")
    template = prepare(tmp_path)
    command = [
        *namespace,
        sys.executable,
        "-m",
        "tests.support.full_disk",
        os.fspath(template),
        os.fspath(folder),
        kind,
    ]
    done = subprocess.run(
        [*command, *map(str, LEVELS[kind])],
        env={**os.environ, "PYTHONPATH": os.fspath(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    told = [level["told"] for level in found.values()]
    with capsys.disabled():
        print(f"\n{kind} left: " + ", ".join(f"{free}: {level['told']}" for free, level in found.items()))
    assert {free: level["problems"] for free, level in found.items() if level["problems"]} == {}
    assert told[0] == "NoSpace"
    assert told[-1] == "committed"
