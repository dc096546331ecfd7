# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller may say to the operations that answer at once."""

# Annotations are values here: as text, pydantic would compile each of them when the model is made.
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from glixd.api.grammar import (
    CommitName,
    HostName,
    Line,
    PackageName,
    Parameters,
    Reference,
    Scope,
    TransactionId,
    UploadName,
    UserName,
)
from glixd.protocol import (
    MAX_GENERATION,
    MAX_LOG_OFFSET,
    MAX_OFFSET,
    MAX_REFERENCES,
    MAX_UPLOAD,
    PAGE_SIZE,
    UPLOAD_PIECE,
    State,
)


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
    interactive: bool = Field(
        False, description="Whether the caller may be asked for a password, for a transaction of somebody else."
    )


class WaitParameters(TransactionParameters):
    """Which transaction to wait for, and how long."""

    timeout: float = Field(300.0, gt=0, le=86400, description="Seconds to wait for the end.")


class LogParameters(TransactionParameters):
    """Which part of the log of a transaction."""

    offset: int = Field(0, ge=0, le=MAX_LOG_OFFSET, description="Go on here, as `next` of the answer before says.")
    limit: int = Field(PAGE_SIZE, ge=1, le=PAGE_SIZE, description="At most so many lines.")


class GenerationsParameters(Parameters):
    """Whose generations to list."""

    host: HostName | None = Field(None, description="The host; by default the machine of the daemon.")
    limit: int = Field(PAGE_SIZE, ge=1, le=PAGE_SIZE, description="At most so many, the newest first.")
    sizes: bool = Field(False, description="Say how large each is with all that it needs; this takes longer.")


class DiffGenerationsParameters(Parameters):
    """Which generations to compare."""

    host: HostName | None = Field(None, description="The host; by default the machine of the daemon.")
    older: int | None = Field(
        None, ge=1, le=MAX_GENERATION, description="By default the generation before the newer one."
    )
    newer: int | None = Field(None, ge=1, le=MAX_GENERATION, description="By default the current generation.")


class DoctorParameters(Parameters):
    """How thoroughly to look."""

    verify: bool = Field(False, description="Lock everything once more, to compare; this may need the network.")


class BundleParameters(Parameters):
    """Which piece of the bundle."""

    commit: CommitName | None = Field(None, description="The commit of the piece before; by default the newest one.")
    offset: int = Field(0, ge=0, le=2**40, description="The place where the piece begins.")


class UploadParameters(Parameters):
    """The next piece of a bundle."""

    data: Annotated[str, Field(max_length=4 * UPLOAD_PIECE // 3 + 4)] = Field(description="The bytes, in base 64.")
    upload: UploadName | None = Field(None, description="The upload that goes on; without it, a new one begins.")
    offset: int = Field(0, ge=0, le=MAX_UPLOAD, description="How many bytes of it were sent before.")
