# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources of a name are asked with: the host, its locked nixpkgs, and what nix said before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from glixd.api import Consent
from glixd.backends.index import Index, IndexDamaged, Indexes
from glixd.backends.nix import Contribution, Nix
from glixd.backends.process import Cancellation
from glixd.backends.registry import Listed, Registries
from glixd.backends.snapshot import LOCK, Snapshot
from glixd.backends.state import Database
from glixd.errors import Failed
from glixd.log import get_logger
from glixd.model.lockfile import fingerprint
from glixd.model.operations import nixpkgs_url
from glixd.near import near

log = get_logger()

Answer = TypeVar("Answer")
REGISTRY_AGE: Final = 300.0
"""Seconds for which an answer of `nix registry list` is used again."""
QUICKLY: Final = 10.0
"""Seconds that nix has to say what only decorates an answer."""
SUGGESTIONS: Final = 3
"""Names that are suggested for one that nobody knows."""


class Facts:
    """What was found out before. Facts about a locked revision hold for good and survive in the state database."""

    def __init__(self, nix: Nix, database: Database, indexes: Indexes, registries: Registries) -> None:
        self.nix = nix
        self.indexes = indexes
        self.registries = registries
        self._database = database
        self._registry: tuple[float, dict[str, str]] | None = None

    def registry(self) -> Mapping[str, str]:
        """The flake registries of this machine."""
        if self._registry is None or time.monotonic() - self._registry[0] > REGISTRY_AGE:
            self._registry = (time.monotonic(), self.nix.registry())
        return self._registry[1]

    def from_index(self, revision: str | None, system: str, question: Callable[[Index], Answer]) -> Answer | None:
        """What the index of a nixpkgs says; None where there is none that can be read."""
        index = self.indexes.get(revision, system)
        try:
            return question(index) if index else None
        except IndexDamaged as error:
            self.indexes.forget(error.index)
            return None

    def known(self, key: str) -> str | None:
        """A remembered fact."""
        return self._database.fact(key)

    def remember(self, key: str, value: str) -> None:
        """Remember a fact for good."""
        self._database.remember(key, value)


class Asking:
    """One question about one host at one commit."""

    def __init__(
        self,
        facts: Facts,
        snapshot: Snapshot,
        host: str,
        system: str,
        cancellation: Cancellation,
        registry_url: str | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.host = host
        self.system = system
        self.lock = snapshot.lock
        self._facts = facts
        self._cancellation = cancellation
        self._registry_url = registry_url
        self._marks: dict[str, tuple[Consent, ...] | None] = {}

    @property
    def nixpkgs(self) -> str | None:
        """What flake.nix asks for as nixpkgs."""
        return nixpkgs_url(self.lock)

    def registry(self) -> Mapping[str, str]:
        """The flake registries of this machine."""
        return self._facts.registry()

    def listed(self, name: str) -> Listed | None:
        """What the first glixos registry that knows the name says."""
        return self._facts.registries.find(name, self._registry_url)

    def has_attribute(self, attribute: str) -> bool:
        """Whether the host's nixpkgs has a package of that attribute path."""
        return self.marks(attribute) is not None

    def known_marks(self, attribute: str) -> tuple[Consent, ...]:
        """What the host's nixpkgs is known to mark a package as, without asking nix; nothing where that is not known."""
        if entry := self._facts.from_index(self._revision, self.system, lambda index: index.find(attribute)):
            return entry.marks
        known = self._facts.known(f"marks {self._revision} {self.system} {attribute}")
        return tuple(Consent(mark) for mark in json.loads(known)) if known is not None else ()

    def marks(self, attribute: str) -> tuple[Consent, ...] | None:
        """What the host's nixpkgs marks a package as; None when it has no such package.

        The index answers without a process; what it does not know may still come from an overlay of the host. Each package is
        looked up twice: for what it is, and for what it needs consent for.
        """
        if attribute not in self._marks:
            self._marks[attribute] = self._found_marks(attribute)
        return self._marks[attribute]

    def _found_marks(self, attribute: str) -> tuple[Consent, ...] | None:
        if entry := self._facts.from_index(self._revision, self.system, lambda index: index.find(attribute)):
            return entry.marks
        key = f"marks {self._revision} {self.system} {attribute}"
        if (known := self._facts.known(key)) is not None:
            return tuple(Consent(mark) for mark in json.loads(known))
        found = self._facts.nix.package_marks(
            self.snapshot.commit, self.host, self.system, attribute, cancellation=self._cancellation
        )
        if found is not None and not found.own and self._revision:
            self._facts.remember(key, json.dumps(found.marks))
        return found.marks if found else None

    def refuses(self, attribute: str) -> bool:
        """Whether the host's package set, as it is configured, refuses a package; one that can't be asked does."""
        try:
            return self._facts.nix.refuses(self.snapshot.commit, self.host, attribute, cancellation=self._cancellation)
        except Failed:
            return True

    def near(self, name: str) -> list[str]:
        """The known names that are spelt most like `name`."""
        found = self._facts.from_index(self._revision, self.system, lambda index: index.near(name, SUGGESTIONS))
        packages = self.names() if found is None else found
        known = [*self.registry(), *self._facts.registries.names(self._registry_url), *packages]
        return near(name, known, SUGGESTIONS)

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

    def contribution(self, wanted: Contribution) -> Mapping[str, str | None]:
        """What a package is; empty where nix can't say so quickly, which is not remembered."""
        contents = self._contents(wanted.input or "nixpkgs")
        key = f"contribution {contents} {wanted.system} {wanted.scope} {wanted.attribute or ''}"
        if known := self._facts.known(key):
            return dict(json.loads(known))
        try:
            found = self._facts.nix.contribution(self.snapshot.commit, wanted, timeout=QUICKLY)
        except Failed as error:
            log.debug("what a package is can't be found out", reason=error.message)
            return {}
        self._facts.remember(key, json.dumps(found))
        return found

    def _contents(self, name: str) -> str:
        """What names the contents of an input: its part of the lock, and for a folder of the repository its tree."""
        locked = fingerprint(self.snapshot.text(LOCK) or "", name)
        folder = self.lock.inputs[name].folder
        tree = self.snapshot.git.ref(f"{self.snapshot.commit}:{folder}") if folder else None
        return f"{locked} {tree}" if tree else locked

    @property
    def _revision(self) -> str | None:
        return self.lock.revision("nixpkgs")
