# SPDX-License-Identifier: GPL-3.0-or-later
"""What operations answer, and what is told about transactions."""

# Annotations are values here: as text, pydantic would compile each of them when the model is made.
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
    near: tuple[str, ...] = Field(
        (), description="Where nothing fits a single word: the known names that are spelt most like it."
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


class Piece(Value):
    """A piece of a git bundle of the branch."""

    commit: str = Field(description="The commit that the bundle leads to.")
    branch: str = Field(description="The name of the branch, as the bundle has it.")
    data: str = Field(description="The bytes, in base 64.")
    size: int = Field(description="Bytes of the whole bundle.")
    next: int | None = Field(None, description="Pass as `offset`, with the commit, to go on.")


class Received(Value):
    """How much of an upload has come."""

    upload: str = Field(description="Pass it to go on, and to Push.")
    size: int = Field(description="Bytes so far.")


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


class PackageChange(Value):
    """A package of which a system has other versions than another system."""

    name: str
    kind: str = Field(description="added, removed, upgraded, downgraded or changed.")
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class SystemChange(Value):
    """What differs between two systems that are built."""

    packages: tuple[PackageChange, ...] = Field(description="At most 1000, by name.")
    rebuilt: int = Field(description="Packages with the same version that are other builds of it.")
    size_before: int = Field(description="Bytes, with all that it needs.")
    size_after: int
    reboot: tuple[str, ...] = Field((), description="What only a reboot makes effective: kernel, initrd, systemd.")


class UnitChanges(Value):
    """What an activation does to systemd units."""

    stopped: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    reloaded: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Rebuilt(Value):
    """What a rebuild came to."""

    action: str
    host: str
    commit: str = Field(description="What was built.")
    activated: bool = Field(description="Whether the machine is another one now, or from the next boot on.")
    path: str | None = Field(None, description="The system in the store; none where nothing was built.")
    generation: int | None = Field(None, description="The generation that it became.")
    previous: int | None = Field(None, description="The generation before.")
    pending: tuple[str, ...] = Field(
        (), description="Commits since the last switch, the newest first, as the short commit and its subject."
    )
    change: SystemChange | None = Field(None, description="What differs from the running system.")
    units: UnitChanges | None = None
    reboot_needed: bool = False
    restored: int | None = Field(None, description="The generation that was put back after a failed activation.")
    command: str | None = Field(None, description="What switches the machine, where this daemon may not.")
    home: str | None = Field(
        None, description="Whose home `path` is, instead of a system; its owner runs `PATH/activate`."
    )
    builds: tuple[str, ...] = Field(
        (), description="Derivations that were built, or of dry-build would be; at most 1000."
    )
    fetches: tuple[str, ...] = Field((), description="Of dry-build: what would be fetched; at most 1000.")
    derivation: str | None = Field(None, description="Of dry-build: what builds it, in the store.")
    output: str | None = Field(
        None, description="Of dry-build: the path that it builds to, whether that is there or not."
    )
    disabled: tuple[str, ...] = Field((), description="Packages that were disabled because they broke the evaluation.")


class Generation(Value):
    """One generation of the system of a host."""

    number: int
    created: str
    path: str | None = Field(None, description="The system in the store; none where only its tag is left.")
    commit: str | None = Field(None, description="What it was built from; none where it was built by hand.")
    subject: str | None = None
    transaction: str | None = None
    version: str | None = Field(None, description="The version of NixOS.")
    kernel: str | None = None
    current: bool = Field(False, description="Whether the profile names it.")
    active: bool = Field(False, description="Whether it is the running system.")
    booted: bool = Field(False, description="Whether the machine was booted with it.")
    size: int | None = Field(None, description="Bytes, with all that it needs; only where sizes were asked for.")


class StagedSystem(Value):
    """An update that is built, and that nobody has switched to yet."""

    commit: str
    path: str
    built: str = Field(description="When, to the millisecond: a generation of the same second may be older or newer.")


class Generations(Value):
    """The generations of a host, the newest first."""

    host: str
    generations: tuple[Generation, ...]
    staged: StagedSystem | None = Field(None, description="What a rebuild would switch to without building anything.")


class GenerationDifference(Value):
    """What differs between two generations."""

    host: str
    older: int
    newer: int
    commits: tuple[str, ...] = Field((), description="Commits from the one to the other, the newest first.")
    change: SystemChange


class LogPage(Value):
    """A part of the log of a transaction."""

    lines: tuple[str, ...]
    next: int | None = Field(None, description="Pass as `offset` to go on.")
    ended: bool = Field(description="Whether the transaction has ended, so that nothing more will come.")


class Outcome(Value):
    """What a transaction did, or in a dry run would do."""

    summary: str = Field(description="One sentence.")
    changed: bool = Field(description="Whether there was anything to do.")
    changes: tuple[Change, ...] = ()
    lock: tuple[LockChange, ...] = ()
    diff: str | None = Field(None, description="Unified diff of every file.")
    garbage: Garbage | None = Field(None, description="Of CollectGarbage: what was deleted, and what keeps the rest.")
    offers: tuple[str, ...] = Field(
        (),
        description="Of a folder that was taken over: packages of nixpkgs that its files install, and the manifest could.",
    )
    rebuild: Rebuilt | None = Field(None, description="What became of the machine, where that was asked for.")


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
    action: str | None = Field(
        None, description="What is rebuilt: switch, boot, test, build … after the commit, if any."
    )
    rebuilding: str | None = Field(
        None,
        description="The commit that is built, or switched to; of a way back to a generation, the one that it makes.",
    )
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


class BuildingNow(Value):
    """A derivation that is being built."""

    name: str
    phase: str | None = None
    line: str | None = Field(None, description="The last line of its log.")
    seconds: int = 0


class ProgressEvent(Value):
    """What a watcher is told: at most ten a second, the last one always."""

    transaction: str
    state: str
    step: str | None = None
    done: int | None = None
    expected: int | None = None
    percent: float | None = Field(None, description="Never falls; none while nobody can say.")
    phase: str | None = Field(None, description="evaluating, fetching, building or activating.")
    built: int | None = None
    to_build: int | None = None
    fetched: int | None = None
    to_fetch: int | None = None
    bytes_done: int | None = None
    bytes_expected: int | None = None
    current: tuple[BuildingNow, ...] | None = Field(
        None, description="What is being built, the longest first; at most 8."
    )
    elapsed: int | None = Field(None, description="Seconds since the rebuild began.")
    remaining: int | None = Field(None, description="A guess, in seconds.")
    lines: tuple[str, ...] = Field((), description="New lines of the log.")
