# SPDX-License-Identifier: GPL-3.0-or-later
"""The flake registries of nix: `nix registry list`."""

from __future__ import annotations

from glixd.errors import InvalidRequest
from glixd.model.flakeref import FlakeRef
from glixd.model.inputs import RESERVED_INPUTS
from glixd.resolvers.asking import Asking

NAME = "nix-registry"


def find(name: str, asking: Asking) -> FlakeRef | None:
    """What the registries say that `name` is; an entry that glixd could not write into a flake does not count."""
    target = asking.registry().get(name)
    if target is None or name in RESERVED_INPUTS:
        return None
    try:
        return FlakeRef.parse(target)
    except InvalidRequest:
        return None
