# SPDX-License-Identifier: GPL-3.0-or-later
"""What one commit of the repository says: its managed files, and the manifests of its hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from glixd.api import HOST_NAME
from glixd.backends.git import Git
from glixd.backends.objects import PROGRAM, Entry
from glixd.errors import Failed, NotFound, Refused
from glixd.model.change import Base, manifest_path
from glixd.model.flakefile import FlakeFile
from glixd.model.lockfile import LockFile
from glixd.model.manifest import Manifest
from glixd.near import did_you_mean, near
from glixd.protocol import ErrorCode

FLAKE: Final = "flake.nix"
LOCK: Final = "flake.lock"
MANIFESTS: Final = 4
"""Manifests of one host that are kept as parsed: what it says now, said before and will say."""
HOSTS: Final = 4096
"""Hosts of which something is kept."""


class Contents:
    """Reads what commits have; what a tree or a blob says never changes, so it is read once. Safe from any thread."""

    def __init__(self, root: Path, git: Git) -> None:
        self.root = root
        self.git = git
        self._hosts: dict[str, dict[str, Entry]] = {}
        self._host_entries: dict[str, Entry | None] = {}
        self._manifests: dict[str, dict[str, Manifest]] = {}

    def hosts_of(self, tree: str) -> dict[str, Entry]:
        """The hosts in a `hosts` folder, by the name of its tree."""
        known = self._hosts.get(tree)
        if known is None:
            _bound(self._hosts, 16)
            entries = sorted(self.git.tree(tree).items())
            found = {
                name: self._host_entry(entry) for name, entry in entries if entry.is_tree and HOST_NAME.fullmatch(name)
            }
            known = {name: entry for name, entry in found.items() if entry is not None}
            self._hosts[tree] = known
        return known

    def manifest_of(self, blob: str, path: str) -> Manifest:
        """The parsed manifest of that blob; a blob never changes, so it is parsed once."""
        return self._manifest(blob, path, Manifest.parse)

    def manifest_after(self, blob: str, path: str, base_text: str, base: Manifest) -> Manifest:
        """The same, where it came out of another one by a change: read by the part in which the two differ, if that does."""
        return self._manifest(blob, path, lambda text, path: Manifest.parse_part(text, path, base_text, base))

    def _manifest(self, blob: str, path: str, parse: Callable[[str, str], Manifest]) -> Manifest:
        newest = self._manifests.get(path, {})
        known = newest.get(blob)
        if known is None:
            found = self.git.read(blob)
            if found is None:
                raise Failed(
                    f"The object {blob} of {path} is missing.", code=ErrorCode.READ_ONLY, hint="Run git fsck there."
                )
            known = parse(decoded(found.data, path), path)
            _bound(newest, MANIFESTS)
            newest[blob] = known
            if path not in self._manifests:
                _bound(self._manifests, HOSTS)
                self._manifests[path] = newest
        return known

    def _host_entry(self, folder: Entry) -> Entry | None:
        if folder.oid not in self._host_entries:
            entry = self.git.tree(folder.oid).get("glix.toml")
            _bound(self._host_entries, HOSTS)
            self._host_entries[folder.oid] = entry if entry and entry.is_regular else None
        return self._host_entries.get(folder.oid)


class Snapshot:
    """What one commit says: the managed files and the manifests of the hosts."""

    def __init__(self, contents: Contents, commit: str) -> None:
        self.commit = commit
        self._contents = contents
        self._read: dict[str, bytes | None] = {}

    @property
    def git(self) -> Git:
        """Where the commit is read from."""
        return self._contents.git

    @cached_property
    def root(self) -> dict[str, Entry]:
        """The entries of the top folder."""
        return self._contents.git.tree(f"{self.commit}^{{tree}}")

    @cached_property
    def hosts(self) -> dict[str, Entry]:
        """Each host with the entry of its glix.toml; a folder without one is no host."""
        folder = self.root.get("hosts")
        return self._contents.hosts_of(folder.oid) if folder and folder.is_tree else {}

    @cached_property
    def managed(self) -> dict[str, Entry]:
        """The files that glixd writes, by path."""
        top = {name: entry for name in (FLAKE, LOCK) if (entry := self.root.get(name))}
        return top | {manifest_path(host): entry for host, entry in self.hosts.items()}

    def entry(self, path: str) -> Entry | None:
        """What the commit has at a path."""
        folder, _, name = path.rpartition("/")
        return self.git.tree(f"{self.commit}:{folder}").get(name)

    def is_program(self, path: str) -> bool:
        """Whether a file of the commit is executable."""
        entry = self.entry(path)
        return entry is not None and entry.mode == PROGRAM

    def below(self, folder: str) -> dict[str, Entry]:
        """Every file below a folder, by path."""
        found: dict[str, Entry] = {}
        for name, entry in self.git.tree(f"{self.commit}:{folder}").items():
            path = f"{folder}/{name}"
            found |= self.below(path) if entry.is_tree else {path: entry}
        return found

    def data(self, path: str) -> bytes | None:
        """The bytes of a file of the commit; a change asks several times for those it touches."""
        if path not in self._read:
            found = self._contents.git.read(f"{self.commit}:{path}")
            self._read[path] = None if found is None or found.kind != "blob" else found.data
        return self._read[path]

    def text(self, path: str) -> str | None:
        """A text file of the commit."""
        data = self.data(path)
        return None if data is None else decoded(data, path)

    @cached_property
    def lock(self) -> LockFile:
        """What flake.lock says."""
        return LockFile.parse(self.text(LOCK))

    def manifest(self, host: str) -> Manifest:
        """The manifest of a host; raises UnknownHost with the known ones, or ManifestInvalid."""
        entry = self.hosts.get(host)
        if entry is None:
            raise unknown_host(host, list(self.hosts))
        return self._contents.manifest_of(entry.oid, manifest_path(host))

    def manifest_after(self, host: str, base: Snapshot) -> Manifest:
        """The manifest of a host in a commit that was made on `base`; as strong as `manifest`, and quicker for a long one."""
        path, entry = manifest_path(host), self.hosts.get(host)
        before = base.text(path) if host in base.hosts else None
        if entry is None or before is None:
            return self.manifest(host)
        return self._contents.manifest_after(entry.oid, path, before, base.manifest(host))

    def base(self, adopted: Mapping[str, str], default_system: str) -> Base:
        """What a change starts from: the files of the commit, with adopted texts in their place."""

        def text(path: str) -> str | None:
            return adopted.get(path) or self.text(path)

        flake = text(FLAKE)
        if flake is None or not self.root[FLAKE].is_regular:
            raise Refused(
                f"The repository {self._contents.root} has no plain file flake.nix, so it is none that glixd can keep.",
                hint="Make a new one in another folder: glixctl --dir FOLDER init",
            )
        FlakeFile.parse(flake)
        commit = None if adopted else self.commit
        return Base(flake, text(LOCK), _Manifests(self, adopted), _Texts(self.hosts, text), default_system, commit)


class _Manifests(Mapping[str, Manifest]):
    """The manifests of a commit with the adopted texts in their place, parsed when they are looked at."""

    def __init__(self, snapshot: Snapshot, texts: Mapping[str, str]) -> None:
        self._snapshot = snapshot
        self._texts = texts

    def __getitem__(self, host: str) -> Manifest:
        path = manifest_path(host)
        if path in self._texts:
            return Manifest.parse(self._texts[path], path)
        if host not in self._snapshot.hosts:
            raise KeyError(host)
        return self._snapshot.manifest(host)

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot.hosts)

    def __len__(self) -> int:
        return len(self._snapshot.hosts)


class _Texts(Mapping[str, str]):
    """The text of glix.toml by host, read when it is looked at."""

    def __init__(self, hosts: Mapping[str, object], read: Callable[[str], str | None]) -> None:
        self._hosts = hosts
        self._read = read

    def __getitem__(self, host: str) -> str:
        text = self._read(manifest_path(host))
        if text is None:
            raise KeyError(host)
        return text

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)


def unknown_host(host: str, known: list[str]) -> NotFound:
    """There is no such host; says which there are."""
    listed = ", ".join(known[:20]) or "none"
    return NotFound(
        f"There is no host {host} in the repository; it has: {listed}.",
        code=ErrorCode.UNKNOWN_HOST,
        hint=did_you_mean(near(host, known, 1), f"Add it with: glixctl init --host {host}"),
        details={"host": host, "known": known[:100]},
    )


def decoded(data: bytes, path: str) -> str:
    """A file as text; raises Refused (ManifestInvalid) where it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            f"{path} is no UTF-8 text (byte {error.start}).", code=ErrorCode.MANIFEST_INVALID, details={"path": path}
        ) from None


def _bound(cache: dict[str, Any], limit: int) -> None:
    """Make room for one more; what came first goes first."""
    for key in list(cache)[: max(0, len(cache) + 1 - limit)]:
        cache.pop(key, None)
