# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether nixpkgs would refuse what a request resolved to, and whether the caller consented to it.

A consent is recorded only where it is needed: not for what is not so, nor where the host's own configuration allows it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from glixd.api import Consent
from glixd.errors import Refused
from glixd.model.change import Resolved
from glixd.protocol import ErrorCode
from glixd.resolvers.asking import Asking


def with_consents(
    packages: Sequence[Resolved], given: Collection[Consent], asking: Asking, held: Collection[Consent] = ()
) -> tuple[Resolved, ...]:
    """The packages with the consents that they need; raises ConsentNeeded that names those which were not given.

    What the host consented to for them before is `held`.

    What comes from another flake is not looked at before it is locked: for it the caller's word is taken as it is.
    """
    needed = {one.name: _needed(one, given, asking) for one in packages}
    _require({name: [kind for kind in kinds if kind not in (*given, *held)] for name, kinds in needed.items()})
    return tuple(replace(one, consents=needed[one.name]) for one in packages)


def for_enabled(
    attributes: Mapping[str, str], given: Collection[Consent], asking: Asking, held: Mapping[str, Collection[Consent]]
) -> tuple[tuple[str, tuple[Consent, ...]], ...]:
    """The new consents of packages that are enabled, by name; raises ConsentNeeded where one is missing.

    Where nobody consents to anything, only what is known without asking nix counts, since enabling starts no process then;
    the rest shows in the health of the host.
    """
    found = []
    missing: dict[str, list[Consent]] = {}
    for name, attribute in attributes.items():
        known = asking.marks(attribute) if given else asking.known_marks(attribute)
        marks = [kind for kind in known or _for_what_it_needs(given) if kind not in held[name]]
        if marks and asking.refuses(attribute):
            missing[name] = [kind for kind in marks if kind not in given]
            found.append((name, tuple(marks)))
    _require(missing)
    return tuple(found)


def _require(missing: Mapping[str, list[Consent]]) -> None:
    if any(missing.values()):
        raise _consent_needed({name: kinds for name, kinds in missing.items() if kinds})


def _needed(one: Resolved, given: Collection[Consent], asking: Asking) -> tuple[Consent, ...]:
    if one.url is not None:
        return tuple(kind for kind in Consent if kind in given)
    attribute = one.attribute or ""
    marks = asking.marks(attribute) or _for_what_it_needs(given)
    return marks if marks and asking.refuses(attribute) else ()


def _for_what_it_needs(given: Collection[Consent]) -> tuple[Consent, ...]:
    """What may be consented to for a package that is none of it: something that it needs is."""
    return tuple(kind for kind in Consent if kind in given)


def _consent_needed(missing: dict[str, list[Consent]]) -> Refused:
    kinds = [kind for kind in Consent if any(kind in found for found in missing.values())]
    said = "; ".join(f"{name} is {' and '.join(found)}" for name, found in missing.items())
    return Refused(
        f"This needs your consent: {said}.",
        code=ErrorCode.CONSENT_NEEDED,
        hint=f"Consent with {' '.join(kind.flag for kind in kinds)}; it is recorded in the manifest, for these packages only.",
        details={"packages": list(missing), "options": [kind.setting for kind in kinds]},
    )
