# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change is: the resolved request, the files it starts from, and the plan of what it writes.

Nothing in a request has to be looked up any more, and its digest is what gets authorised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final

from glixd import api
from glixd.api import Consent, Scope
from glixd.model.generations import Rule
from glixd.model.manifest import Manifest, Package
from glixd.values import dataclass

ALL_HOSTS: Final = "all-hosts"
"""The host of a change that is about the repository as a whole."""
SETTINGS: Final = "settings"
"""The scope of a change that is about no package."""
HOST_VERBS: Final = frozenset({"init", "remove-host", "rename-host"})
"""Changes whose one line is about a host and not about a package."""


# -- requests ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one name or reference means."""

    ref: str
    name: str
    flake: str
    """What the manifest says."""
    source: str
    url: str | None
    """The flake input, pinned; None for an attribute of the host's own nixpkgs."""
    attribute: str | None
    trusted: bool
    revision: str | None = None
    """What was looked at, and must be what gets locked; None where the repository itself decides."""
    consents: tuple[Consent, ...] = ()
    """What the caller consented to that nixpkgs would refuse."""


@dataclass(frozen=True, slots=True)
class Add:
    """Add packages to a host."""

    host: str
    packages: tuple[Resolved, ...]
    scope: Scope
    user: str | None
    pin: str | None
    follows: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Take packages out of a host."""

    host: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """Enable or disable packages of a host."""

    host: str
    names: tuple[str, ...]
    enabled: bool
    consents: tuple[tuple[str, tuple[Consent, ...]], ...] = ()
    """What the caller consented to for packages that are enabled, where nixpkgs would refuse them."""


@dataclass(frozen=True, slots=True)
class Init:
    """Make the repository, or add a host to it."""

    host: str
    user: str
    system: str
    nixpkgs: str
    core: str
    home_manager: str | None
    modules: tuple[str, ...] = ()
    """Modules of the core that the host imports, by its profile."""
    files: tuple[tuple[str, str], ...] = ()
    """The files of a folder that is taken over, by path; none for a host that starts anew."""


@dataclass(frozen=True, slots=True)
class Regenerate:
    """Write the managed regions anew."""

    host: str


@dataclass(frozen=True, slots=True)
class PushedFile:
    """What a commit that a person made does to one file; None for no file."""

    path: str
    mode: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class PushedCommit:
    """A commit that a person made in a clone."""

    author: str
    email: str
    when: int
    message: str
    files: tuple[PushedFile, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """Put the commits of a clone on top of the branch."""

    host: str
    base: str
    """The commit that they were made on."""
    commits: tuple[PushedCommit, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """Change keys of one package of a host."""

    host: str
    name: str
    values: tuple[tuple[str, str], ...]
    """Key (`scope`, `config.theme` …) and new value; the empty one clears the key."""
    resolved: Resolved | None = None
    """What the package comes from afterwards, where that changes."""


@dataclass(frozen=True, slots=True)
class Move:
    """Move packages of a host to its system, or to the home of a user."""

    host: str
    names: tuple[str, ...]
    scope: Scope
    user: str | None


@dataclass(frozen=True, slots=True)
class SetHost:
    """Change settings of a host."""

    host: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RemoveHost:
    """Take a host out of the repository, with everything in its folder."""

    host: str


@dataclass(frozen=True, slots=True)
class RenameHost:
    """Give a host another name."""

    host: str
    to: str


@dataclass(frozen=True, slots=True)
class Update:
    """Lock inputs anew."""

    host: str
    inputs: tuple[str, ...]
    revisions: tuple[str, ...] = ()
    """What each of them becomes; that is what gets authorised."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Commit what people edited in the work tree."""

    host: str
    message: str | None
    everything: bool
    """Whether files that glixd does not manage go along."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """Take commits back."""

    host: str
    commits: tuple[str, ...]
    """The newest first."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Several changes as one."""

    host: str
    parts: tuple[Add | Remove | Switch | Change | Move | SetHost, ...]


@dataclass(frozen=True, slots=True)
class Collect:
    """Collect garbage of a machine; it changes no file of the repository."""

    host: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Build a commit for a host, and maybe switch the machine to it; it changes no file of the repository."""

    host: str
    commit: str
    action: api.Action
    keep_going_without: bool = False
    rollback_on_failure: bool = False
    user: str = ""
    """Whose home is built instead of the system; its owner puts it into effect."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Tag the commit that another machine was switched to; it changes no file of the repository."""

    host: str
    generation: int
    commit: str
    path: str
    """The system in the store."""
    transaction: str
    """The one that built it."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Go back to a generation: its manifest and its lock as one commit, and the system that was built then."""

    host: str
    generation: int
    commit: str
    """What it was built from."""
    path: str
    boot: bool
    undoes: tuple[str, ...]
    """The commits of glixd since then, the newest first."""


Planned = Add | Remove | Switch | Change | Move | SetHost | Regenerate | Update | Adopt | Batch
"""Requests whose plan follows from the manifests alone."""
Request = Planned | Init | RemoveHost | RenameHost | Rollback | Restore | Push
Aside = Collect | Rebuild | Remember
"""Requests that make no commit."""


# -- what is there, and what becomes of it -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """The managed files before the change: those of the commit, with the adopted edits in their place."""

    flake: str
    lock: str | None
    manifests: Mapping[str, Manifest]
    texts: Mapping[str, str]
    """The text of glix.toml by host."""
    default_system: str
    """The system of a host whose manifest does not name one."""
    commit: str | None = None
    """The commit that says all this; None where edits, or the plan of another change, stand in the place of what it says."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change writes, and how it is told."""

    verb: str
    host: str
    changes: tuple[api.Change, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """New text by path; flake.nix and flake.lock follow from the manifests."""
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    """The manifests that change, as they are afterwards."""
    regenerates: bool = False
    """Whether the managed regions may change."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Input → the revision that was resolved and authorised."""
    updates: tuple[str, ...] = ()
    """Inputs that are locked anew."""
    gone: frozenset[str] = frozenset()
    """Hosts that are no more."""
    trailers: tuple[str, ...] = ()
    """Trailers of its own."""
    note: str | None = None
    """What the people who changed files say about it."""

    @property
    def summary(self) -> str:
        """One sentence about the change."""
        if not self.changes:
            return f"nothing to do{self._place('on')}"
        first = self.changes[0]
        if self.verb in HOST_VERBS:
            return f"{first.action} the host {self.host} ({facts(first)})"
        actions = {change.action for change in self.changes}
        about = f" ({facts(first)})" if len(self.changes) == 1 else ""
        action = first.action if len(actions) == 1 else "changed"
        return f"{action} {self._names}{self._place(preposition(self.verb))}{about}"

    def _place(self, word: str) -> str:
        """Where it happened; a change of the whole repository happened nowhere in particular."""
        return "" if self.host == ALL_HOSTS else f" {word} {self.host}"

    @property
    def _names(self) -> str:
        return listed(list(dict.fromkeys(change.name for change in self.changes)))

    @property
    def subject(self) -> str:
        """The first line of the commit message."""
        names = self._names
        about = f" ({facts(self.changes[0])})" if len(self.changes) == 1 else ""
        return f"glix {self.verb} {self.host}: {names}{about}" if names else f"glix {self.verb} {self.host}"

    @property
    def body(self) -> list[str]:
        """One line a package where there are several."""
        if len(self.changes) < 2:
            return []
        return [f"{change.action} {change.name} ({facts(change)})" for change in self.changes]


# -- how it is told ------------------------------------------------------------------------------------------------


def manifest_path(host: str) -> str:
    """Where the manifest of a host stands in the repository."""
    return f"hosts/{host}/glix.toml"


def change_of(action: str, host: str, manifest: Manifest, package: Package, source: str | None = None) -> api.Change:
    """One line of what a change did."""
    return api.Change(
        action=action,
        host=host,
        name=package.name,
        flake=package.flake,
        scope=manifest.scope_of(package),
        user=manifest.user_of(package),
        source=source,
    )


def facts(change: api.Change) -> str:
    """What stands in parentheses behind a package: `ref, scope, via source`; never a value of its configuration."""
    if change.scope == SETTINGS:
        return change.flake
    scope = f"{change.scope} of {change.user}" if change.user else change.scope
    source = f", via {change.source}" if change.source else ""
    return f"{change.flake}, {scope}{source}"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def preposition(verb: str) -> str:
    """The word between a package and its host."""
    return {"add": "to", "remove": "from"}.get(verb, "on")
