# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages of a manifest break the evaluation of a host: found by evaluating without them, never guessed.

What nix says often names the package, so those that it names are tried first; else halves of the manifest are tried, which
takes a few evaluations for each package that is to blame. Where the host does not evaluate without any of its packages
either, none of them is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from glixd.backends.nix import Nix
from glixd.backends.objects import GLIXD, Commit
from glixd.backends.process import Cancellation
from glixd.backends.repository import Repository
from glixd.backends.snapshot import Snapshot
from glixd.errors import Failed
from glixd.model import document
from glixd.model.change import manifest_path
from glixd.model.flakeref import FlakeRef
from glixd.model.manifest import Manifest, Package
from glixd.protocol import ErrorCode

TRIED_REF: Final = "refs/glix/tried"
EVALUATIONS: Final = 40
"""How many evaluations are worth the answer."""


class _TooMany(Exception):
    """The answer would take too long."""


class Culprits:
    """Looks for the packages that break a host. Safe from any thread; takes the repository for moments only."""

    def __init__(self, repository: Repository, nix: Nix) -> None:
        self._repository = repository
        self._nix = nix

    def of(self, commit: str, host: str, words: str, cancellation: Cancellation) -> tuple[str, ...]:
        """The packages without which the host evaluates at a commit that fails with `words`; none where that is not it."""
        snapshot = self._repository.at(commit)
        manifest = snapshot.manifest(host)
        enabled = [package for package in manifest.packages.values() if package.enabled]
        trial = _Trial(self._repository, self._nix, snapshot, manifest, host, cancellation)
        try:
            return trial.culprits([package.name for package in enabled], list(_named(enabled, words)))
        except _TooMany:
            return ()
        finally:
            self._repository.git.delete_ref(TRIED_REF)


class _Trial:
    """One search."""

    def __init__(
        self,
        repository: Repository,
        nix: Nix,
        snapshot: Snapshot,
        manifest: Manifest,
        host: str,
        cancellation: Cancellation,
    ) -> None:
        self._repository = repository
        self._nix = nix
        self._snapshot = snapshot
        self._manifest = manifest
        self._host = host
        self._cancellation = cancellation
        self._left = EVALUATIONS

    def culprits(self, names: Sequence[str], named: Sequence[str]) -> tuple[str, ...]:
        """Those that break it, in the order of the manifest."""
        if not names:
            return ()
        suspects: Sequence[str] = named if named and self._evaluates_without(named) else names
        if suspects is names and not self._evaluates_without(names):
            return ()
        found = set(self._search(list(suspects), list(suspects)))
        return tuple(name for name in names if name in found)

    def _search(self, part: list[str], suspects: list[str]) -> Iterable[str]:
        """Those of `part` that break it, where it evaluates without all the suspects."""
        if len(part) == 1 and len(suspects) == 1:
            return part
        if self._evaluates_without([name for name in suspects if name not in part]):
            return ()
        if len(part) == 1:
            return part
        middle = len(part) // 2
        return (*self._search(part[:middle], suspects), *self._search(part[middle:], suspects))

    def _evaluates_without(self, names: Iterable[str]) -> bool:
        if self._left == 0:
            raise _TooMany
        self._left -= 1
        text = self._snapshot.text(manifest_path(self._host)) or ""
        for name in names:
            text = document.change_package(text, name, {"enabled": False})
        with self._repository.locked(self._cancellation) as held:
            files = {manifest_path(self._host): text.encode()}
            tried = Commit(self._snapshot.commit, GLIXD, GLIXD, "Tried by glixd\n", files)
            commit = self._repository.make(tried)
            self._repository.refs.show(held, commit, TRIED_REF)
        try:
            self._nix.evaluate_host(commit, self._host, cancellation=self._cancellation)
        except Failed as error:
            if error.code is not ErrorCode.EVALUATION_FAILED:
                raise
            return False
        return True


def blamed(error: Failed, packages: Sequence[str]) -> Failed:
    """The error of an evaluation with the packages that cause it."""
    host = str(error.details.get("host", "the host"))
    names = ", ".join(packages)
    _, _, words = error.message.partition(": ")
    return Failed(
        f"{host} does not evaluate because of {names}: {words}",
        code=ErrorCode.EVALUATION_FAILED,
        hint=f"Disable it: glixctl disable {' '.join(packages)} --host {host}   or go on without it: "
        "glixctl rebuild --keep-going-without",
        details={**error.details, "packages": list(packages)},
    )


def _named(packages: Iterable[Package], words: str) -> Iterable[str]:
    """The packages whose name, attribute or input stands in what nix says."""
    for package in packages:
        attribute = (FlakeRef.parse(package.flake).attribute or "").rpartition(".")[2]
        names = {package.name, package.input or "", attribute} - {""}
        if any(re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", words) for name in names):
            yield package.name
