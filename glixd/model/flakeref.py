# SPDX-License-Identifier: GPL-3.0-or-later
"""Flake references as values: where a package comes from, which revision, and what it is called (see `refgrammar`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, Self
from urllib.parse import unquote

from glixd.api import PACKAGE_NAME
from glixd.errors import InvalidRequest
from glixd.model import refgrammar
from glixd.model.refgrammar import FORGES, GITS, TARBALLS, WITH_AUTHORITY, Parts, Scheme, bad, is_commit
from glixd.protocol import MAX_REFERENCE_BYTES
from glixd.values import dataclass

__all__ = ["NIXPKGS_REPOSITORY", "FlakeRef", "Local", "Scheme"]


class Local(StrEnum):
    """Where a reference to this machine's own files points: into the repository, or anywhere."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


@dataclass(frozen=True, slots=True)
class FlakeRef:
    """A reference that passed the grammar. Everything is derived from `text`."""

    text: str
    """As the user spelt it: this stands in the manifest and in every table."""
    url: str
    """Without the fragment; a bare name is spelt `flake:name`, so that nix never takes it for a folder."""
    attribute: str | None
    scheme: Scheme
    parts: Parts

    @classmethod
    @lru_cache(maxsize=2048)
    def parse(cls, text: str) -> Self:
        """Read a reference; what does not fit raises BadReference, saying what and where.

        The newest are kept: every change looks at the references of all packages, and each takes 15 µs to read.
        """
        parts = refgrammar.split(text)
        return cls(text, _url(parts.scheme, parts.path, parts.query), parts.attribute, parts.scheme, parts)

    @staticmethod
    def is_short(text: str) -> bool:
        """Whether `text` is a name or attribute path, such as `firefox`, that a resolver has to look up first."""
        return len(text) <= MAX_REFERENCE_BYTES and refgrammar.is_attribute_path(text)

    @property
    def ref(self) -> str | None:
        """The branch or tag that the reference itself names."""
        revision = self.parts.revision_in_path
        if revision and not is_commit(revision):
            return revision
        return self.parts.parameter("ref")

    @property
    def rev(self) -> str | None:
        """The commit that the reference itself names."""
        revision = self.parts.revision_in_path
        if revision and is_commit(revision):
            return revision
        return self.parts.parameter("rev")

    @property
    def local(self) -> Local | None:
        """How the reference reaches files of this machine; None for what comes over a network."""
        if self.scheme is Scheme.PATH:
            return Local.ABSOLUTE if self.parts.path.startswith("/") else Local.RELATIVE
        return Local.ABSOLUTE if self.scheme is Scheme.GIT_FILE else None

    def pinned(self, pin: str | None) -> str:
        """The URL with `pin` merged: a commit becomes `rev`, anything else `ref`.

        Only one branch or tag and one commit can hold: a pin that contradicts the reference is refused. A forge takes no
        branch beside a commit, so there a commit displaces it; git keeps it, because that is where it finds the commit.
        """
        if pin is None:
            return self.url
        refgrammar.check_pin(self.parts, pin)
        if is_commit(pin):
            return self._pinned_to_commit(pin.lower())
        return self._pinned_to_ref(pin)

    def input_url(self, pin: str | None) -> str:
        """The URL of the flake input: pinned, and `nixpkgs` spelt out, which would else depend on a machine's registry."""
        url = self.pinned(pin)
        if self.scheme is Scheme.FLAKE and self.parts.path.partition("/")[0] == "nixpkgs":
            return NIXPKGS_REPOSITORY + url.removeprefix("flake:nixpkgs")
        return url

    def infer_name(self) -> str:
        """A package name for the reference: its attribute, folder or repository; else an error that asks for a name."""
        for candidate in self._name_candidates():
            if PACKAGE_NAME.fullmatch(candidate):
                return candidate
        raise bad(self.text, "no package name can be read from it", hint="Give one with --name NAME.")

    def is_host_attribute(self, nixpkgs_url: str | None, pin: str | None) -> bool:
        """Whether this is an attribute of the host's own package set: no input, no lock.

        That is `nixpkgs#…`, and `github:NixOS/nixpkgs#…` where `nixpkgs_url`, the host's nixpkgs input, is that repository;
        in both cases without branch, commit, pin or parameter.
        """
        if self.attribute is None or pin is not None or self.parts.query:
            return False
        if self.scheme is Scheme.FLAKE:
            return self.parts.path == "nixpkgs"
        return self.url.lower() == NIXPKGS_REPOSITORY.lower() and _is_nixpkgs(nixpkgs_url)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _segments(self) -> list[str]:
        """The parts of the path that name something, percent-decoded."""
        path = self.parts.path
        if self.scheme in WITH_AUTHORITY:
            path = path.removeprefix("//").partition("/")[2]
        return [part for part in unquote(path).split("/") if part not in ("", ".")]

    def _pinned_to_commit(self, commit: str) -> str:
        if self.rev is not None:
            if self.rev.lower() == commit:
                return self.url
            raise _contradiction(self, commit, f"the commit {self.rev}")
        return self._at(ref=self.ref if self.scheme in GITS else None, rev=commit)

    def _pinned_to_ref(self, ref: str) -> str:
        if self.rev is not None:
            raise _contradiction(self, ref, f"the commit {self.rev}")
        if self.ref is None:
            return self._at(ref=ref, rev=None)
        if self.ref == ref:
            return self.url
        raise _contradiction(self, ref, f"the branch or tag {self.ref}")

    def _at(self, *, ref: str | None, rev: str | None) -> str:
        """The URL with exactly this branch or tag and commit."""
        kept = [(key, value) for key, value in self.parts.query if key not in ("ref", "rev")]
        path = self.parts.base_path
        if self.scheme is Scheme.FLAKE:  # nix ignores ?ref= and ?rev= of an indirect reference
            path = f"{path}/{rev or ref}"
        else:
            kept += [(key, value) for key, value in (("ref", ref), ("rev", rev)) if value is not None]
        return _url(self.scheme, path, kept)

    def _name_candidates(self) -> list[str]:
        """Names to try, best first."""
        candidates = []
        if self.attribute is not None and (last := self.attribute.rpartition(".")[2]) != "default":
            candidates.append(last)
        elif folder := self.parts.parameter("dir"):
            candidates.append(folder.rpartition("/")[2])
        if candidates:
            return candidates
        segments = self._segments()
        if self.scheme in FORGES:
            return [unquote(self.parts.path.split("/")[1]).removesuffix(".git")]
        if self.scheme is Scheme.FLAKE:
            return segments[:1]
        if self.scheme in TARBALLS:
            return _tarball_names(segments)
        return [segments[-1].removesuffix(".git")]


NIXPKGS_REPOSITORY: Final = "github:NixOS/nixpkgs"
"""What `nixpkgs` means everywhere, as a URL."""


_ARCHIVE_SUFFIX: Final = re.compile(r"\.(zip|tgz|tar(\.(gz|xz|bz2|zst))?)$", re.ASCII)


def _url(scheme: Scheme, path: str, query: Sequence[tuple[str, str]]) -> str:
    parameters = "&".join(f"{key}={value}" for key, value in query)
    return f"{scheme}:{path}?{parameters}" if parameters else f"{scheme}:{path}"


def _contradiction(reference: FlakeRef, pin: str, existing: str) -> InvalidRequest:
    why = f"the pin {pin} contradicts {existing} in the reference itself"
    return bad(reference.text, why, hint="Give the revision once: as the pin, or in the reference.")


def _is_nixpkgs(nixpkgs_url: str | None) -> bool:
    """Whether a URL, which the user's own flake may spell as it likes, is the official repository at any revision."""
    if nixpkgs_url is None:
        return False
    try:
        reference = FlakeRef.parse(nixpkgs_url)
    except InvalidRequest:
        return False
    if reference.scheme is Scheme.FLAKE:
        return reference.parts.base_path == "nixpkgs"
    same = f"{reference.scheme}:{reference.parts.base_path}".lower() == NIXPKGS_REPOSITORY.lower()
    return same and all(key in ("ref", "rev") for key, _ in reference.parts.query)


def _tarball_names(segments: list[str]) -> list[str]:
    """A forge's archive is named after what stands before `archive`; any other file after itself, then after its folders."""
    names = [_ARCHIVE_SUFFIX.sub("", segment) for segment in reversed(segments)]
    if "archive" in segments[1:]:
        above = [segment for segment in segments[: segments.index("archive")] if segment != "-"]
        return above[-1:] + names
    return names
