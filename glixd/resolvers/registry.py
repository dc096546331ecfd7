# SPDX-License-Identifier: GPL-3.0-or-later
"""The glixos registries, in the order in which they are configured."""

from __future__ import annotations

from glixd.errors import InvalidRequest
from glixd.model.flakeref import FlakeRef
from glixd.model.inputs import RESERVED_INPUTS
from glixd.resolvers.asking import Asking

NAME = "registry"


def find(name: str, asking: Asking) -> FlakeRef | None:
    """What the first registry that knows the name says that it is.

    A registry speaks of no folder of this machine, and of nothing that glixd could not write into a flake.
    """
    listed = asking.listed(name)
    if listed is None or name in RESERVED_INPUTS or FlakeRef.is_short(listed.flake):
        return None
    try:
        reference = FlakeRef.parse(listed.flake)
    except InvalidRequest:
        return None
    return None if reference.local is not None else reference


def is_trusted(name: str, asking: Asking) -> bool:
    """Whether the administrator trusts the registry that the name was found in."""
    listed = asking.listed(name)
    return listed is not None and listed.trusted
