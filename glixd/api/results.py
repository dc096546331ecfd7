# SPDX-License-Identifier: GPL-3.0-or-later
"""What operations answer, and what is told about transactions."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from glixd.api.grammar import Value


class Empty(Value):
    """Nothing but that it was done."""


class Started(Value):
    """A mutation was accepted; look its transaction up, watch it or wait for it."""

    transaction: str


class PingResult(Value):
    """That the daemon is there."""

    version: str
    commit: str


class Capabilities(Value):
    """What this daemon is and can do."""

    version: str
    commit: str
    mode: str = Field(description="user or system.")
    repository: str
    host: str = Field(description="The host that is meant where none is named.")
    operations: tuple[str, ...]
    errors: tuple[str, ...]


class Health(Value):
    """What the evaluation of a host at a commit said."""

    state: str = Field(description="ok, failed, evaluating or unknown.")
    commit: str | None = None
    message: str | None = Field(None, description="Nix's own words, where it failed.")


class Host(Value):
    """One host of the repository."""

    name: str
    system: str | None = None
    primary_user: str | None = None
    packages: int = Field(description="How many the manifest has.")
    enabled: int = Field(description="How many of them are enabled.")
    health: Health
    problem: str | None = Field(None, description="Why the manifest can't be read.")


class Hosts(Value):
    """The hosts of the repository, by name."""

    hosts: tuple[Host, ...]


class Package(Value):
    """One entry of a manifest."""

    host: str
    name: str
    scope: str
    enabled: bool
    user: str | None = None
    flake: str
    pin: str | None = None


class Packages(Value):
    """One page of packages."""

    packages: tuple[Package, ...]
    next: str | None = Field(None, description="The cursor of the next page, where there is one.")
    health: Health | None = Field(None, description="Of the one host that was asked for.")


class PackageDetails(Package):
    """One entry of a manifest, with what is locked for it."""

    input: str | None = Field(None, description="The flake input it comes from; none for a host attribute.")
    url: str | None = Field(None, description="The URL of that input.")
    attribute: str | None = None
    follows: bool
    consents: tuple[str, ...] = Field((), description="unfree, insecure, broken: what was consented to for it.")
    config: dict[str, str]
    revision: str | None = Field(None, description="The locked revision of the input, or of the host's nixpkgs.")
    modified: str | None = Field(None, description="When that revision was made.")
    health: Health
    contributes: str | None = Field(
        None, description="package, nixosModule or homeModule; none where nix could not say so quickly."
    )
    description: str | None = Field(None, description="What the package says about itself.")
    version: str | None = Field(None, description="The version that is locked.")


class Input(Value):
    """One input of flake.nix, as it is locked."""

    name: str
    url: str | None = Field(None, description="What flake.nix asks for.")
    revision: str | None = None
    modified: str | None = None
    managed: bool = Field(description="Whether it stands in the region that glixd writes.")
    age: int | None = Field(None, description="Whole days since that revision was made.")


class InputDetails(Input):
    """One input of flake.nix, with who uses it."""

    hosts: tuple[str, ...] = Field(description="The hosts that use it, as far as the manifests say so.")
    packages: tuple[str, ...] = Field(description="The packages that come from it, as host/name, at most 100.")
    uses: int = Field(description="How many packages come from it.")


class Inputs(Value):
    """The inputs of flake.nix, by name."""

    inputs: tuple[InputDetails, ...]


class Difference(Value):
    """One page of the difference between two commits, or between a commit and the work tree."""

    before: str = Field(description="The commit of the older side.")
    commit: str | None = Field(None, description="The commit of the newer side; none for the work tree.")
    files: tuple[str, ...] = Field(description="The files that differ.")
    diff: str = Field(description="Unified diff of these files.")
    next: str | None = Field(None, description="Pass as `after` to go on.")


class Info(Value):
    """The repository, its hosts and its inputs."""

    repository: str
    mode: str
    branch: str
    head: str | None = None
    subject: str | None = None
    edited: tuple[str, ...] = Field(description="Managed files that differ from the commit.")
    dirty: tuple[str, ...] = Field(description="Other files that git calls changed or untracked, at most 100.")
    published: bool = Field(description="Whether the work tree shows the commit.")
    hosts: tuple[Host, ...]
    inputs: tuple[Input, ...]
    version: str


class Resolution(Value):
    """What one name or reference means."""

    ref: str = Field(description="What was asked.")
    name: str
    flake: str = Field(description="What the manifest would say.")
    source: str = Field(description="uri, registry, nix-registry or nixpkgs.")
    url: str | None = Field(None, description="The flake input it needs; none for a host attribute.")
    attribute: str | None = None
    trusted: bool


class Resolutions(Value):
    """What names and references mean, in the order asked."""

    resolutions: tuple[Resolution, ...]


class Match(Value):
    """One package that could be added."""

    name: str = Field(description="What to call it in Add, where no other source knows that name.")
    flake: str = Field(description="What it is, without doubt.")
    source: str = Field(description="registry or nixpkgs.")
    version: str | None = None
    description: str | None = None
    unfree: bool = False
    insecure: bool = False
    broken: bool = False
    installed: bool = Field(False, description="Whether the manifest of the host has it.")
    url: str | None = Field(None, description="The registry that lists it.")


class Matches(Value):
    """One page of what fits a query, the best first."""

    matches: tuple[Match, ...]
    next: int | None = Field(None, description="Pass as `offset` to go on.")
    index: str = Field(
        description="ready; or building, failed or absent: then older or fewer facts were searched, at least the names."
    )


class IndexStatus(Value):
    """How the package index of a host's nixpkgs is."""

    state: str = Field(description="ready, building, failed or absent.")
    revision: str | None = Field(None, description="The locked revision of nixpkgs.")
    system: str
    packages: int = Field(description="How many it has, so far.")
    left: int = Field(description="How many attributes are still to be looked at, as far as is known.")
    problem: str | None = Field(None, description="Why it could not be built.")


class Registry(Value):
    """One glixos registry."""

    url: str
    trusted: bool = Field(description="Whether what it lists may be installed like packages of nixpkgs.")
    origin: str = Field(description="settings, or host for the one that the manifest names.")
    entries: int
    fetched: str | None = Field(None, description="When the entries came.")
    checked: str | None = Field(None, description="When it was last asked.")
    problem: str | None = Field(None, description="Why it gave nothing new that is good; the entries are older ones.")


class RegistryList(Value):
    """The registries, in the order in which they are asked."""

    registries: tuple[Registry, ...]


class RegistryEntry(Value):
    """What a registry says of one name."""

    name: str
    flake: str
    description: str


class RegistryPage(Value):
    """One page of a registry, by name."""

    registry: Registry
    entries: tuple[RegistryEntry, ...]
    next: str | None = Field(None, description="Pass as `after` to go on.")


class HistoryEntry(Value):
    """One commit."""

    commit: str
    time: str
    author: str
    subject: str
    transaction: str | None = Field(
        None, description="The transaction that made it; none for a commit that people made."
    )
    uid: int | None = None
    reason: str | None = None
    body: str | None = Field(None, description="What the message says below its first line, without trailers.")


class Histories(Value):
    """One page of the history."""

    entries: tuple[HistoryEntry, ...]
    next: str | None = Field(None, description="Pass as `before` to go on.")


class Status(StrEnum):
    """What a check came to."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


class Check(Value):
    """One finding of the doctor."""

    name: str = Field(description="What was looked at.")
    status: str = Field(description="OK, WARN (works, and deserves a look) or FAIL.")
    message: str
    remedy: str | None = Field(None, description="What to do about it, where possible as a command.")
    path: str | None = Field(None, description="The file or folder of the repository that it is about.")
    line: int | None = None
    fix: str | None = Field(None, description="The operation that mends it without a question.")


class Diagnosis(Value):
    """What the doctor found."""

    checks: tuple[Check, ...]
    version: str = Field(description="The version of the daemon.")


class Change(Value):
    """What a change did to one package of a host."""

    action: str = Field(description="added, removed, enabled, disabled or changed.")
    host: str
    name: str
    flake: str
    scope: str
    user: str | None = None
    source: str | None = None


class LockChange(Value):
    """The revision of one input before and after; none where it was not locked."""

    input: str
    before: str | None = None
    after: str | None = None


class Garbage(Value):
    """What nothing uses any more, and what was kept."""

    freed: int = Field(description="Bytes of the files that were deleted, or would be.")
    paths: int = Field(description="Paths of the store that were deleted.")
    generations: tuple[str, ...] = Field(description="Links of the generations that were deleted.")
    tags: tuple[str, ...] = Field(description="Tags of generations that are gone.")
    roots: tuple[str, ...] = Field(description="What keeps the rest alive, as `link -> path`, at most 1000.")


class Outcome(Value):
    """What a transaction did, or in a dry run would do."""

    summary: str = Field(description="One sentence.")
    changed: bool = Field(description="Whether there was anything to do.")
    changes: tuple[Change, ...] = ()
    lock: tuple[LockChange, ...] = ()
    diff: str | None = Field(None, description="Unified diff of every file.")
    garbage: Garbage | None = Field(None, description="Of CollectGarbage: what was deleted, and what keeps the rest.")


class ErrorInfo(Value):
    """Why a transaction failed."""

    code: int = Field(description="The JSON-RPC code.")
    name: str
    message: str
    hint: str = ""
    details: dict[str, str | int | bool | list[str]] = Field(default_factory=dict)


class Transaction(Value):
    """One transaction, while it runs and after."""

    id: str
    operation: str
    host: str | None = None
    state: str
    uid: int
    login: str
    created: str
    finished: str | None = None
    dry_run: bool
    digest: str | None = Field(None, description="sha256 of the resolved request.")
    commit: str | None = Field(None, description="Set from the commit point on.")
    step: str | None = Field(None, description="What it does now.")
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    outcome: Outcome | None = None
    error: ErrorInfo | None = None


class Transactions(Value):
    """Transactions, the newest first."""

    transactions: tuple[Transaction, ...]


class ProgressEvent(Value):
    """What a watcher is told: at most ten a second, the last one always."""

    transaction: str
    state: str
    step: str | None = None
    done: int | None = None
    expected: int | None = None
    percent: float | None = None
    lines: tuple[str, ...] = Field((), description="New lines of the log.")
