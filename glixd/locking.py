# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of the inputs, computed in a scratch folder: nothing in the repository is touched, and nothing is locked twice.

A request is locked once while it is prepared, to learn what would be locked and have that authorised, and once more in its
transaction. Where nothing it depends on has changed in between, the second answer is the first one.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from glixd import hashes
from glixd.backends.evaluator import Leaf
from glixd.backends.git import Git
from glixd.backends.nix import Nix
from glixd.backends.objects import REGULAR
from glixd.backends.process import Cancellation
from glixd.backends.snapshot import FLAKE, LOCK, Snapshot
from glixd.errors import Failed, Refused
from glixd.model import lockfile
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import LockFile
from glixd.protocol import ErrorCode

REMEMBERED: Final = 16
"""Locks that are kept in case their transaction asks again."""
_RELATIVE: Final = re.compile(r"[\"' ]path:\./([A-Za-z0-9_.+/-]+)")


class Locker:
    """Runs `nix flake lock` beside the repository. Safe from any thread."""

    def __init__(self, nix: Nix) -> None:
        self._nix = nix
        self._known: OrderedDict[str, str] = OrderedDict()

    def lock(
        self,
        snapshot: Snapshot,
        flake: str,
        lock: str | None,
        cancellation: Cancellation,
        *,
        update: tuple[str, ...] = (),
        fresh: bool = False,
    ) -> str | None:
        """The flake.lock that `flake` gets, starting from `lock` and with the inputs `update` locked anew.

        None for a flake without inputs; `fresh` asks nix again even where the answer is known. Raises LockFailed.

        Folders of relative inputs are those of the commit: what is not committed is no part of an input.
        """
        folders = relative_folders(flake)
        contents = [f"{name} {snapshot.git.ref(f'{snapshot.commit}:{name}')}" for name in folders]
        key = hashes.sha256("\0".join([flake, lock or "", *contents, *sorted(update)]).encode())
        locked = None if fresh else self._known.get(key)
        if locked is None:
            anew = {*moved_folders(snapshot, lock), *update}
            start = lockfile.without(lock, anew) if lock is not None and anew else lock
            locked = self._run(snapshot, flake, start, folders, cancellation)
            _check_complete(locked, [*FlakeFile.parse(flake).input_names, *anew])
            self._remember(key, locked)
        return locked or None

    def lock_new(self, flake: str, cancellation: Cancellation) -> str:
        """The flake.lock of a repository that is still to be made."""
        locked = self._run(None, flake, None, [], cancellation)
        _check_complete(locked, ["nixpkgs"])
        return locked

    def remove_left(self) -> None:
        """Remove what a daemon that was killed left; only while there is no other that locks here."""
        self._nix.remove_left()

    def _run(
        self, snapshot: Snapshot | None, flake: str, lock: str | None, folders: list[str], cancellation: Cancellation
    ) -> str:
        files = {FLAKE: Leaf(REGULAR, flake.encode())}
        if lock is not None:
            files[LOCK] = Leaf(REGULAR, lock.encode())
        for name in folders:
            if snapshot:
                files |= _leaves(snapshot.git, snapshot.commit, name)
        return self._nix.lock(files, cancellation=cancellation)

    def _remember(self, key: str, lock: str) -> None:
        self._known[key] = lock
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _check_complete(lock: str, names: Iterable[str]) -> None:
    """Raise LockFailed where an input was not locked, though nix said that all went well."""
    known = LockFile.parse(lock).inputs
    if missing := [name for name in names if name not in known]:
        raise Failed(
            f"nix said that it locked the inputs, and did not lock {', '.join(missing)}.",
            code=ErrorCode.LOCK_FAILED,
            hint="Look at the nix that the daemon finds on its path; nothing was changed.",
        )


def moved_folders(snapshot: Snapshot, lock: str | None) -> list[str]:
    """The `path:./…` inputs whose folder changed since the lock was written; nix would keep their old contents."""
    local = [entry for entry in LockFile.parse(lock).inputs.values() if entry.folder]
    if not local:
        return []
    git, then = snapshot.git, snapshot.git.last_change(snapshot.commit, LOCK)
    return [
        entry.name
        for entry in local
        if git.ref(f"{then}:{entry.folder}") != git.ref(f"{snapshot.commit}:{entry.folder}")
    ]


def relative_folders(flake: str) -> list[str]:
    """The folders of the repository that flake.nix names as `path:./…` inputs."""
    return sorted(set(_RELATIVE.findall(flake)))


def _leaves(git: Git, commit: str, name: str) -> dict[str, Leaf]:
    """The files of a folder of a commit, by path."""
    entries = git.tree(f"{commit}:{name}")
    if not entries:
        raise Refused(
            f"The folder {name} is not in the last commit, so it can't be an input.",
            code=ErrorCode.BAD_REFERENCE,
            hint=f"Commit it first: git add {name} && git commit -m 'Add {name}' -- {name}",
            details={"path": name},
        )
    leaves: dict[str, Leaf] = {}
    for leaf, entry in entries.items():
        if entry.is_tree:
            leaves |= _leaves(git, commit, f"{name}/{leaf}")
        elif blob := git.read(entry.oid):
            leaves[f"{name}/{leaf}"] = Leaf(entry.mode, blob.data)
    return leaves
