# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that can be switched without being a NixOS: a profile and a root of its own, and an activator behind a socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.activator import Programs, programs
from tests.support.daemon import Site


@dataclass(frozen=True)
class Machine:
    """What an activation changes."""

    site: Site

    programs: Programs

    @property
    def profile(self) -> Path:
        """The system profile."""
        return self.programs.profile

    @property
    def root(self) -> Path:
        """What stands for / of the machine."""
        return self.programs.root

    @property
    def running(self) -> str | None:
        """The system that runs."""
        link = self.root / "run" / "current-system"
        return os.readlink(link) if link.is_symlink() else None

    @property
    def boots(self) -> str | None:
        """The system that the boot loader would start."""
        default = self.root / "boot" / "default"
        return default.read_text().strip() if default.exists() else None

    @property
    def current(self) -> str:
        """The link that the profile names, such as system-2-link."""
        return os.readlink(self.profile)

    def system(self, number: int) -> str:
        """The system of a generation."""
        return os.readlink(f"{self.profile}-{number}-link")

    def installed(self) -> set[str]:
        """The programs of the system that runs."""
        return {path.name for path in (Path(self.running or "") / "sw" / "bin").iterdir()}

    def boot(self) -> None:
        """Boot what would be booted."""
        booted = self.root / "run" / "booted-system"
        booted.unlink(missing_ok=True)
        booted.symlink_to(self.boots or "")

    def set_by_hand(self, system: str) -> None:
        """A generation as nixos-rebuild makes it, without anybody telling glixd."""
        done = self.site.nix.run("nix-env", "--profile", os.fspath(self.profile), "--set", system)
        assert done.returncode == 0, done.stderr


@contextmanager
def switchable(site: Site) -> Iterator[Machine]:
    """Let daemons of the site switch a machine; they have to be started after this."""
    with programs(site.root / "machine", site.repository, {**site.nix.environment(), **site.extra}) as made:
        site.extra.update(made.settings())
        yield Machine(site, made)
