# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a caller wrote to what it means: a reference as it stands, else the one source that knows the name."""

from __future__ import annotations

from typing import Final, Protocol

from glixd.errors import InvalidRequest, NotFound, Refused
from glixd.model.change import Resolved
from glixd.model.flakeref import FlakeRef, Local
from glixd.protocol import ErrorCode
from glixd.resolvers import nix_registry, nixpkgs, registry
from glixd.resolvers.asking import Asking


class Source(Protocol):
    """One source of short names: a module of this folder."""

    NAME: str

    def find(self, name: str, asking: Asking) -> FlakeRef | None:
        """What `name` means to this source; None when it does not know it."""


SOURCES: Final[tuple[Source, ...]] = (registry, nix_registry, nixpkgs)
"""Asked for every short name; when several know it, the caller has to say which is meant."""


def resolve(text: str, asking: Asking, *, pin: str | None, name: str | None, allow_local: bool) -> Resolved:
    """What a name or reference means; raises BadReference, LocalPathRefused, UnknownPackage or Ambiguous."""
    if FlakeRef.is_short(text):
        source, reference = _look_up(text, asking)
    else:
        source, reference = "uri", FlakeRef.parse(text)
    _check_local(reference, allow_local)
    host_attribute = reference.is_host_attribute(asking.nixpkgs, pin)
    if host_attribute and source == "uri" and not asking.has_attribute(reference.attribute or ""):
        raise _unknown(reference.attribute or "", asking)
    return Resolved(
        ref=text,
        name=name or reference.infer_name(),
        flake=reference.text,
        source=source,
        url=None if host_attribute else reference.input_url(pin),
        attribute=reference.attribute,
        trusted=host_attribute or (source == registry.NAME and registry.is_trusted(text, asking)),
    )


def _look_up(name: str, asking: Asking) -> tuple[str, FlakeRef]:
    found = [(source.NAME, reference) for source in SOURCES if (reference := source.find(name, asking))]
    match found:
        case []:
            raise _unknown(name, asking)
        case [first, *others] if all(reference == first[1] for _, reference in others):
            return first
        case _:
            commands = [f"glixctl add {reference.text}" for _, reference in found]
            raise Refused(
                f"{name} means several things: {' or '.join(reference.text for _, reference in found)}.",
                code=ErrorCode.AMBIGUOUS,
                hint="Say which: " + "   or   ".join(commands),
                details={"name": name, "candidates": [reference.text for _, reference in found]},
            )


def _unknown(name: str, asking: Asking) -> NotFound:
    near = asking.near(name)
    return NotFound(
        f"No package {name} is in nixpkgs or a registry.",
        code=ErrorCode.UNKNOWN_PACKAGE,
        hint=f"Did you mean {' or '.join(near)}?" if near else "Give a flake reference, such as github:owner/repo.",
        details={"name": name, "closest": list(near)},
    )


def _check_local(reference: FlakeRef, allow_local: bool) -> None:
    if reference.local is Local.ABSOLUTE and not allow_local:
        raise InvalidRequest(
            f"{reference.text} is a folder of this machine outside the repository.",
            code=ErrorCode.LOCAL_PATH_REFUSED,
            hint="Consent with --allow-local, or commit the folder and use path:./FOLDER.",
            details={"reference": reference.text},
        )
