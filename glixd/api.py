# SPDX-License-Identifier: GPL-3.0-or-later
"""THE TABLE: one row per operation, with its parameters, its result and the policy that guards it.

From it come the D-Bus methods and their introspection, the JSON-RPC methods, the check that every operation has a policy,
the reference documentation and the shell completion. Required parameters are typed arguments in order; every optional one
travels by name (on the bus in the last argument, `a{sv} options`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from glixd.errors import InvalidRequest, invalid
from glixd.protocol import MAX_OFFSET, MAX_REFERENCE_BYTES, MAX_REFERENCES, PAGE_SIZE, ErrorCode, State

# -- grammars ----------------------------------------------------------------------------------------------------

PACKAGE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127}", re.ASCII)
HOST_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}\$?", re.ASCII)
SYSTEM: Final = re.compile(r"(x86_64|aarch64|i686|armv6l|armv7l|riscv64|powerpc64le|loongarch64)-linux", re.ASCII)
CHANGE_KEY: Final = re.compile(r"[a-z][a-z_]{0,63}|config\.[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
COMMIT_NAME: Final = re.compile(r"[0-9a-f]{4,64}", re.ASCII)
DAYS: Final = re.compile(r"[1-9][0-9]{0,4}d", re.ASCII)
TRANSACTION_ID: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)


class Scope(StrEnum):
    """Where a package goes: the system of a host, or the home of one user on it."""

    SYSTEM = "system"
    HOME = "home"


class Consent(StrEnum):
    """What nixpkgs refuses unless somebody consents; the value is what the package is."""

    UNFREE = "unfree"
    INSECURE = "insecure"
    BROKEN = "broken"

    @property
    def setting(self) -> str:
        """The key of the manifest's settings, and the parameter of Add, that gives the consent."""
        return f"allow_{self.value}"

    @property
    def flag(self) -> str:
        """The flag of glixctl that gives it."""
        return f"--allow-{self.value}"


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{_shown(text)} is not {what}")
        return text

    return AfterValidator(check)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{_shown(text)} has characters that can't be printed; use one line of plain text")
    return text


def _bounded(text: str) -> str:
    if len(text.encode()) > MAX_REFERENCE_BYTES:
        raise ValueError(f"a reference has at most {MAX_REFERENCE_BYTES} bytes")
    return text


def _text(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError(f"{_shown(text)} has control characters; only line ends and tabs may be in it")
    return text


def _shown(text: str) -> str:
    """A piece of the caller's input, short and safe to print; what has to be escaped takes more room than it had."""
    shown = ascii(text if len(text) <= 60 else text[:57] + "…")
    return shown if len(shown) <= 200 else shown[:199] + "…"


PackageName = Annotated[
    str,
    _matching(
        PACKAGE_NAME, "a package name: start with a letter, digit or _, then letters, digits and _ + . -, at most 128"
    ),
]
HostName = Annotated[
    str, _matching(HOST_NAME, "a host name: lower-case letters, digits and -, at most 63, no - in front")
]
UserName = Annotated[str, _matching(USER_NAME, "a user name: lower-case letters, digits, _ and -, at most 31")]
System = Annotated[str, _matching(SYSTEM, "a Linux system that Nix knows, such as x86_64-linux or aarch64-linux")]
TransactionId = Annotated[str, _matching(TRANSACTION_ID, "a transaction id: 26 lower-case letters and digits")]
Reference = Annotated[
    str, Field(min_length=1, max_length=MAX_REFERENCE_BYTES), AfterValidator(_bounded), AfterValidator(_printable)
]
Line = Annotated[str, Field(max_length=256), AfterValidator(_printable)]
"""One line of plain text."""
CommitName = Annotated[str, _matching(COMMIT_NAME, "a commit: 4 to 64 hexadecimal digits")]


InputName = Annotated[str, _matching(PACKAGE_NAME, "the name of an input or a package")]
ChangeKey = Annotated[
    str, _matching(CHANGE_KEY, "a key: letters, digits, _ and -, and for the configuration of a package config.NAME")
]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_text)]
"""Text of several lines."""
Changes = dict[ChangeKey, Text]


class Value(BaseModel):
    """A frozen value that crosses the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Parameters(Value):
    """What a caller may say to an operation."""


class MutationParameters(Parameters):
    """What every mutation understands."""

    host: HostName | None = Field(None, description="The host to change; by default the machine of the daemon.")
    dry_run: bool = Field(False, description="Do everything but the commit, and answer with the diff.")
    evaluate: bool = Field(True, description="Evaluate the configuration of the host with the change.")
    interactive: bool = Field(False, description="Whether the caller may be asked for a password.")
    reason: Line | None = Field(None, description="Why, in one line; it becomes part of the commit message.")


# -- parameters --------------------------------------------------------------------------------------------------


class Nothing(Parameters):
    """No parameters."""


class PackageState(StrEnum):
    """Whether a package is installed or only kept in the manifest."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class Order(StrEnum):
    """What a list of packages is sorted by."""

    NAME = "name"
    SCOPE = "scope"
    USER = "user"
    FLAKE = "flake"


class ListParameters(Parameters):
    """Which packages to list."""

    host: HostName | None = Field(None, description="The host to list; by default the machine of the daemon.")
    all_hosts: bool = Field(False, description="List every host of the repository.")
    include_disabled: bool = Field(False, description="List disabled packages too.")
    limit: int = Field(PAGE_SIZE, ge=1, le=PAGE_SIZE, description="At most so many entries.")
    after: Line | None = Field(None, description="Go on behind this cursor, taken from `next` of the answer before.")
    scope: Annotated[Scope, Field(strict=False)] | None = Field(None, description="Only system, or only home.")
    user: UserName | None = Field(None, description="Only packages in the home of this user.")
    state: Annotated[PackageState, Field(strict=False)] | None = Field(
        None, description="Only enabled or only disabled ones; disabled ones are listed then without asking for them."
    )
    text: Line | None = Field(None, description="Only packages with this in their name or reference, in any case.")
    sort: Annotated[Order, Field(strict=False)] | None = Field(
        None, description="name, scope, user or flake, over all hosts; by default host by host, by name."
    )


class ShowParameters(Parameters):
    """Which package to show."""

    name: PackageName = Field(description="The package, as the manifest calls it.")
    host: HostName | None = Field(None, description="The host; by default the machine of the daemon.")


class ResolveParameters(Parameters):
    """What to resolve."""

    refs: tuple[Reference, ...] = Field(
        min_length=1, max_length=MAX_REFERENCES, description="Names or flake references."
    )
    host: HostName | None = Field(
        None, description="The host whose nixpkgs is asked; by default the machine of the daemon."
    )


class SearchParameters(Parameters):
    """What to search for."""

    query: Annotated[Line, Field(min_length=1)] = Field(description="A name, or words of names and descriptions.")
    host: HostName | None = Field(
        None, description="The host whose nixpkgs is searched; by default the machine of the daemon."
    )
    limit: int = Field(20, ge=1, le=PAGE_SIZE, description="At most so many, the best first.")
    offset: int = Field(
        0, ge=0, le=MAX_OFFSET, description="Go on behind so many, as `next` of the answer before says."
    )


class RefreshIndexParameters(Parameters):
    """Which index to build, and how long to wait for it."""

    host: HostName | None = Field(
        None, description="The host whose nixpkgs is indexed; by default the machine of the daemon."
    )
    timeout: float = Field(0.0, ge=0, le=86400, description="Seconds to wait until it is built.")


class RegistriesParameters(Parameters):
    """Whose registries."""

    host: HostName | None = Field(
        None, description="The host that may name one of its own; by default the machine of the daemon."
    )


class ShowRegistryParameters(RegistriesParameters):
    """Which registry, and which part of it."""

    url: Reference = Field(description="The URL of the registry.")
    limit: int = Field(PAGE_SIZE, ge=1, le=PAGE_SIZE, description="At most so many entries, by name.")
    after: PackageName | None = Field(None, description="Go on behind this name.")


class HistoryParameters(Parameters):
    """Which part of the history."""

    limit: int = Field(50, ge=1, le=PAGE_SIZE, description="At most so many commits, the newest first.")
    before: CommitName | None = Field(None, description="Only commits before this one.")
    host: HostName | None = Field(None, description="Only commits that changed something of this host.")
    name: PackageName | None = Field(
        None, description="Only commits that changed this package, of the host or else of the daemon's machine."
    )


class DiffParameters(Parameters):
    """What to compare."""

    before: CommitName | None = Field(None, description="The older side; by default the newest commit.")
    commit: CommitName | None = Field(None, description="The newer side; by default the work tree.")
    host: HostName | None = Field(None, description="Only files of this host.")
    after: Annotated[str, Field(max_length=4096)] | None = Field(
        None, description="Go on behind this file, taken from `next` of the answer before."
    )


class ListTransactionsParameters(Parameters):
    """Which transactions to list."""

    states: tuple[Annotated[State, Field(strict=False)], ...] = Field(
        (), description="Only these states; none means all."
    )
    limit: int = Field(50, ge=1, le=PAGE_SIZE, description="At most so many, the newest first.")


class TransactionParameters(Parameters):
    """Which transaction."""

    transaction: TransactionId = Field(description="The id of the transaction.")


class WaitParameters(TransactionParameters):
    """Which transaction to wait for, and how long."""

    timeout: float = Field(300.0, gt=0, le=86400, description="Seconds to wait for the end.")


class DoctorParameters(Parameters):
    """How thoroughly to look."""

    verify: bool = Field(False, description="Lock everything once more, to compare; this may need the network.")


class InitParameters(MutationParameters):
    """The host to add, and where a new repository takes its inputs from."""

    user: UserName | None = Field(None, description="The primary user of the host; by default the caller.")
    system: System | None = Field(
        None, description="The Nix system of the host; by default that of the daemon's machine."
    )
    nixpkgs: Reference | None = Field(None, description="Flake URL of nixpkgs, for a new repository.")
    core: Reference | None = Field(None, description="Flake URL of glixos-core, for a new repository.")
    home_manager: Reference | None = Field(
        None, description="Flake URL of home-manager, or `none`, for a new repository."
    )


class AddParameters(MutationParameters):
    """What to add, and how."""

    refs: tuple[Reference, ...] = Field(
        min_length=1, max_length=MAX_REFERENCES, description="Names or flake references."
    )
    scope: Annotated[Scope, Field(strict=False)] | None = Field(
        None, description="system or home; by default that of the host."
    )
    user: UserName | None = Field(None, description="Whose home; by default the primary user. Means scope home.")
    pin: Reference | None = Field(None, description="A commit, tag or branch to stay on.")
    name: PackageName | None = Field(None, description="What the manifest calls it; only with a single reference.")
    follows: bool = Field(True, description="Let the input follow the host's nixpkgs.")
    allow_local: bool = Field(False, description="Consent to an absolute local path.")
    allow_unfree: bool = Field(False, description="Consent to packages with an unfree licence.")
    allow_insecure: bool = Field(False, description="Consent to packages with known vulnerabilities.")
    allow_broken: bool = Field(False, description="Consent to packages that are marked as broken.")


class NamesParameters(MutationParameters):
    """Which packages of the host."""

    names: tuple[PackageName, ...] = Field(
        min_length=1, max_length=MAX_REFERENCES, description="Packages of the manifest."
    )


class SetParameters(MutationParameters):
    """Which package to change, and how."""

    name: PackageName = Field(description="The package, as the manifest calls it.")
    changes: Changes = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="New values by key: flake, scope, enabled, pin, user, follows, config.NAME. An empty value clears the key.",
    )
    allow_local: bool = Field(False, description="Consent to an absolute local path.")


class MoveParameters(NamesParameters):
    """Which packages to move, and where to."""

    scope: Annotated[Scope, Field(strict=False)] = Field(Scope.SYSTEM, description="system, or home.")
    user: UserName | None = Field(None, description="Whose home; by default the primary user. Means scope home.")


class SetHostParameters(MutationParameters):
    """Which settings of the host to change."""

    changes: Changes = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="New values by key: system, primary_user, default_scope, state_version, auto_apply, registry_url. "
        "An empty value clears the key.",
    )


class RemoveHostParameters(MutationParameters):
    """Which host to take out."""

    name: HostName = Field(description="The host to take out, with everything in its folder.")


class RenameHostParameters(RemoveHostParameters):
    """Which host to rename."""

    name: HostName = Field(description="The host to rename.")
    to: HostName = Field(description="Its new name.")


class UpdateParameters(MutationParameters):
    """Which inputs to update."""

    inputs: tuple[InputName, ...] = Field(
        (), max_length=MAX_REFERENCES, description="Inputs, or packages that come from one; none means all inputs."
    )


class AdoptParameters(MutationParameters):
    """Which edits to commit."""

    message: Line | None = Field(None, description="What the edits are about; it becomes part of the commit message.")
    everything: bool = Field(
        False, description="Commit the edits of every file that git tracks, not only of managed ones."
    )


class ApplyParameters(MutationParameters):
    """Several changes as one."""

    operations: tuple[dict[str, object], ...] = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="One after the other: `operation` is Add, Remove, Enable, Disable, Set, Move or SetHost, "
        "beside its own parameters.",
    )


class RollbackParameters(MutationParameters):
    """How far to go back."""

    steps: int | None = Field(None, ge=1, le=PAGE_SIZE, description="How many changes to undo; by default one.")
    to_commit: Annotated[str, _matching(COMMIT_NAME, "a commit: 4 to 64 hexadecimal digits")] | None = Field(
        None, description="Undo every change after this commit."
    )


class CollectGarbageParameters(MutationParameters):
    """Which old generations go before what nothing uses is deleted; by default none."""

    keep: int | None = Field(None, ge=1, le=PAGE_SIZE, description="Delete all but the newest so many of each profile.")
    older_than: Annotated[str, _matching(DAYS, "a number of days, such as 30d")] | None = Field(
        None, description="Delete those that have not been in use for so long, such as 30d."
    )
    delete_old: bool = Field(False, description="Delete all but the current one of each profile.")


class RegenerateParameters(MutationParameters):
    """Nothing beyond what every mutation takes."""


# -- results -----------------------------------------------------------------------------------------------------


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
    details: dict[str, str | int | bool | list[str]] = {}


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


# -- who asks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel or the bus says it; never as the request says it."""

    uid: int
    login: str
    address: str
    """The unique bus name, or `socket:<n>`: the subject of an authorisation, and the key of limits per connection."""


# -- the table ---------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """Whether an operation answers at once, or starts a transaction."""

    QUERY = "query"
    MUTATION = "mutation"


class Policy(StrEnum):
    """The rule of policy.py that guards an operation."""

    READ = "read"
    """Names, versions and hosts: open to every local caller."""
    READ_TRANSACTION = "read-transaction"
    CANCEL = "cancel"
    HOST_MANAGE = "host-manage"
    ADOPT = "adopt"
    UPDATE = "update"
    ROLLBACK = "rollback"
    INSTALL = "install"
    REMOVE = "remove"
    CONFIGURE = "configure"
    GARBAGE = "garbage"


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    name: str
    kind: Kind
    parameters: type[Parameters]
    result: type[Value]
    policy: Policy
    summary: str


def _query(name: str, parameters: type[Parameters], result: type[Value], policy: Policy, summary: str) -> Operation:
    return Operation(name, Kind.QUERY, parameters, result, policy, summary)


def _mutation(name: str, parameters: type[MutationParameters], policy: Policy, summary: str) -> Operation:
    return Operation(name, Kind.MUTATION, parameters, Started, policy, summary)


_ROWS: Final = (
    _query("Ping", Nothing, PingResult, Policy.READ, "Say that the daemon is there, and its version."),
    _query("GetCapabilities", Nothing, Capabilities, Policy.READ, "Say what this daemon is and can do."),
    _query("ListHosts", Nothing, Hosts, Policy.READ, "List the hosts of the repository."),
    _query("List", ListParameters, Packages, Policy.READ, "List the packages of a host, or of all."),
    _query(
        "Show", ShowParameters, PackageDetails, Policy.READ, "Show one package with everything that is known of it."
    ),
    _query("Info", Nothing, Info, Policy.READ, "Describe the repository, its hosts and its inputs."),
    _query(
        "Resolve",
        ResolveParameters,
        Resolutions,
        Policy.READ,
        "Say what names and references mean, without changing anything.",
    ),
    _query("ListInputs", Nothing, Inputs, Policy.READ, "List the inputs as they are locked, with who uses them."),
    _query(
        "Diff",
        DiffParameters,
        Difference,
        Policy.READ,
        "Compare the work tree with a commit, or two commits with each other.",
    ),
    _query("Doctor", DoctorParameters, Diagnosis, Policy.READ, "Look for what is wrong, and say how to mend it."),
    _query("History", HistoryParameters, Histories, Policy.READ, "List the commits, the newest first."),
    _query("ListTransactions", ListTransactionsParameters, Transactions, Policy.READ_TRANSACTION, "List transactions."),
    _query("GetTransaction", TransactionParameters, Transaction, Policy.READ_TRANSACTION, "Show one transaction."),
    _query("Watch", TransactionParameters, Empty, Policy.READ_TRANSACTION, "Send me the progress of a transaction."),
    _query(
        "Unwatch",
        TransactionParameters,
        Empty,
        Policy.READ_TRANSACTION,
        "Stop sending me the progress of a transaction.",
    ),
    _query("Wait", WaitParameters, Transaction, Policy.READ_TRANSACTION, "Answer when a transaction has ended."),
    _query(
        "Cancel",
        TransactionParameters,
        Empty,
        Policy.CANCEL,
        "Stop a transaction that has not reached its commit point.",
    ),
    _query("Search", SearchParameters, Matches, Policy.READ, "Find packages that could be added."),
    _query(
        "RefreshIndex", RefreshIndexParameters, IndexStatus, Policy.READ, "Build the package index if it is missing."
    ),
    _query("ListRegistries", RegistriesParameters, RegistryList, Policy.READ, "List the registries of short names."),
    _query("RefreshRegistries", RegistriesParameters, RegistryList, Policy.READ, "Ask the registries for what is new."),
    _query("ShowRegistry", ShowRegistryParameters, RegistryPage, Policy.READ, "Show what a registry lists."),
    _mutation("Init", InitParameters, Policy.HOST_MANAGE, "Make the repository, or add a host to it."),
    _mutation("Add", AddParameters, Policy.INSTALL, "Add packages to a host."),
    _mutation("Remove", NamesParameters, Policy.REMOVE, "Remove packages from a host."),
    _mutation("Enable", NamesParameters, Policy.CONFIGURE, "Enable packages of a host."),
    _mutation("Disable", NamesParameters, Policy.CONFIGURE, "Disable packages of a host and keep their entries."),
    _mutation("Set", SetParameters, Policy.CONFIGURE, "Change keys of one package of a host."),
    _mutation("Move", MoveParameters, Policy.CONFIGURE, "Move packages of a host to its system or to a home."),
    _mutation("SetHost", SetHostParameters, Policy.HOST_MANAGE, "Change settings of a host."),
    _mutation("RemoveHost", RemoveHostParameters, Policy.HOST_MANAGE, "Take a host out of the repository."),
    _mutation("RenameHost", RenameHostParameters, Policy.HOST_MANAGE, "Give a host another name."),
    _mutation("Update", UpdateParameters, Policy.UPDATE, "Lock inputs anew, at their newest revision."),
    _mutation("Adopt", AdoptParameters, Policy.ADOPT, "Commit what people edited in the work tree."),
    _mutation("Apply", ApplyParameters, Policy.CONFIGURE, "Make several changes as one, in one commit."),
    _mutation("Rollback", RollbackParameters, Policy.ROLLBACK, "Undo changes that were made through glixd."),
    _mutation(
        "CollectGarbage", CollectGarbageParameters, Policy.GARBAGE, "Delete old generations and what nothing uses."
    ),
    _mutation("Regenerate", RegenerateParameters, Policy.CONFIGURE, "Rewrite the managed regions from the manifests."),
)

OPERATIONS: Final[Mapping[str, Operation]] = {row.name: row for row in _ROWS}


def operation(name: str) -> Operation:
    """The row of that name; raises UnknownOperation."""
    if row := OPERATIONS.get(name):
        return row
    import difflib

    near = difflib.get_close_matches(name, OPERATIONS, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "GetCapabilities lists them."
    raise InvalidRequest(f"There is no operation {_shown(name)}.", code=ErrorCode.UNKNOWN_OPERATION, hint=hint)


def parse(row: Operation, arguments: Mapping[str, object]) -> Parameters:
    """The frozen request that `arguments` spell; raises InvalidArgument that names the first bad one and why."""
    unknown = [name for name in arguments if name not in row.parameters.model_fields]
    if unknown:
        known = ", ".join(row.parameters.model_fields) or "none"
        raise invalid(_shown(unknown[0]), f"{row.name} has no such parameter", hint=f"It knows: {known}.")
    try:
        return row.parameters.model_validate({name: _frozen(value) for name, value in arguments.items()})
    except ValidationError as error:
        raise _explained(error) from None


def required(parameters: type[Parameters]) -> list[str]:
    """The parameters that must be given, in the order in which the bus takes them."""
    return [name for name, field in parameters.model_fields.items() if field.is_required()]


def optional(parameters: type[Parameters]) -> list[str]:
    """The parameters that travel by name."""
    return [name for name, field in parameters.model_fields.items() if not field.is_required()]


def _frozen(value: object) -> object:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid("text", "it holds a lone surrogate and is no Unicode text") from None
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(_frozen(item) for item in value)
    return value


def _shown_key(key: str) -> str:
    """A step on the way to a wrong value; it may be a key that the caller made up."""
    return key if key.isprintable() and len(key) <= 60 else _shown(key)


def _explained(error: ValidationError) -> InvalidRequest:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    argument = ".".join(_shown_key(str(part)) for part in first["loc"]) or "request"
    if first["type"] == "missing":
        return invalid(argument, "it is missing")
    return invalid(argument, str(first["msg"]).removeprefix("Value error, "))
