# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of the long proofs says which there are."""

from __future__ import annotations

import subprocess
import sys

from tests.support.hermetic import PROJECT


def test_the_proofs_are_listed_without_being_named() -> None:
    command = [sys.executable, "-I", str(PROJECT / "scripts" / "prove.py"), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"faults", "model", "disconnects", "soak"} <= {line.split()[0] for line in done.stdout.splitlines()}
