# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets behind which systemd starts a program of ours for each connection: the evaluator's and the activator's.

Such a program is Python, and takes tens of milliseconds to be loaded. Whoever knows that there will be work soon connects
early, and the program is loaded while something else is done.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from glixd.errors import Failed
from glixd.protocol import ErrorCode

MOMENT: Final = 0.5
"""Seconds after which a program is started for work that may come."""


class Doorway:
    """One such socket. Safe from any thread."""

    def __init__(self, path: Path, *, program: str, unit: str, patience: float) -> None:
        """`patience` is for how many seconds a connection is good on which nothing was said; the program waits for longer."""
        self._path = path
        self._program = program
        self._unit = unit
        self._patience = patience
        self._waiting: deque[tuple[float, socket.socket]] = deque()
        """Connections on which nothing was said yet, and since when."""

    def knock(self) -> None:
        """Have the program started, since there will probably be work soon; harmless where there is none."""
        with suppress(IndexError):
            if self._is_good(*self._waiting[0]):
                return
        self.dismiss()
        with suppress(OSError):  # whoever has work hears of it
            self._waiting.append((time.monotonic(), self._connected()))

    def stay_ready(self) -> None:
        """Have the program started in a moment: whoever was just served shall hear of that first."""
        timer = threading.Timer(MOMENT, self.knock)
        timer.daemon = True
        timer.start()

    def dismiss(self) -> None:
        """Let go of a program that waits for work."""
        with suppress(IndexError):
            while True:
                self._waiting.popleft()[1].close()

    def connect(self, *, anew: bool = False) -> socket.socket:
        """A connection on which nothing was said: one that waits, or a new one. Raises Failed with the unit to look at."""
        with suppress(IndexError):
            while not anew:
                since, connection = self._waiting.popleft()
                if self._is_good(since, connection):
                    return connection
                connection.close()
        try:
            return self._connected()
        except OSError as error:
            raise Failed(
                f"The {self._program} can't be reached at {self._path}: {error.strerror}.",
                code=ErrorCode.UNSUPPORTED_HERE,
                hint=f"See: systemctl status {self._unit}",
            ) from error

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.fspath(self._path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_good(self, since: float, connection: socket.socket) -> bool:
        """Whether the program still waits: it says nothing before it is asked, so anything else is its end."""
        if time.monotonic() - since >= self._patience:
            return False
        try:
            connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
