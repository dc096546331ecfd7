# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes of the host's own locked nixpkgs."""

from __future__ import annotations

from glixd.model.flakeref import FlakeRef
from glixd.resolvers.asking import Asking

NAME = "nixpkgs"


def find(name: str, asking: Asking) -> FlakeRef | None:
    """`nixpkgs#name`, where the host's nixpkgs has such a package."""
    return FlakeRef.parse(f"nixpkgs#{name}") if asking.has_attribute(name) else None
