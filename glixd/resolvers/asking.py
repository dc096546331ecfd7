# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources of a name are asked with: the host, its locked nixpkgs, and what nix said before."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Final

from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation
from glixd.backends.repository import LOCK, Snapshot
from glixd.backends.state import Database
from glixd.model.lockfile import LockFile
from glixd.model.operations import nixpkgs_url

REGISTRY_AGE: Final = 300.0
"""Seconds for which an answer of `nix registry list` is used again."""


class Facts:
    """What nix was asked before. Facts about a locked revision hold for good and survive in the state database."""

    def __init__(self, nix: Nix, database: Database) -> None:
        self.nix = nix
        self._database = database
        self._registry: tuple[float, dict[str, str]] | None = None

    def registry(self) -> Mapping[str, str]:
        """The flake registries of this machine."""
        if self._registry is None or time.monotonic() - self._registry[0] > REGISTRY_AGE:
            self._registry = (time.monotonic(), self.nix.registry())
        return self._registry[1]

    def known(self, key: str) -> str | None:
        """A remembered fact."""
        return self._database.fact(key)

    def remember(self, key: str, value: str) -> None:
        """Remember a fact for good."""
        self._database.remember(key, value)


class Asking:
    """One question about one host at one commit."""

    def __init__(self, facts: Facts, snapshot: Snapshot, host: str, system: str, cancellation: Cancellation) -> None:
        self.snapshot = snapshot
        self.host = host
        self.system = system
        self.lock = LockFile.parse(snapshot.text(LOCK))
        self._facts = facts
        self._cancellation = cancellation

    @property
    def nixpkgs(self) -> str | None:
        """What flake.nix asks for as nixpkgs."""
        return nixpkgs_url(self.lock)

    def registry(self) -> Mapping[str, str]:
        """The flake registries of this machine."""
        return self._facts.registry()

    def has_attribute(self, attribute: str) -> bool:
        """Whether the host's nixpkgs has a package of that attribute path."""
        key = f"package {self._revision} {self.system} {self.host} {attribute}"
        if self._facts.known(key):
            return True
        found = self._facts.nix.is_package(
            self.snapshot.commit, self.host, self.system, attribute, cancellation=self._cancellation
        )
        if found and self._revision:
            self._facts.remember(key, "yes")
        return found

    def names(self) -> list[str]:
        """The top-level names of the host's nixpkgs."""
        key = f"names {self._revision} {self.system}"
        if known := self._facts.known(key):
            return [str(name) for name in json.loads(known)]
        names = self._facts.nix.package_names(self.snapshot.commit, self.system, cancellation=self._cancellation)
        if self._revision:
            self._facts.remember(key, json.dumps(names))
        return names

    def core_features(self) -> set[str]:
        """What the locked core understands."""
        revision = self.lock.revision("glixos-core")
        key = f"core {revision}"
        if known := self._facts.known(key):
            return set(json.loads(known))
        features = self._facts.nix.core_features(self.snapshot.commit, cancellation=self._cancellation)
        if revision:
            self._facts.remember(key, json.dumps(features))
        return set(features)

    @property
    def _revision(self) -> str | None:
        return self.lock.revision("nixpkgs")
