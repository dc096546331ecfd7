# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the long proofs one after the other: the tests that ./check samples, whole, and prints the figures that they give."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Proof:
    """Tests that together prove one thing, and the environment in which they leave nothing out."""

    about: str
    tests: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


PROOFS = {
    "faults": Proof(
        "every system call of every mutation killed or failed, power lost, full disks, and controls that must fail",
        (
            "tests/system/test_fault_sweeps.py",
            "tests/system/test_packing_sweep.py",
            "tests/system/test_power_loss.py",
            "tests/system/test_full_disk.py",
        ),
        {"GLIX_FULL_SWEEP": "1"},
    ),
    "model": Proof(
        "stories of changes, crashes, edits and branches against a model, and many clients at once",
        ("tests/integration/test_state_machine.py", "tests/integration/test_many_clients.py"),
        {"GLIX_FULL_MODEL": "1"},
    ),
    "disconnects": Proof(
        "four thousand callers on each front-end that leave while they are authorised, and no grant",
        ("tests/authorisation/test_disconnects.py",),
        {"DISCONNECTS": "4000"},
    ),
    "soak": Proof("20,000 changes and 100,000 queries through one daemon: memory, descriptors, disk", ("tests/soak",)),
    "floods": Proof(
        "the bus and the socket under attack with a bystander who is served, and 60,000 requests shaped by the table",
        (
            "tests/integration/test_bus_floods.py",
            "tests/integration/test_socket_floods.py",
            "tests/integration/test_fuzz.py",
        ),
        {"GLIX_FLOODS": "full"},
    ),
}


def run(name: str) -> int:
    """Run one proof, with its figures on standard output; the exit status of pytest."""
    proof = PROOFS[name]
    print(f"--- {name}: {proof.about}", flush=True)
    begun = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "--durations=0", "--durations-min=60", *proof.tests]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    status = subprocess.run(command, cwd=CHECKOUT, env={**environment, **proof.environment}, check=False).returncode
    outcome = "holds" if status == 0 else f"FAILED (status {status})"
    print(f"--- {name} {outcome} after {time.monotonic() - begun:.0f} s", flush=True)
    return status


def main() -> int:
    """Run the proofs that were asked for; 0 when all hold."""
    parser = argparse.ArgumentParser(prog="./prove", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*PROOFS, "all"], default="all", help="or all")
    parser.add_argument("--list", action="store_true", help="say which proofs there are")
    arguments = parser.parse_args()
    if arguments.list:
        print(*(f"{name:<8} {proof.about}" for name, proof in PROOFS.items()), sep="\n")
        return 0
    names = PROOFS if "all" in arguments.names else dict.fromkeys(arguments.names)
    return max(min(run(name), 1) for name in names)


if __name__ == "__main__":
    sys.exit(main())
