# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the system of this machine: its profile with all generations, and what runs and was booted. Reads links only."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from glixd.backends import store
from glixd.errors import NotFound
from glixd.model.closure import REBOOTS
from glixd.model.generations import Generation
from glixd.protocol import ErrorCode
from glixd.values import dataclass

REVISION_FILES: Final = ("etc/glixos-revision", "configuration-revision")
"""Where a system says which commit it was built from."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_KERNEL: Final = re.compile(r"linux-([0-9][^/]*)")
FACT_LIMIT: Final = 200
"""Characters of what a system says about itself."""


@dataclass(frozen=True, slots=True)
class System:
    """One system in the store, as it describes itself."""

    path: str
    version: str | None
    kernel: str | None
    commit: str | None
    """What it was built from, by its own word; None for one that was built from files in no commit."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the machine runs, and was booted with; None where it runs no NixOS."""

    active: str | None
    booted: str | None


class Profile:
    """The system profile. Safe from any thread; writing it is the activator's."""

    def __init__(self, link: Path, root: Path = Path("/")) -> None:
        self.link = link
        self._root = root

    def generations(self) -> list[Generation]:
        """All generations, the oldest first."""
        found = store.profiles([self.link.parent]).get(self.link, [])
        return sorted(found, key=lambda generation: generation.number)

    def current(self) -> int | None:
        """The generation that the profile names."""
        return next((one.number for one in self.generations() if one.current), None)

    def path(self, number: int) -> str:
        """The system of a generation; raises UnknownGeneration with the known ones."""
        link = self.link.with_name(f"{self.link.name}-{number}-link")
        if not link.is_symlink():
            raise unknown_generation(number, [one.number for one in self.generations()])
        return os.readlink(link)

    def running(self) -> Running:
        """What runs, and what was booted."""
        return Running(*(_target(self._root / "run" / name) for name in ("current-system", "booted-system")))

    def describe(self, path: str) -> System:
        """What a system says about itself."""
        said = (_said(Path(path) / name) for name in REVISION_FILES)
        commit = next((text for text in said if text and _COMMIT.fullmatch(text)), None)
        return System(path, _said(Path(path) / "nixos-version"), _kernel(Path(path)), commit)

    def reboots(self, path: str | None) -> dict[str, str]:
        """Where the links of a system lead that only a reboot makes effective."""
        if path is None:
            return {}
        found = {name: _target(Path(path) / name) for name in REBOOTS}
        return {name: target for name, target in found.items() if target is not None}

    def switch_command(self, path: str, action: str, generation: int | None = None) -> str:
        """What an administrator types to make a system the running one."""
        sets = f"--switch-generation {generation}" if generation else f"--set {path}"
        profile = "" if action == "test" else f"sudo nix-env -p {self.link} {sets} && "
        return f"{profile}sudo {path}/bin/switch-to-configuration {action}"


def unknown_generation(number: int, known: Sequence[int]) -> NotFound:
    """No generation has that number."""
    there = ", ".join(map(str, known[-20:])) or "none"
    return NotFound(
        f"There is no generation {number}.",
        code=ErrorCode.UNKNOWN_GENERATION,
        hint=f"There are: {there}. See: glixctl generations",
        details={"generation": number, "known": [str(one) for one in known[-100:]]},
    )


def _target(link: Path) -> str | None:
    try:
        return os.path.realpath(link, strict=True)
    except OSError:
        return None


def _said(file: Path) -> str | None:
    try:
        text = file.read_text(errors="replace")[:FACT_LIMIT].strip()
    except OSError:
        return None
    return text if text.isprintable() and text else None


def _kernel(system: Path) -> str | None:
    """The version of the kernel: of its modules, or else of the store path that it stands in."""
    modules = system / "kernel-modules" / "lib" / "modules"
    if modules.is_dir():
        return next(iter(sorted(path.name for path in modules.iterdir())), None)
    match = _KERNEL.search(_target(system / "kernel") or "")
    return match[1] if match else None
