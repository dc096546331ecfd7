# SPDX-License-Identifier: GPL-3.0-or-later
"""A real message bus of a test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_OPEN: Final = """<busconfig>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="false"/><allow receive_sender="*"/>
  </policy>
  <limit name="max_connections_per_user">4096</limit>
  <limit name="max_completed_connections">4096</limit>
  <limit name="max_replies_per_connection">50000</limit>
  <limit name="max_incoming_bytes">133169152</limit>
  <limit name="max_message_size">33554432</limit>
</busconfig>
"""
"""A bus for every uid, with the limits of a session's bus rather than those of a system's: it protects nobody."""


@contextmanager
def private_bus(folder: Path) -> Iterator[str]:
    """Run a `dbus-daemon` with its socket in `folder`, and give its address."""
    with running(folder) as (_, address):
        yield address


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The same, with the process, for tests in which the bus dies or stands still."""
    with _started("--session", f"--address=unix:path={folder / 'bus'}") as started:
        yield started


@contextmanager
def open_bus(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A bus that every uid of the machine may use, at an address that every uid can reach."""
    config = folder / "open.conf"
    config.write_text(_OPEN.format(address=f"unix:abstract=glix-{os.getpid()}-{folder.name}"))
    with _started(f"--config-file={config}") as started:
        yield started


@contextmanager
def _started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        ["dbus-daemon", "--nofork", "--nopidfile", "--print-address", *arguments],
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
