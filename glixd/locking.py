# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of the inputs, computed in a scratch folder: nothing in the repository is touched, and nothing is locked twice.

A request is locked once while it is prepared, to learn what would be locked and have that authorised, and once more in its
transaction. Where nothing it depends on has changed in between, the second answer is the first one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from glixd.backends import files
from glixd.backends.git import Git
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation
from glixd.backends.repository import FLAKE, LOCK, Snapshot
from glixd.errors import Failed, Refused
from glixd.model import lockfile
from glixd.model.lockfile import LockFile
from glixd.protocol import ErrorCode

PREFIX: Final = "lock-"
REMEMBERED: Final = 16
"""Locks that are kept in case their transaction asks again."""
_RELATIVE: Final = re.compile(r"[\"' ]path:\./([A-Za-z0-9_.+/-]+)")


class Locker:
    """Runs `nix flake lock` beside the repository. Safe from any thread."""

    def __init__(self, nix: Nix, scratch: Path) -> None:
        self._nix = nix
        self._scratch = scratch
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
        key = hashlib.sha256("\0".join([flake, lock or "", *contents, *sorted(update)]).encode()).hexdigest()
        locked = None if fresh else self._known.get(key)
        if locked is None:
            anew = {*moved_folders(snapshot, lock), *update}
            start = lockfile.without(lock, anew) if lock is not None and anew else lock
            locked = self._run(snapshot, flake, start, folders, cancellation)
            self._remember(key, locked)
        return locked or None

    def lock_new(self, flake: str, cancellation: Cancellation) -> str:
        """The flake.lock of a repository that is still to be made."""
        return self._run(None, flake, None, [], cancellation)

    def remove_left(self) -> None:
        """Remove the scratch folders of a process that was killed; only while there is no other that locks here."""
        for left in self._scratch.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _run(
        self, snapshot: Snapshot | None, flake: str, lock: str | None, folders: list[str], cancellation: Cancellation
    ) -> str:
        with self._folder() as folder:
            (folder / FLAKE).write_text(flake)
            if lock is not None:
                (folder / LOCK).write_text(lock)
            for name in folders:
                if snapshot:
                    _export(snapshot.git, snapshot.commit, name, folder / name)
            self._nix.lock(folder, cancellation=cancellation)
            locked = folder / LOCK
            return locked.read_text() if locked.exists() else ""

    def _remember(self, key: str, lock: str) -> None:
        self._known[key] = lock
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with files.translating(self._scratch):
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._scratch))
        try:
            with files.translating(folder):
                yield folder
        except Failed:
            files.require_space(self._scratch, needed_bytes=1024 * 1024, needed_inodes=100)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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


def _export(git: Git, commit: str, name: str, target: Path) -> None:
    """Copy a folder of a commit."""
    entries = git.tree(f"{commit}:{name}")
    if not entries:
        raise Refused(
            f"The folder {name} is not in the last commit, so it can't be an input.",
            code=ErrorCode.BAD_REFERENCE,
            hint=f"Commit it first: git add {name} && git commit -m 'Add {name}' -- {name}",
            details={"path": name},
        )
    target.mkdir(parents=True, exist_ok=True)
    for leaf, entry in entries.items():
        if entry.is_tree:
            _export(git, commit, f"{name}/{leaf}", target / leaf)
        elif blob := git.read(entry.oid):
            _write_leaf(target / leaf, entry.mode, blob.data)


def _write_leaf(path: Path, mode: str, data: bytes) -> None:
    if mode == "120000":
        path.symlink_to(data.decode(errors="surrogateescape"))
        return
    path.write_bytes(data)
    if mode == "100755":
        path.chmod(0o755)
