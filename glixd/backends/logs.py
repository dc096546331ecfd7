# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole logs of transactions, a file for each that had much to say; the database keeps the short ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from glixd import api
from glixd.log import get_logger

log = get_logger()

SIZE_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of one log; what comes beyond is left out, and the log says so."""
KEPT: Final = 200
"""Logs that are kept, the newest ones."""
PAGE_BYTES: Final = 128 * 1024
"""Bytes of one answer: both transports take it as one message."""
CUT: Final = "… the rest was left out: this log is full"


class Logs:
    """Safe from any thread. A log that can't be written is lost, and nothing else is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._full: set[str] = set()

    def append(self, transaction: str, lines: Sequence[str]) -> None:
        """Write lines at the end."""
        if not lines or transaction in self._full:
            return
        data = "".join(f"{_one_line(line)}\n" for line in lines).encode(errors="replace")
        try:
            with self._guard:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(self._path(transaction), "ab", opener=_private) as file:
                    if file.tell() + len(data) > SIZE_LIMIT:
                        self._full.add(transaction)
                        data = f"{CUT}\n".encode()
                    file.write(data)
        except OSError as error:
            self._full.add(transaction)
            log.warning("the log of a transaction can't be written", transaction=transaction, reason=str(error))

    def page(self, transaction: str, offset: int, limit: int) -> tuple[tuple[str, ...], int] | None:
        """At most `limit` whole lines from `offset` on, and where they end; None where there is no log."""
        try:
            with open(self._path(transaction), "rb") as file:
                file.seek(offset)
                data = file.read(PAGE_BYTES)
        except OSError:
            return None
        lines = data.split(b"\n")[:-1][:limit]
        end = offset + sum(len(line) + 1 for line in lines)
        return tuple(line.decode(errors="replace") for line in lines), end

    def prune(self) -> None:
        """Keep the newest ones."""
        with suppress(OSError):
            found = sorted(
                (path for path in self._folder.iterdir() if path.suffix == ".log"), key=lambda path: path.name
            )
            for path in found[:-KEPT]:
                path.unlink(missing_ok=True)

    def _path(self, transaction: str) -> Path:
        return self._folder / f"{transaction}.log"


def said(lines: Iterable[str], offset: int, limit: int) -> tuple[tuple[str, ...], int | None]:
    """A page of a log that is in memory: its lines, and where to go on."""
    every = tuple(lines)
    return every[offset : offset + limit], offset + limit if len(every) > offset + limit else None


def page_of(logs: Logs, record: api.Transaction, asked: api.LogParameters, *, ended: bool) -> api.LogPage:
    """A part of the log of a transaction: of its file, or else of its record."""
    found = logs.page(record.id, asked.offset, asked.limit)
    if found is None:
        lines, following = said(record.log, asked.offset, asked.limit)
        return api.LogPage(lines=lines, next=following, ended=ended)
    lines, end = found
    return api.LogPage(lines=lines, next=end if lines or not ended else None, ended=ended)


def _one_line(line: str) -> str:
    return line.replace("\n", " ").replace("\r", " ")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
