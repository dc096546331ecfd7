# SPDX-License-Identifier: GPL-3.0-or-later
"""A real message bus of a test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_bus(folder: Path) -> Iterator[str]:
    """Run a `dbus-daemon` with its socket in `folder`, and give its address."""
    with running(folder) as (_, address):
        yield address


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The same, with the process, for tests in which the bus dies or stands still."""
    socket = folder / "bus"
    with subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address", f"--address=unix:path={socket}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "dbus-daemon did not start"
        try:
            yield process, address
        finally:
            process.kill()
