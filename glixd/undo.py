# SPDX-License-Identifier: GPL-3.0-or-later
"""Undoing changes: which commits a rollback is about, and the files as they are without them.

Only commits of glixd are undone; what people committed stays. A rollback names what it undid, so that the next one goes a
step further back and never forth. A file that nobody touched since goes back byte for byte; else the manifest is edited
entry by entry, and a change that was built upon later is refused.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from glixd import api
from glixd.api import Consent
from glixd.backends.commits import line
from glixd.backends.git import Git, LogEntry
from glixd.backends.objects import REGULAR, Entry
from glixd.backends.snapshot import FLAKE, LOCK, Snapshot
from glixd.errors import NotFound, Refused
from glixd.model import document
from glixd.model.change import SETTINGS, Base, Plan, Restore, Rollback, manifest_path
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import stepped_back
from glixd.model.manifest import SETTING_KEYS, Manifest, Package, Settings
from glixd.model.operations import differences
from glixd.model.tomltables import Value
from glixd.protocol import ErrorCode
from glixd.values import dataclass

SEARCHED: Final = 10_000
"""How far back a rollback looks, in commits."""
PAGE: Final = 250
"""Commits that are looked at in one go."""
TRANSACTION: Final = "Glix-Transaction"
UNDOES: Final = "Glix-Undoes"
RESTORES: Final = "Glix-Restores"
ADOPTED: Final = "Glix-Adopted"
CHANGE: Final = "Glix-Change"
REVERTS: Final = re.compile(r"^This reverts commit ([0-9a-f]{40,64})", re.MULTILINE)
"""What `git revert` writes into its message."""


@dataclasses.dataclass(slots=True)
class Undone:
    """The files as they are without the undone commits."""

    files: dict[str, bytes | None] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    """Links and programs that come back: their objects, whose mode is part of what they are."""
    lock: str | None = None
    manifests: dict[str, Manifest] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    subjects: dict[str, str] = field(default_factory=dict)
    """What each undone commit said."""


def undoable(git: Git, head: str, since: str | None = None) -> Iterator[LogEntry]:
    """The commits that a rollback can undo, the newest first: ours, and undone neither by us nor with `git revert`.

    With `since`, those that came after that commit; whatever undid one of them came later still.
    """
    return _still_there(_newest_first(git, f"{since}..{head}" if since else head))


def undoable_since(git: Git, head: str, since: str) -> list[LogEntry] | None:
    """Those that came after a commit; None where that does not lead to `head`."""
    entries = line(git.read, since, head)
    if entries is not None:
        return list(_still_there(entries))
    return list(undoable(git, head, since)) if git.is_ancestor(since, head) else None


def _still_there(entries: Iterable[LogEntry]) -> Iterator[LogEntry]:
    undone: set[str] = set()
    for entry in entries:
        reverted = REVERTS.findall(entry.body)
        if entry.oid in undone:
            continue
        if reverted and TRANSACTION not in entry.trailers:
            undone.update(reverted)
        elif UNDOES in entry.trailers:
            undone.update(entry.trailers[UNDOES].split("\n"))
        elif TRANSACTION in entry.trailers:
            yield entry


def still_undoable(git: Git, head: str, commits: Iterable[str]) -> dict[str, LogEntry]:
    """Those of some commits that can be undone, by name."""
    wanted, found = set(commits), dict[str, LogEntry]()
    for entry in undoable(git, head):
        if entry.oid in wanted:
            found[entry.oid] = entry
        if len(found) == len(wanted):
            break
    return found


def _newest_first(git: Git, revision: str) -> Iterator[LogEntry]:
    """The history, a part at a time: what is to be undone is mostly new, and the whole takes a lot of memory."""
    skip = 0
    while skip < SEARCHED:
        entries = git.log(revision, limit=min(PAGE, SEARCHED - skip), skip=skip)
        yield from entries
        if len(entries) < PAGE:
            return
        skip += PAGE


def chosen(git: Git, head: str, *, steps: int | None, to_commit: str | None, host: str | None = None) -> list[LogEntry]:
    """The commits that are asked to be undone, the newest first, of one host or of all; raises NothingToUndo."""
    possible = undoable(git, head)
    if to_commit is not None:
        newer = {entry.oid for entry in git.log(f"{to_commit}..{head}", limit=SEARCHED)}
        possible = (entry for entry in possible if entry.oid in newer)
    if host is not None:
        possible = (entry for entry in possible if _concerns(git, entry.oid, host))
    entries = list(possible if to_commit is not None else islice(possible, steps or 1))
    wanted = len(entries) if to_commit is not None else steps or 1
    root = [entry for entry in entries if git.ref(f"{entry.oid}~1") is None]
    if not entries or root or len(entries) < wanted:
        there = len([entry for entry in entries if git.ref(f"{entry.oid}~1") is not None])
        raise NotFound(
            f"Only {there} {'change' if there == 1 else 'changes'} of glixd can be undone, and {wanted} were asked for."
            if there
            else "There is nothing to undo: no change of glixd is left behind the making of the repository.",
            code=ErrorCode.NOTHING_TO_UNDO,
            hint="See: glixctl history",
        )
    return entries


def _concerns(git: Git, commit: str, host: str) -> bool:
    parent = f"{commit}~1" if git.ref(f"{commit}~1") else None
    return any(path.startswith(f"hosts/{host}/") for path in git.changed_paths(parent, commit))


def plan_undone(base: Base, request: Rollback, undone: Undone) -> Plan:
    """How a rollback is told."""
    changes = tuple(
        api.Change(action="undid", host=request.host, name=oid[:7], flake=undone.subjects[oid], scope=SETTINGS)
        for oid in request.commits
    )
    return Plan(
        "rollback",
        request.host,
        changes,
        manifests=undone.manifests,
        regenerates=True,
        gone=frozenset(undone.gone & set(base.manifests)),
        trailers=tuple(f"{UNDOES}: {oid}" for oid in request.commits),
    )


def restored(then: Snapshot, request: Restore) -> Undone:
    """The manifest of a host and the lock as they were at a commit; everything else stays."""
    path = manifest_path(request.host)
    manifest = then.manifest(request.host)
    return Undone(files={path: then.data(path)}, lock=then.text(LOCK), manifests={request.host: manifest})


def unrestored(then: Snapshot, now: Snapshot, host: str) -> tuple[str, ...]:
    """The files that a host may be made of and that differ, but for those that a way back restores."""
    restored = {manifest_path(host), LOCK}
    return tuple(
        path
        for path in now.git.changed_paths(then.commit, now.commit)
        if path not in restored and _may_concern(path, host) and not (path == FLAKE and _same_outside(then, now))
    )


def _may_concern(path: str, host: str) -> bool:
    """Whether nix may read a file for a host: not what is another host's, and no document."""
    folder, _, rest = path.partition("/")
    return not path.endswith(".md") and (folder != "hosts" or rest.startswith(f"{host}/"))


def _same_outside(then: Snapshot, now: Snapshot) -> bool:
    """Whether flake.nix differs in nothing but the regions that glixd writes."""
    before, after = (FlakeFile.parse(snapshot.text(FLAKE) or "") for snapshot in (then, now))
    return before.outside() == after.outside()


def plan_restored(base: Base, request: Restore, undone: Undone) -> Plan:
    """How the way back to a generation is told; nothing where its manifest and its lock are what is there."""
    path = manifest_path(request.host)
    then = undone.files[path]
    trailers = (f"{RESTORES}: {request.generation} {request.commit}", *(f"{UNDOES}: {oid}" for oid in request.undoes))
    if then is not None and then.decode() == base.texts[request.host] and undone.lock == base.lock:
        return Plan("rollback", request.host, manifests=undone.manifests)
    change = api.Change(
        action="restored",
        host=request.host,
        name=f"generation {request.generation}",
        flake=request.commit[:7],
        scope=SETTINGS,
    )
    return Plan("rollback", request.host, (change,), manifests=undone.manifests, regenerates=True, trailers=trailers)


class Undoer:
    """Takes commits back one after the other, the newest first."""

    def __init__(self, snapshot: Snapshot, base: Base, adopted: Mapping[str, bytes | None], scratch: Path) -> None:
        self._snapshot = snapshot
        self._git = snapshot.git
        self._base = base
        self._adopted = adopted
        self._scratch = scratch
        self._result = Undone(lock=base.lock)

    def undo(self, entries: list[LogEntry]) -> Undone:
        """The files without these commits; raises Conflict for one that something later is built upon."""
        for entry in entries:
            self._result.subjects[entry.oid] = entry.subject
            for path, (old, _) in self._git.changed_paths(f"{entry.oid}~1", entry.oid).items():
                self._undo_path(entry, path, old)
        for path, data in self._result.files.items():
            match path.split("/"):
                case ["hosts", host, "glix.toml"]:
                    self._host_became(host, path, data)
        return self._result

    def _host_became(self, host: str, path: str, data: bytes | None) -> None:
        if data is None:
            self._result.gone.add(host)
            self._result.manifests.pop(host, None)
        else:
            self._result.manifests[host] = Manifest.parse(data.decode(), path)

    def _undo_path(self, entry: LogEntry, path: str, old: Entry | None) -> None:
        then, before = self._read(entry.oid, path), self._read(f"{entry.oid}~1", path)
        taken_over = path in entry.trailers.get(ADOPTED, "").split("\n") and CHANGE in entry.trailers
        if path == LOCK:
            self._undo_lock(entry, then, before)
        elif path == FLAKE:
            self._undo_flake(entry, then, before, taken_over=taken_over)
        elif self._now(path) == then and not taken_over:
            self._put_back(path, before, old)
        elif path.endswith("/glix.toml") and before is not None and then is not None:
            self._undo_manifest(entry, path, then, before, taken_over=taken_over)
        elif not taken_over:
            merged = self._merged(self._now(path), then, before)
            if merged is None:
                raise _built_upon(entry, path)
            self._result.files[path] = merged

    def _put_back(self, path: str, before: bytes | None, old: Entry | None) -> None:
        """The file as it was, its mode included."""
        self._result.files[path] = before
        self._result.entries.pop(path, None)
        if old and old.mode != REGULAR:
            self._result.entries[path] = old

    def _undo_lock(self, entry: LogEntry, then: bytes | None, before: bytes | None) -> None:
        """Back to the lock of before: as a whole where nobody locked since, else the inputs that the commit moved.

        Where one of them has moved on, nix settles what the inputs need; an update, which is nothing else, is refused.
        """
        now = self._result.lock
        if now is not None and now.encode() == then:
            self._result.lock = before.decode() if before is not None else None
            return
        merged = stepped_back(now, then.decode(), before.decode()) if now and then and before else None
        if merged is not None:
            self._result.lock = merged
        elif entry.subject.startswith("glix update "):
            raise _built_upon(entry, LOCK)

    def _undo_flake(self, entry: LogEntry, then: bytes | None, before: bytes | None, *, taken_over: bool) -> None:
        """The regions follow from the manifests; what stands outside them goes back only where it was the change itself."""
        if taken_over or then is None or before is None:
            return
        if FlakeFile.parse(then.decode()).outside() == FlakeFile.parse(before.decode()).outside():
            return
        merged = self._merged(self._now(FLAKE), then, before)
        if merged is None:
            raise _built_upon(entry, FLAKE)
        self._result.files[FLAKE] = merged

    def _undo_manifest(self, entry: LogEntry, path: str, then: bytes, before: bytes, *, taken_over: bool) -> None:
        """Entry by entry: each that the commit changed must still be as it left it, or be as it was before already."""
        now = self._now(path)
        if now is None:
            raise _built_upon(entry, path)
        current, left, earlier = (Manifest.parse(data.decode(), path) for data in (now, then, before))
        names = [
            name
            for name in {**left.packages, **earlier.packages}
            if left.packages.get(name) != earlier.packages.get(name)
        ]
        keys = _different(left.settings, earlier.settings)
        if taken_over:
            own = _Own.of(entry, path.split("/")[1])
            names = [name for name in names if name in own.names]
            keys = [key for key in keys if own.concerns(key, names)]
        names = [name for name in names if current.packages.get(name) != earlier.packages.get(name)]
        keys = [key for key in keys if key in _different(current.settings, earlier.settings)]
        changed_since = [name for name in names if current.packages.get(name) != left.packages.get(name)]
        changed_since += [key for key in keys if key in _different(current.settings, left.settings)]
        if changed_since:
            raise _built_upon(entry, ", ".join(changed_since))
        wanted = _with_entries(current, earlier, names, keys)
        merged = None if taken_over else self._merged(now, then, before)
        if merged is None or Manifest.parse(merged.decode(), path) != wanted:
            merged = _edited(now.decode(), current, wanted, names, keys).encode()
            if Manifest.parse(merged.decode(), path) != wanted:
                raise _built_upon(entry, path)
        self._result.files[path] = merged

    def _now(self, path: str) -> bytes | None:
        if path in self._result.files:
            return self._result.files[path]
        return self._adopted[path] if path in self._adopted else self._snapshot.data(path)

    def _read(self, commit: str, path: str) -> bytes | None:
        found = self._git.read(f"{commit}:{path}")
        return found.data if found else None

    def _merged(self, now: bytes | None, then: bytes | None, before: bytes | None) -> bytes | None:
        """What is there now without the step from `before` to `then`; None where they conflict."""
        if now is None or then is None or before is None:
            return None
        with tempfile.TemporaryDirectory(prefix="undo-", dir=self._scratch) as folder:
            names = [Path(folder) / word for word in ("now", "then", "before")]
            for name, data in zip(names, (now, then, before), strict=True):
                name.write_bytes(data)
            return self._git.merge(*names)


@dataclass(frozen=True, slots=True)
class _Own:
    """What a request itself changed of one host, where edits went along in its commit."""

    names: frozenset[str]
    settings: frozenset[str] | None
    """None: so many that the commit does not list them."""

    @classmethod
    def of(cls, entry: LogEntry, host: str) -> _Own:
        """Read the trailers of a commit."""
        lines = [line.split(" ", 2) for line in entry.trailers[CHANGE].split("\n")]
        changes = [(words[0], words[2]) for words in lines if len(words) == 3 and words[1] == host]
        settings = [name for action, name in changes if action == "set"]
        return cls(
            frozenset(name for action, name in changes if action != "set"),
            None if any(" and " in name for name in settings) else frozenset(", ".join(settings).split(", ")),
        )

    def concerns(self, key: str, names: list[str]) -> bool:
        """Whether the request changed a setting: because it said so, or as the consent for a package."""
        is_consent = any(consent.setting == key for consent in Consent)
        return bool(names) if is_consent else self.settings is None or key in self.settings


def _different(one: Settings, other: Settings) -> list[str]:
    """The keys in which two tables of settings differ."""
    return [key for key in sorted(SETTING_KEYS) if getattr(one, key) != getattr(other, key)]


def _with_entries(current: Manifest, earlier: Manifest, names: list[str], keys: list[str]) -> Manifest:
    packages: dict[str, Package] = dict(current.packages)
    for name in names:
        if name in earlier.packages:
            packages[name] = earlier.packages[name]
        else:
            packages.pop(name, None)
    settings = replace(current.settings, **{key: getattr(earlier.settings, key) for key in keys})
    return replace(current, packages=packages, settings=settings)


def _edited(text: str, current: Manifest, wanted: Manifest, names: list[str], keys: list[str]) -> str:
    """The manifest with single entries put back."""
    for name in names:
        before, now = wanted.packages.get(name), current.packages.get(name)
        if before is None:
            text = document.remove_package(text, name)
        elif now is None:
            text = document.add_package(text, before)
        else:
            text = document.change_package(text, name, differences(now, before))
    return document.change_settings(text, {key: _written(getattr(wanted.settings, key)) for key in keys})


def _written(value: str | bool | tuple[str, ...] | None) -> Value:
    """A setting as the manifest has it; what is not said is left out."""
    if isinstance(value, tuple):
        return list(value) or None
    return value or None


def _built_upon(entry: LogEntry, what: str) -> Refused:
    return Refused(
        f"“{entry.subject}” ({entry.oid[:7]}) can't be undone: {what} was changed again since.",
        hint="Undo the later changes with it, with --steps or --to, or change it by hand.",
        details={"commit": entry.oid, "changed": what},
    )
