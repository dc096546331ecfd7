# SPDX-License-Identifier: GPL-3.0-or-later
"""What a repository must say after whatever happened to it: the model that a real daemon is compared with.

It knows nothing of how glixd works. A host is a dictionary as tomllib reads it, a person's edit is lines around a file, and
each change is a function from one dictionary to the next.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

Manifest = dict[str, Any]
Hosts = dict[str, Manifest]
Change = Callable[[Manifest], str | None]
"""Changes a manifest in place; says the name of the error where it can't be done."""


@dataclass
class Edit:
    """What a person wrote into a file of a host and has not committed: lines above and below what is committed."""

    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    packages: dict[str, Any] = field(default_factory=dict)
    """The packages among the lines below."""

    def around(self, committed: str) -> str:
        """The file as it is in the work tree."""
        return "".join(self.above) + committed + "".join(self.below)


@dataclass(frozen=True)
class Undo:
    """How one commit of the daemon is undone: the hosts it changed, as they were before and after."""

    commit: str
    before: Hosts
    after: Hosts


@dataclass
class Model:
    """The repository as it has to be."""

    hosts: Hosts
    commits: int
    edits: dict[str, Edit] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)
    """By host the comments that are committed and have to stay."""
    files: dict[str, str] = field(default_factory=dict)
    """By path what a person has in the work tree that is no business of the daemon."""
    status: dict[str, str] = field(default_factory=dict)
    """By path the two letters that git has for those files."""
    undo: list[Undo | None] = field(default_factory=list)
    """What can be undone, the newest last; None where a rollback is not predicted."""
    reported: set[str] = field(default_factory=set)
    """The commits that were reported as such."""

    @property
    def is_edited(self) -> bool:
        """Whether a managed file has an edit that is not committed."""
        return bool(self.edits)

    def edited(self, host: str) -> Edit:
        """The edit of a host's manifest."""
        return self.edits.setdefault(host, Edit())

    def seen(self, host: str) -> Manifest:
        """The manifest of a host with a person's edits in it: what a change starts from."""
        manifest = copy.deepcopy(self.hosts[host])
        packages = self.edits[host].packages if host in self.edits else {}
        if packages:
            manifest["packages"] = manifest.get("packages", {}) | copy.deepcopy(packages)
        return manifest

    def adopt(self) -> None:
        """Every edit becomes a part of what is committed."""
        self.hosts = {host: self.seen(host) for host in self.hosts}
        for host, edit in self.edits.items():
            lines = [line for line in (*edit.above, *edit.below) if line.strip().startswith("#")]
            self.comments.setdefault(host, []).extend(line.strip() for line in lines)
        self.edits = {}

    def committed(self, commit: str, before: Hosts, after: Hosts, *, undoable: bool = True) -> None:
        """The daemon made one commit, which also took over what was edited."""
        self.commits += 1
        self.hosts = after
        self.reported.add(commit)
        self.undo.append(Undo(commit, before, after) if undoable else None)


def undone(now: Hosts, step: Undo) -> Hosts:
    """The hosts without what one commit changed: each package and setting goes back to what it was."""
    hosts = copy.deepcopy(now)
    for host in step.before.keys() | step.after.keys():
        was, became = step.before.get(host), step.after.get(host)
        if was == became or was is None or became is None:
            continue
        for table in ("settings", "packages"):
            old, new = was.get(table, {}), became.get(table, {})
            changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
            there = hosts[host].setdefault(table, {})
            for key in changed:
                there.pop(key, None)
                if key in old:
                    there[key] = copy.deepcopy(old[key])
    return hosts


def normal(manifest: Manifest) -> Manifest:
    """A manifest in which no packages, no config and what is enabled are as good as not said."""
    found = copy.deepcopy(manifest)
    packages = found.setdefault("packages", {})
    for package in packages.values():
        if package.get("enabled", True):
            package.pop("enabled", None)
        if not package.get("config", True):
            package.pop("config")
    return found


# -- changes -------------------------------------------------------------------------------------------------------

NEW: Final[Manifest] = {"flake": "nixpkgs#hello", "scope": "system"}


def adding(name: str) -> Change:
    """Add the package hello under a name."""

    def change(manifest: Manifest) -> str | None:
        packages = manifest.setdefault("packages", {})
        if name in packages:
            return "AlreadyInstalled"
        packages[name] = dict(NEW)
        return None

    return change


def removing(name: str) -> Change:
    """Take a package out."""

    def change(manifest: Manifest) -> str | None:
        return None if manifest.get("packages", {}).pop(name, None) else "NotInstalled"

    return change


def _touching(name: str, edit: Callable[[Manifest], object]) -> Change:
    def change(manifest: Manifest) -> str | None:
        package = manifest.get("packages", {}).get(name)
        if package is None:
            return "NotInstalled"
        edit(package)
        return None

    return change


def switching(name: str, *, enabled: bool) -> Change:
    """Enable or disable a package."""
    return _touching(name, lambda package: package.update(enabled=enabled))


def moving(name: str, scope: str) -> Change:
    """Move a package to the system, or to the home of the primary user."""
    return _touching(name, lambda package: package.update(scope=scope))


def configuring(name: str, key: str, value: str) -> Change:
    """Give a package a value; the empty one takes it away."""

    def edit(package: Manifest) -> None:
        config = package.setdefault("config", {})
        config.pop(key, None)
        if value:
            config[key] = value

    return _touching(name, edit)


def setting(key: str, value: str) -> Change:
    """Change a setting of the host."""

    def change(manifest: Manifest) -> str | None:
        manifest.setdefault("settings", {})[key] = value
        return None

    return change


def one_after_the_other(*changes: Change) -> Change:
    """Several changes, all or none."""

    def change(manifest: Manifest) -> str | None:
        trial = copy.deepcopy(manifest)
        for one in changes:
            if error := one(trial):
                return error
        manifest.clear()
        manifest.update(trial)
        return None

    return change
