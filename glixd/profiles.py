# SPDX-License-Identifier: GPL-3.0-or-later
"""The profiles of machines, as core/profiles.toml lists them: Nix reads the same file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

from glixd.errors import invalid
from glixd.near import did_you_mean, near
from glixd.values import dataclass

PLACES: Final = (Path(__file__).with_name("profiles.toml"), Path(__file__).parents[1] / "core" / "profiles.toml")
"""Where the file is: beside an installed package, or in a checkout."""
EVERYWHERE: Final = "core"
"""The module that every machine has, whatever its profile."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of machine."""

    name: str
    description: str
    modules: tuple[str, ...]
    systems: tuple[str, ...]

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules of the core that a host of this profile imports by itself."""
        return tuple(module for module in self.modules if module != EVERYWHERE)


def load(places: tuple[Path, ...] = PLACES) -> dict[str, Profile]:
    """All profiles, by name."""
    file = next(place for place in places if place.exists())
    table = tomllib.loads(file.read_text())["profiles"]
    return {
        name: Profile(name, one["description"], tuple(one["modules"]), tuple(one["systems"]))
        for name, one in table.items()
    }


def chosen(name: str, system: str) -> Profile:
    """The profile of that name; raises InvalidArgument with those that there are."""
    known = load()
    if name not in known:
        helps = did_you_mean(near(name, known, 1), f"There are: {', '.join(known)}.")
        raise invalid("profile", f"there is no profile {name}", hint=helps)
    if system not in known[name].systems:
        raise invalid("profile", f"{name} is for {', '.join(known[name].systems)}, and the host is {system}")
    return known[name]
