# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the nix store as a whole: what keeps paths alive, what is dead, the generations of profiles, and sweeping.

Everything runs with the lowest priority. Sweeping is safe beside an evaluation: nix keeps what a running nix uses.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from glixd.backends.process import Cancellation, Completed, Processes
from glixd.errors import Failed
from glixd.evaluator.jobs import FEATURES
from glixd.model.generations import Generation

BATCH: Final = 500
"""Paths in one command line."""
_LINK: Final = re.compile(r"(.+)-(\d+)-link")


class Store:
    """The store of this machine, with the rights of the daemon's own user."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def roots(self, cancellation: Cancellation) -> dict[str, str]:
        """What keeps paths alive: a link or a process → the path in the store."""
        done = self._run("nix-store", "--gc", "--print-roots", cancellation=cancellation)
        pairs = (line.partition(" -> ") for line in _lines(done))
        return {link: target for link, arrow, target in pairs if arrow}

    def dead(self, cancellation: Cancellation) -> list[str]:
        """The paths that nothing keeps alive."""
        return _lines(self._run("nix-store", "--gc", "--print-dead", cancellation=cancellation))

    def closure(self, paths: Iterable[str], cancellation: Cancellation) -> set[str]:
        """These paths with all that they need; what is no path of the store is left out."""
        found: set[str] = set()
        valid = [path for path in dict.fromkeys(paths) if os.path.lexists(path)]
        for batch in _batches(valid):
            found.update(_lines(self._run("nix-store", "--query", "--requisites", *batch, cancellation=cancellation)))
        return found

    def requisites(self, *paths: str) -> list[dict[str, int]]:
        """Each of these paths with all that it needs, path → bytes as nix knows it. One program for all: people wait."""
        words = ("nix", *FEATURES, "path-info", "--json", "--recursive", "--size", "--", *paths)
        done = self._processes.run(words)
        if done.status:
            said = done.stderr.decode(errors="replace").strip().removeprefix("error: ")
            raise Failed(f"nix can't look a path up: {said or f'it ended with {done.status}'}")
        answer = json.loads(done.stdout)  # a list until nix 2.19, since then an object by path
        facts = answer if isinstance(answer, dict) else {one["path"]: one for one in answer}
        return [_reached(path, facts) for path in paths]

    def sweep(self, cancellation: Cancellation) -> None:
        """Delete what nothing keeps alive."""
        self._run("nix-store", "--gc", cancellation=cancellation)

    def delete_generations(self, profile: Path, numbers: Iterable[int], cancellation: Cancellation) -> None:
        """Delete generations of a profile; nix refuses the current one."""
        words = ("--profile", os.fspath(profile), "--delete-generations", *map(str, numbers))
        self._run("nix-env", *words, cancellation=cancellation)

    @cached_property
    def _polite(self) -> list[str]:
        """The words that let a program give way to everything else, as far as this machine has them and lets us."""
        path = self._processes.environment.get("PATH")
        found = []
        for command in (["ionice", "-c", "3"], ["nice", "-n", "19"]):
            if shutil.which(command[0], path=path):
                done = self._processes.run([*command, "true"])
                found += command if not (done.status or done.stderr) else []
        return found

    def _run(self, *words: str, cancellation: Cancellation) -> Completed:
        done = self._processes.run([*self._polite, *words], cancellation=cancellation)
        if done.status:
            said = done.stderr.decode(errors="replace").strip().removeprefix("error: ")
            raise Failed(
                f"{words[0]} failed: {said or f'it ended with {done.status}'}",
                hint="What was deleted stays deleted; nothing that is in use was touched.",
            )
        return done


def _reached(path: str, facts: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of a path and of all that it refers to."""
    found: dict[str, int] = {}
    waiting = [path]
    while waiting:
        if (one := waiting.pop()) not in found:
            found[one] = int(facts[one]["narSize"])
            waiting += facts[one]["references"]
    return found


def profiles(folders: Iterable[Path]) -> dict[Path, list[Generation]]:
    """The profiles in these folders, each with its generations."""
    found: dict[Path, list[Generation]] = {}
    for folder in folders:
        for link in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _LINK.fullmatch(link.name)
            if match and link.is_symlink():
                profile = folder / match[1]
                current = profile.is_symlink() and os.readlink(profile) in (link.name, os.fspath(link))
                found.setdefault(profile, []).append(Generation(int(match[2]), link.lstat().st_mtime, current))
    return found


def generation_link(profile: Path, generation: Generation) -> Path:
    """The link that keeps a generation alive."""
    return profile.with_name(f"{profile.name}-{generation.number}-link")


def sizes(paths: Iterable[str]) -> dict[str, int]:
    """The bytes of each path; a file that several share counts for the first."""
    seen: set[tuple[int, int]] = set()
    return {path: sum(_file_sizes(path, seen)) for path in paths}


def _file_sizes(path: str, seen: set[tuple[int, int]]) -> Iterator[int]:
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return
    if (facts.st_dev, facts.st_ino) not in seen:
        seen.add((facts.st_dev, facts.st_ino))
        yield facts.st_size
    if stat.S_ISDIR(facts.st_mode):
        for entry in os.scandir(path):
            yield from _file_sizes(entry.path, seen)


def _lines(done: Completed) -> list[str]:
    return [line for line in done.stdout.decode(errors="replace").splitlines() if line]


def _batches(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    rest = iter(paths)
    while batch := tuple(itertools.islice(rest, BATCH)):
        yield batch
