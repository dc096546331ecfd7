# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the user's work tree: see what was edited by hand, and publish a commit without losing such an edit.

A file is replaced by an atomic exchange, and what was displaced is compared with what should have been there. Had a person
changed it meanwhile, the exchange is undone and the two are merged; where they conflict, the person's file stays.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from glixd import hashes
from glixd.backends import files
from glixd.backends.git import Git
from glixd.backends.objects import Entry
from glixd.log import get_logger

log = get_logger()

LINK: Final = "120000"
DISPLACED: Final = "publish-"
LONGEST: Final = 180
"""Bytes of a path that fit into a file name beside a digest."""
ATTEMPTS: Final = 3
"""How often a file is published anew that a person writes at the same time."""
SETTLED: Final = 50_000_000
"""Nanoseconds after which a file's times say whether it was changed since; younger ones are read again."""


def blob_name(data: bytes, like: str) -> str:
    """The object name that git gives to these bytes, in the hash of the object name `like`."""
    named = hashes.sha256 if len(like) == 64 else hashes.sha1
    return named(b"blob %d\0" % len(data) + data)


def adopted_blob(data: bytes | None, like: str) -> str | None:
    """The name of the blob that an adopted edit is; None for a file that is gone."""
    return None if data is None else blob_name(data, like)


def displaced_name(path: str, data: bytes) -> str:
    """The name under which `data` waits to be exchanged with the file at `path`; a path too long for it is left out."""
    quoted = quote(path, safe="")
    return f"{DISPLACED}{hashes.sha256(data)}-{quoted if len(quoted) < LONGEST else ''}"


class WorkTree:
    """The files that a person sees beside `.git`."""

    def __init__(self, git: Git, scratch: Path, exchange: Callable[[Path, Path], bool] = files.exchange) -> None:
        self.root = git.root
        self._exchange = exchange
        self._git = git
        self._scratch = scratch
        self._diverged = scratch.parent / "diverged.json"
        self._seen: dict[str, tuple[tuple[int, ...], str]] = {}

    def edits(self, managed: Mapping[str, Entry]) -> dict[str, bytes | None]:
        """The managed files that differ from their blobs, with the bytes they have now; None where one is gone."""
        found: dict[str, bytes | None] = {}
        for path, entry in managed.items():
            if self._known(path) == entry.oid:
                continue
            data = self._read(path)
            if data is None or self._remember(path, data, entry.oid) != entry.oid:
                found[path] = data
        return found

    def unresolved(self, edits: Mapping[str, bytes | None]) -> list[str]:
        """The edited paths that diverged from a published change and were not touched since."""
        diverged = self._read_diverged()
        return [path for path, data in edits.items() if data is not None and diverged.get(path) == hashes.sha256(data)]

    def publish(
        self, changes: Mapping[str, tuple[Entry | None, Entry | None]], expected: Mapping[str, str | None]
    ) -> list[str]:
        """Write the new contents of `changes` (path → old and new entry); answers with the paths that stay diverged.

        `expected` names the blob that a path should have now, where that is not its old entry: an edit that was adopted.
        """
        diverged: dict[str, str] = {}
        for path, (old, new) in changes.items():
            kept = self._publish_one(path, expected.get(path, old.oid if old else None), new)
            if kept is not None:
                diverged[path] = kept
        self._write_diverged(diverged)
        return sorted(diverged)

    def rescue(self) -> None:
        """Give back what a person had written and an exchange displaced that was interrupted; then scratch files may go.

        A file that was to be published carries its own digest and its path in its name. With other bytes in it, it was
        exchanged, and they are what stood in the work tree: contents that git has, or a person's edit.
        """
        for left in self._scratch.glob(f"{DISPLACED}*"):
            digest, _, quoted = left.name.removeprefix(DISPLACED).partition("-")
            data = left.read_bytes()
            if hashes.sha256(data) == digest or self._has_object(data):
                continue
            self._give_back(left, unquote(quoted))

    def _give_back(self, left: Path, path: str) -> None:
        target = self.root / path
        current = self._read(path) if path else None
        if current is not None and self._has_object(current) and self._exchange(left, target):
            log.warning("gave back an edit that an interrupted transaction had displaced", path=path)
            return
        kept = self._scratch.parent / "kept" / left.name
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        left.replace(kept)
        log.warning("kept an edit that an interrupted transaction had displaced", path=path, kept=str(kept))

    def _has_object(self, data: bytes) -> bool:
        """Whether git has these bytes, so that they can't get lost."""
        return self._git.read(blob_name(data, self._git.ref("HEAD") or "")) is not None

    def _publish_one(self, path: str, should: str | None, new: Entry | None) -> str | None:
        """Publish one path; None when it is done, else the sha256 of what a person has there."""
        target = self.root / path
        if new is None:
            return self._delete(path, should)
        blob = self._git.read(new.oid)
        if blob is None:
            raise FileNotFoundError(2, "the object to publish is missing", str(target))
        if not new.is_regular:
            return self._link(target, new, blob.data)
        current = self._read(path)
        for _ in range(ATTEMPTS):
            if current == blob.data:
                return None
            merged = blob.data if _is(current, should) else self._merged(should, current, blob.data)
            if merged is None:
                break
            if merged == current or self._replace(path, current, merged, new.mode):
                return None
            current = self._read(path)
        log.warning("a managed file was edited during a transaction and conflicts with it", path=path)
        return hashes.sha256(current or b"")

    def _link(self, target: Path, new: Entry, data: bytes) -> str | None:
        """Put a symbolic link where nothing is; over anything else nothing is written."""
        if _linked(target) == data:
            return None
        if os.path.lexists(target) or new.mode != LINK:
            return hashes.sha256(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(data.decode(errors="surrogateescape"))
        files.sync_folder(target.parent)
        return None

    def _replace(self, path: str, expected: bytes | None, data: bytes, mode: str) -> bool:
        """Put `data` in the place of `expected` in one step; False, and nothing lost, when something else was there."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._scratch / displaced_name(path, data)
        unfinished = self._scratch / "fresh"
        files.write_durably(unfinished, data, _mode(target, mode))
        unfinished.replace(fresh)
        try:
            if expected is None:
                done = files.rename_new(fresh, target) or self._rename_checked(fresh, target, expected)
            elif self._exchange(fresh, target):
                done = self._keep_or_put_back(fresh, target, expected, data)
            else:
                done = self._rename_checked(fresh, target, expected)
        except (FileExistsError, FileNotFoundError):
            done = False
        files.sync_folder(target.parent)
        fresh.unlink(missing_ok=True)
        return done

    def _keep_or_put_back(self, fresh: Path, target: Path, expected: bytes, data: bytes) -> bool:
        if fresh.read_bytes() == expected:
            return True
        self._exchange(fresh, target)
        if fresh.read_bytes() != data:  # a person wrote once more in between: theirs is the newest
            self._exchange(fresh, target)
        return False

    def _rename_checked(self, fresh: Path, target: Path, expected: bytes | None) -> bool:
        """For file systems that cannot exchange: compare, then rename; an edit between the two is lost."""
        if files.read_regular(target) != expected:
            return False
        fresh.replace(target)
        return True

    def _merged(self, should: str | None, current: bytes | None, ours: bytes) -> bytes | None:
        """The three-way merge of a person's edit and ours; None where they conflict or one side is gone."""
        base = self._git.read(should) if should else None
        if base is None or current is None:
            return None
        names = [self._scratch / f"merge-{word}" for word in ("current", "base", "ours")]
        for name, data in zip(names, (current, base.data, ours), strict=True):
            name.write_bytes(data)
        merged = self._git.merge(*names)
        for name in names:
            name.unlink()
        return merged

    def _delete(self, path: str, should: str | None) -> str | None:
        target = self.root / path
        files.refuse_linked_folders(self.root, path)
        current = _linked(target) or self._read(path)
        if current is None:
            return None
        if not _is(current, should):
            return hashes.sha256(current)
        target.unlink()
        files.sync_folder(target.parent)
        self._remove_empty(target.parent)
        return None

    def _remove_empty(self, folder: Path) -> None:
        """Git keeps no empty folders, so neither do we."""
        while folder != self.root and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _read(self, path: str) -> bytes | None:
        files.refuse_linked_folders(self.root, path)
        return files.read_regular(self.root / path)

    def _known(self, path: str) -> str | None:
        key, oid = self._seen.get(path, ((), None))
        return oid if key and key == _stat_key(self.root / path) else None

    def _remember(self, path: str, data: bytes, like: str) -> str:
        oid = blob_name(data, like)
        key = _stat_key(self.root / path)
        if key and time.time_ns() - max(key[2], key[3]) > SETTLED:
            self._seen[path] = (key, oid)
        return oid

    def _read_diverged(self) -> dict[str, str]:
        try:
            found = json.loads(self._diverged.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(path): str(digest) for path, digest in found.items()} if isinstance(found, dict) else {}

    def _write_diverged(self, diverged: Mapping[str, str]) -> None:
        if diverged:
            files.write_durably(self._diverged, json.dumps(diverged).encode(), 0o600)
        else:
            self._diverged.unlink(missing_ok=True)


def _linked(target: Path) -> bytes | None:
    """Where a symbolic link points to; None for anything else."""
    return os.fsencode(os.readlink(target)) if target.is_symlink() else None


def _is(data: bytes | None, name: str | None) -> bool:
    """Whether these bytes are the blob of that name; no bytes are no blob."""
    return name is None if data is None else name is not None and blob_name(data, name) == name


def _mode(target: Path, mode: str) -> int:
    """The permissions that a file has, or gets where it is new."""
    try:
        return stat.S_IMODE(target.lstat().st_mode)
    except FileNotFoundError:
        return 0o755 if mode == "100755" else 0o644


def _stat_key(path: Path) -> tuple[int, ...]:
    try:
        facts = os.lstat(path)
    except OSError:
        return ()
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
