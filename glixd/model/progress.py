# SPDX-License-Identifier: GPL-3.0-or-later
"""How far nix is, from the events of `--log-format internal-json`: phase, counts, bytes, a share that only grows, the log.

One event comes for every 8 KiB that is fetched, and of those only the newest of each activity counts: they are taken apart
by hand, everything else as JSON. Counts belong to activities of nix that may come several times; those that have ended add
up. What is expected grows while nix finds out what there is to do, and shrinks when some of it is there already, so the share
is kept from falling.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import deque
from dataclasses import field
from enum import IntEnum, StrEnum
from typing import Any, Final

from glixd.values import dataclass

PREFIX: Final = "@nix "
SHOWN: Final = 8
"""Derivations that are told of at once."""
LINE_LIMIT: Final = 400
"""Characters of a line of a log that are kept."""
LINES_LIMIT: Final = 10_000
"""Lines that wait until they are taken."""
LAST_LINES: Final = 25
"""The end of the log of each derivation, for when it fails."""
ALMOST: Final = 0.99
"""The greatest share of what is not done yet."""
_NOISE: Final = re.compile(r"GC Warning:|evaluating file |warning: Git tree|trace: ")
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_STORE_NAME: Final = re.compile(r"(?:.*/)?[0-9a-z]{32}-(.+?)(?:\.drv)?")


class Phase(StrEnum):
    """What takes the time."""

    EVALUATING = "evaluating"
    FETCHING = "fetching"
    BUILDING = "building"
    ACTIVATING = "activating"


class _Kind(IntEnum):
    """Activities of nix."""

    COPY_PATH = 100
    FILE_TRANSFER = 101
    COPY_PATHS = 103
    BUILDS = 104
    BUILD = 105
    SUBSTITUTE = 108


class _Result(IntEnum):
    """What nix tells about an activity."""

    LOG_LINE = 101
    PHASE = 104
    PROGRESS = 105
    EXPECTED = 106
    POST_BUILD_LINE = 107


@dataclass(frozen=True, slots=True)
class Current:
    """A derivation that is being built."""

    name: str
    phase: str | None = None
    line: str | None = None
    """The last line of its log."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is at one moment."""

    phase: Phase = Phase.EVALUATING
    share: float | None = None
    """From 0 to 1; None as long as nobody can say."""
    built: int = 0
    to_build: int = 0
    failed: int = 0
    fetched: int = 0
    to_fetch: int = 0
    bytes_done: int = 0
    bytes_expected: int = 0
    current: tuple[Current, ...] = ()
    elapsed: float = 0.0
    remaining: float | None = None


@dataclasses.dataclass(slots=True)
class _Count:
    """How much of one kind of work is done: what has ended, and what runs."""

    done: int = 0
    failed: int = 0
    running: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def end(self, activity: int) -> None:
        """What an activity did stays done; what it did not do is expected no longer."""
        done, _, failed = self.running.pop(activity, (0, 0, 0))
        self.done += done
        self.failed += failed

    @property
    def all_done(self) -> int:
        return self.done + sum(done for done, _, _ in self.running.values())

    @property
    def expected(self) -> int:
        return self.done + self.failed + sum(max(expected, done) for done, expected, _ in self.running.values())

    @property
    def all_failed(self) -> int:
        return self.failed + sum(failed for _, _, failed in self.running.values())


@dataclasses.dataclass(slots=True)
class _Build:
    """One derivation while it is built."""

    name: str
    since: float
    phase: str | None = None
    line: str | None = None


class Tracker:
    """Follows one nix from its first event to its last. Reads no clock: whoever feeds it says what time it is."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._work_began: float | None = None
        self._kinds: dict[int, int] = {}
        self._counts = {kind: _Count() for kind in (_Kind.COPY_PATH, _Kind.COPY_PATHS, _Kind.BUILDS)}
        self._promised: dict[tuple[int, int], int] = {}
        self._builds: dict[int, _Build] = {}
        self._transfers: set[int] = set()
        self._share = 0.0
        self._bytes = 0
        self._lines: deque[str] = deque(maxlen=LINES_LIMIT)
        self._tails: dict[str, deque[str]] = {}
        self.derivations: list[str] = []
        """What was built or tried, in order."""
        self.errors: list[str] = []
        """What nix said went wrong, without colours."""

    def feed(self, line: str, now: float) -> None:
        """Take one line of the standard error of nix; what is no event is a line of the log."""
        if not line.startswith(PREFIX):
            self._say(_text(line))
            return
        if line.endswith('"type":105}') and self._quick(line):
            return
        try:
            event = json.loads(line[len(PREFIX) :])
        except ValueError:
            return
        if isinstance(event, dict):
            self._take(event, now)

    def lines(self) -> list[str]:
        """The lines of the log since they were last asked for."""
        taken = list(self._lines)
        self._lines.clear()
        return taken

    def tail(self, name: str) -> list[str]:
        """The last lines of the log of a derivation."""
        return list(self._tails.get(name, ()))

    def progress(self, now: float) -> Progress:
        """How far it is."""
        builds, paths, data = (self._counts[kind] for kind in (_Kind.BUILDS, _Kind.COPY_PATHS, _Kind.COPY_PATH))
        to_build, to_fetch = builds.expected, paths.expected
        promised = sum(count for (_, kind), count in self._promised.items() if kind == _Kind.COPY_PATH)
        self._bytes = expected = max(self._bytes, promised, data.all_done)
        share = self._grown_share(
            builds.all_done + builds.all_failed, to_build, paths.all_done, to_fetch, data, expected
        )
        return Progress(
            phase=self._phase(to_build, to_fetch),
            share=share,
            built=builds.all_done,
            to_build=to_build,
            failed=builds.all_failed,
            fetched=paths.all_done,
            to_fetch=to_fetch,
            bytes_done=data.all_done,
            bytes_expected=expected,
            current=self._current(now),
            elapsed=now - self._started,
            remaining=self._remaining(share, now),
        )

    # -- events ----------------------------------------------------------------------------------------------------

    def _quick(self, line: str) -> bool:
        """Take `{"action":"result","fields":[done,expected,running,failed],"id":N,"type":105}`; False if it is no such."""
        start, middle = line.find('"fields":['), line.find('],"id":')
        if start < 0 or middle < 0:
            return False
        try:
            activity = int(line[middle + 7 : -len(',"type":105}')])
            kind = self._kinds.get(activity)
            count = self._counts.get(kind) if kind is not None else None  # type: ignore[call-overload]
            if count is not None:
                done, expected, _, failed = line[start + 10 : middle].split(",")
                count.running[activity] = (int(done), int(expected), int(failed))
        except ValueError:
            return False
        return True

    def _take(self, event: dict[str, Any], now: float) -> None:
        match event:
            case {"action": "start", "id": int(activity), "type": int(kind)}:
                self._start(activity, kind, event.get("fields") or [], now)
            case {"action": "stop", "id": int(activity)}:
                self._stop(activity)
            case {"action": "result", "id": int(activity), "type": int(kind), "fields": list(fields)}:
                self._result(activity, kind, fields)
            case {"action": "msg", "msg": str(text)}:
                self._message(_text(text), event.get("level", 0))

    def _start(self, activity: int, kind: int, fields: list[Any], now: float) -> None:
        self._kinds[activity] = kind
        if kind == _Kind.BUILD and fields and isinstance(fields[0], str):
            name = package_name(fields[0])
            self._builds[activity] = _Build(name, now)
            if name not in self.derivations:
                self.derivations.append(name)
        elif kind in (_Kind.COPY_PATH, _Kind.FILE_TRANSFER, _Kind.SUBSTITUTE):
            self._transfers.add(activity)
        if kind in (_Kind.BUILD, _Kind.COPY_PATH) and self._work_began is None:
            self._work_began = now

    def _stop(self, activity: int) -> None:
        kind = self._kinds.pop(activity, None)
        self._builds.pop(activity, None)
        self._transfers.discard(activity)
        count = self._counts.get(kind) if kind is not None else None  # type: ignore[call-overload]
        if count is not None:
            count.end(activity)

    def _result(self, activity: int, kind: int, fields: list[Any]) -> None:
        match kind, fields:
            case _Result.LOG_LINE | _Result.POST_BUILD_LINE, [str(text), *_]:
                self._log(activity, _text(text))
            case _Result.PHASE, [str(text), *_] if activity in self._builds:
                self._builds[activity].phase = _text(text)
            case _Result.EXPECTED, [int(of), int(number), *_]:
                self._promised[activity, of] = number
            case _Result.PROGRESS, [int(done), int(expected), int(_), int(failed)]:
                count = self._counts.get(self._kinds.get(activity, 0))  # type: ignore[call-overload]
                if count is not None:
                    count.running[activity] = (done, expected, failed)

    def _log(self, activity: int, text: str) -> None:
        build = self._builds.get(activity)
        if build is None:
            self._say(text)
            return
        build.line = text
        self._tails.setdefault(build.name, deque(maxlen=LAST_LINES)).append(text)
        self._say(f"{build.name}> {text}")

    def _message(self, text: str, level: int) -> None:
        if _NOISE.match(text):
            return
        if level == 0 and text.startswith("error:"):
            self.errors.append(text.removeprefix("error:").strip())
        for line in text.splitlines():
            self._say(line)

    def _say(self, text: str) -> None:
        if text and not _NOISE.match(text):
            self._lines.append(text[:LINE_LIMIT])

    # -- what it comes to ------------------------------------------------------------------------------------------

    def _grown_share(
        self, ended: int, to_build: int, fetched: int, to_fetch: int, data: _Count, size: int
    ) -> float | None:
        """A derivation counts as much as a path; of the paths as much is done as of their bytes."""
        total = to_build + to_fetch
        if not total:
            return None
        of_paths = to_fetch * min(data.all_done / size, 1.0) if size else fetched
        self._share = max(self._share, min((ended + of_paths) / total, ALMOST))
        return self._share

    def _phase(self, to_build: int, to_fetch: int) -> Phase:
        if self._builds:
            return Phase.BUILDING
        if self._transfers:
            return Phase.FETCHING
        if to_build:
            return Phase.BUILDING
        return Phase.FETCHING if to_fetch else Phase.EVALUATING

    def _current(self, now: float) -> tuple[Current, ...]:
        oldest = sorted(self._builds.values(), key=lambda build: build.since)[:SHOWN]
        return tuple(Current(build.name, build.phase, build.line, now - build.since) for build in oldest)

    def _remaining(self, share: float | None, now: float) -> float | None:
        """A guess from the pace so far; None while it would be a guess from nothing."""
        if share is None or self._work_began is None or share < 0.05:
            return None
        return (now - self._work_began) * (1 - share) / share


def package_name(path: str) -> str:
    """The name behind the hash of a path of the store, without `.drv`."""
    match = _STORE_NAME.fullmatch(path)
    return match[1] if match else path.rsplit("/", 1)[-1].removesuffix(".drv")


def _text(text: str) -> str:
    """What nix or a builder says, without colours and line ends."""
    return _ESCAPES.sub("", text).rstrip("\r\n")
