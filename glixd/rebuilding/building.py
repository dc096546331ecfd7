# SPDX-License-Identifier: GPL-3.0-or-later
"""Building a commit, told as it goes: at most ten times a second how far it is, and every line that is said."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from glixd import api
from glixd.backends.nix import Product
from glixd.backends.process import Cancellation
from glixd.errors import Failed
from glixd.model.progress import Phase, Progress, Tracker, package_name
from glixd.protocol import PROGRESS_PER_SECOND, ErrorCode
from glixd.values import dataclass

INTERVAL: Final = 1 / PROGRESS_PER_SECOND
ERROR_LIMIT: Final = 4000
"""Characters of nix's own words in an error."""
_PLANNED: Final = re.compile(r"(?:this|these \d+) (derivations?|paths?) will be (built|fetched)")
_FOREIGN: Final = re.compile(
    r"an? '([a-z0-9_]+-[a-z0-9_]+)' with features .{0,300}? is required to build"
    r"|required system or feature not available.{0,300}?required system: '([a-z0-9_]+-[a-z0-9_]+)'",
    re.IGNORECASE | re.DOTALL,
)
"""What nix says of a derivation that is for another kind of machine; newer versions say it in other words."""
_NOT_BUILT: Final = re.compile(
    r"builder for '([^']+)' failed|(?:Cannot|cannot) build '([^']+)'|build of '([^']+)'[^\n]* failed", re.ASCII
)


@dataclass(frozen=True, slots=True)
class News:
    """What is told while something is done."""

    progress: Progress
    lines: tuple[str, ...]
    quiet: bool = False
    """Whether the lines are only for the whole log, and not for those who watch."""


Tell = Callable[[News], None]


class Builder(Protocol):
    """Whoever runs nix to build."""

    def prepare(self, commit: str) -> None:
        """Get ready to build a commit."""

    def stay_ready(self) -> None:
        """Get ready for whatever is built next."""

    def build(
        self,
        commit: str,
        host: str,
        *,
        user: str = "",
        dry_run: bool,
        on_line: Callable[[bytes], None],
        cancellation: Cancellation,
    ) -> Product:
        """Build the system of a host at a commit, or the home of a user on it. Raises EvaluationFailed, BuildFailed or Cancelled.

        `on_line` hears each line of the standard error of nix, with events in its internal JSON.
        """


@dataclass(frozen=True, slots=True)
class Planned:
    """What nix would do."""

    builds: tuple[str, ...] = ()
    fetches: tuple[str, ...] = ()
    derivation: str = ""
    output: str = ""
    """The path that the derivation builds to."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was built."""

    path: str
    builds: tuple[str, ...]


class Building:
    """One build, from its first line to its last."""

    def __init__(
        self,
        builder: Builder,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        *,
        user: str = "",
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._builder = builder
        self._user = user
        self._tell = tell
        self._heard = heard
        self._clock = clock
        self._tracker = Tracker(clock())
        self._next = 0.0
        self._said: list[str] = []
        self._lock = threading.Lock()
        self._late: threading.Timer | None = None
        """Tells what was held back because it came too soon after the last report, when nothing else does."""

    def build(self, commit: str, host: str, cancellation: Cancellation) -> Built:
        """Build; raises EvaluationFailed, BuildFailed with the derivation and its last lines, or Cancelled."""
        path = self._run(commit, host, cancellation, dry_run=False).path
        what, sign = ("NixOS system", "nixos-version") if not self._user else ("home", "activate")
        if not (path / sign).is_file():
            raise Failed(
                f"What {host} builds to is no {what}: {path}",
                code=ErrorCode.BUILD_FAILED,
                hint="Look at what makes nixosConfigurations in flake.nix.",
            )
        return Built(str(path), tuple(self._tracker.derivations))

    def plan(self, commit: str, host: str, cancellation: Cancellation) -> Planned:
        """Say what would be built and fetched; raises EvaluationFailed or Cancelled."""
        product = self._run(commit, host, cancellation, dry_run=True)
        return replace(planned(self._said), derivation=product.derivation, output=str(product.path))

    def _run(self, commit: str, host: str, cancellation: Cancellation, *, dry_run: bool) -> Product:
        self._tell_all()
        try:
            return self._builder.build(
                commit, host, user=self._user, dry_run=dry_run, on_line=self._hear, cancellation=cancellation
            )
        except Failed as error:
            self._tell_all()
            if error.code not in (ErrorCode.EVALUATION_FAILED, ErrorCode.BUILD_FAILED):
                raise
            raise self._failure(host, commit) from error
        finally:
            self._tell_all()

    def _hear(self, line: bytes) -> None:
        self._heard()
        with self._lock:
            now = self._clock()
            self._tracker.feed(line.decode(errors="replace").rstrip("\n"), now)
            if now >= self._next:
                self._report(now)
            elif self._late is None:
                self._late = threading.Timer(self._next - now, self._tell_late)
                self._late.daemon = True
                self._late.start()

    def _tell_late(self) -> None:
        with self._lock:
            if self._late is not None:
                self._report(self._clock())

    def _tell_all(self) -> None:
        with self._lock:
            self._report(self._clock())

    def _report(self, now: float) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._next = now + INTERVAL
        lines = self._tracker.lines()
        self._said += lines
        self._tell(News(self._tracker.progress(now), tuple(lines)))

    def _failure(self, host: str, commit: str) -> Failed:
        """Why there is no system: a derivation that did not build, or an evaluation that failed."""
        errors = "\n".join(self._tracker.errors) or "\n".join(self._said[-20:]) or "nix said nothing"
        details: dict[str, str | int | bool | list[str]] = {"host": host, "commit": commit}
        if foreign := _FOREIGN.search(errors):
            return Failed(
                f"{host} can't be built here: that takes a machine of the system {foreign[1] or foreign[2]}.",
                code=ErrorCode.UNSUPPORTED_HERE,
                hint="Build it on such a machine with --target-host and --build-host, or give this one's nix a remote builder.",
                details={**details, "system": foreign[1] or foreign[2]},
            )
        match = _NOT_BUILT.search(errors)
        if match is None and not self._tracker.derivations:
            return Failed(
                f"{host} does not evaluate: {errors[:ERROR_LIMIT]}",
                code=ErrorCode.EVALUATION_FAILED,
                hint="Fix the configuration, or remove the package that breaks it.",
                details=details,
            )
        derivation = next((name for name in match.groups() if name), "") if match else ""
        name = package_name(derivation) if derivation else self._tracker.derivations[-1]
        tail = self._tracker.tail(name)
        shown = "".join(f"\n  {line}" for line in tail[-10:])
        return Failed(
            f"{name} does not build{':' + shown if shown else f': {errors[:ERROR_LIMIT]}'}",
            code=ErrorCode.BUILD_FAILED,
            hint="The whole log: glixctl transaction log",
            details={**details, "derivation": name, "log": tail},
        )


def planned(lines: Iterable[str]) -> Planned:
    """What a dry run of nix says that it would do."""
    found: dict[str, list[str]] = {"built": [], "fetched": []}
    kind = ""
    for line in lines:
        if match := _PLANNED.search(line):
            kind = match[2]
        elif kind and line.startswith("  /"):
            found[kind].append(package_name(line.strip()))
        else:
            kind = ""
    return Planned(tuple(sorted(found["built"])), tuple(sorted(found["fetched"])))


def told(progress: Progress) -> dict[str, object]:
    """How far it is, as the fields of a progress event."""
    rebuilt: dict[str, object] = {
        "phase": progress.phase.value,
        "percent": None if progress.share is None else round(progress.share * 100, 1),
        "elapsed": int(progress.elapsed),
        "remaining": None if progress.remaining is None else int(progress.remaining),
    }
    if progress.phase is Phase.EVALUATING or progress.phase is Phase.ACTIVATING:
        return rebuilt
    return {
        **rebuilt,
        "done": progress.built + progress.fetched,
        "expected": progress.to_build + progress.to_fetch,
        "built": progress.built,
        "to_build": progress.to_build,
        "fetched": progress.fetched,
        "to_fetch": progress.to_fetch,
        "bytes_done": progress.bytes_done,
        "bytes_expected": progress.bytes_expected,
        "current": tuple(
            api.BuildingNow(name=one.name, phase=one.phase, line=one.line, seconds=int(one.seconds))
            for one in progress.current
        ),
    }
