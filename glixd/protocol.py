# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that both sides of the wire spell alike: bus names, states, error codes, exit codes, limits and places.

This is the only module of glixd that glixctl imports, so it uses the standard library alone and is cheap to load.
"""

from __future__ import annotations

import os
from enum import IntEnum, StrEnum

TYPE_CHECKING = False  # known to type checkers by this name; loading `typing` would cost every start of glixctl
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

VERSION: Final = "0.1.0"
COMMIT: Final = "unknown"
"""The commit this was built from; packaging replaces the word."""

DEFAULT_CORE_URL: Final = "github:glixos/glixd"
"""Where a new repository takes `glixos-core` from; every document quotes this constant."""
DEFAULT_NIXPKGS_URL: Final = "github:NixOS/nixpkgs/nixos-unstable"
DEFAULT_HOME_MANAGER_URL: Final = "github:nix-community/home-manager"

# -- the bus -----------------------------------------------------------------------------------------------------

BUS_NAME: Final = "org.glixos.Glix1"
OBJECT_PATH: Final = "/org/glixos/Glix1"
TRANSACTION_PATH: Final = OBJECT_PATH + "/Transaction"
MANAGER_INTERFACE: Final = BUS_NAME + ".Manager"
TRANSACTION_INTERFACE: Final = BUS_NAME + ".Transaction"
ERROR_PREFIX: Final = BUS_NAME + ".Error."
POLKIT_PREFIX: Final = "org.glixos.glix1."

# -- limits ------------------------------------------------------------------------------------------------------

MAX_BUS_MESSAGE: Final = 256 * 1024
"""Largest D-Bus message that is parsed, in bytes."""
MAX_JSON_MESSAGE: Final = 1024 * 1024
"""Largest JSON-RPC message that is parsed, in bytes."""
MAX_IMPORTED_FILES: Final = 256
"""Files of a folder that is taken over."""
MAX_IMPORTED_BYTES: Final = 160 * 1024
"""Bytes of all of them together: they travel in one message, also on the bus."""
MAX_IMPORTED_PATH: Final = 200
"""Characters of the path of such a file."""
MAX_REFERENCES: Final = 256
"""References in one request."""
MAX_REFERENCE_BYTES: Final = 512
MAX_PENDING: Final = 64
"""Transactions that wait or run, of all callers together; uid 0 keeps a reserve beyond it."""
MAX_PENDING_PER_UID: Final = 8
MAX_CONNECTIONS_PER_UID: Final = 32
MAX_CONNECTIONS: Final = 256
"""Connections of all uids but 0, which has its own beyond them."""
CALLS_PER_SECOND: Final = 20
"""Requests of one uid that cost more than a lookup, in the long run."""
CALLS_AT_ONCE: Final = 40
"""The same, in one burst."""
MAX_CHECKS_PER_UID: Final = 4
"""polkit checks in flight."""
PROGRESS_PER_SECOND: Final = 10
MAX_UPLOAD: Final = 16 * 1024 * 1024
"""Largest bundle of commits that a caller may bring, in bytes."""
UPLOAD_PIECE: Final = 96 * 1024
"""Bytes of a bundle in one message; they travel as base 64."""
MAX_OFFSET: Final = 10_000
"""How far a search can be paged."""
MAX_GENERATION: Final = 999_999
"""The highest number of a generation that can be named."""
MAX_LOG_OFFSET: Final = 1 << 40
PAGE_SIZE: Final = 1000
"""Entries of one page of a bulk answer, unless the caller asks for fewer."""


class State(StrEnum):
    """Where a transaction is. `commit` of a transaction is set from the commit point on, whatever its state."""

    PREPARING = "preparing"
    WAITING_FOR_AUTHORISATION = "waiting-for-authorisation"
    QUEUED = "queued"
    RUNNING = "running"
    ACTIVATING = "activating"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows this state."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Exit(IntEnum):
    """Exit codes of glixctl."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_AUTHORISED = 3
    NOT_FOUND = 4
    REFUSED = 5
    UNREACHABLE = 6
    NOTHING_TO_DO = 7
    UNITS_FAILED = 8
    REBOOT_NEEDED = 9
    DISMISSED = 10
    TIMED_OUT = 11
    UNAVAILABLE = 12
    INTERRUPTED = 130


class Activation(StrEnum):
    """How the activation of a system ended."""

    DONE = "done"
    UNITS_FAILED = "units-failed"
    """The system is switched, and some of its units failed."""
    REBOOT_NEEDED = "reboot-needed"
    """The system is switched, and part of it waits for a reboot."""
    FAILED = "failed"
    """The activation script failed: what runs is between the two systems."""

    @classmethod
    def of(cls, status: int) -> Activation:
        """What switch-to-configuration means by its exit status."""
        return {0: cls.DONE, 4: cls.UNITS_FAILED, 100: cls.REBOOT_NEEDED}.get(status, cls.FAILED)


class ErrorCode(StrEnum):
    """The name of every error, as it stands behind `org.glixos.Glix1.Error.` on the bus and in `data.name` on the socket."""

    INVALID_ARGUMENT = "InvalidArgument"
    UNKNOWN_OPERATION = "UnknownOperation"
    MALFORMED = "Malformed"
    AMBIGUOUS = "Ambiguous"
    CORE_TOO_OLD = "CoreTooOld"
    UNKNOWN_HOST = "UnknownHost"
    UNKNOWN_PACKAGE = "UnknownPackage"
    UNKNOWN_TRANSACTION = "UnknownTransaction"
    NOT_INSTALLED = "NotInstalled"
    ALREADY_INSTALLED = "AlreadyInstalled"
    BAD_REFERENCE = "BadReference"
    LOCAL_PATH_REFUSED = "LocalPathRefused"
    REFERENCE_MOVED = "ReferenceMoved"
    LOCK_FAILED = "LockFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    BUILD_FAILED = "BuildFailed"
    ACTIVATION_FAILED = "ActivationFailed"
    NO_REPOSITORY = "NoRepository"
    MANIFEST_INVALID = "ManifestInvalid"
    MANAGED_FILE_EDITED = "ManagedFileEdited"
    MANAGED_REGION_BROKEN = "ManagedRegionBroken"
    CONFLICT = "Conflict"
    NOTHING_TO_UNDO = "NothingToUndo"
    NOT_AUTHORISED = "NotAuthorised"
    AUTHORISATION_DISMISSED = "AuthorisationDismissed"
    AUTHORISATION_TIMED_OUT = "AuthorisationTimedOut"
    AUTHORISATION_UNAVAILABLE = "AuthorisationUnavailable"
    LIMIT_EXCEEDED = "LimitExceeded"
    TOO_LARGE = "TooLarge"
    NO_SPACE = "NoSpace"
    READ_ONLY = "ReadOnly"
    BUSY = "Busy"
    CANCELLED = "Cancelled"
    INTERRUPTED = "Interrupted"
    TIMED_OUT = "TimedOut"
    CONSENT_NEEDED = "ConsentNeeded"
    UNSUPPORTED_HERE = "UnsupportedHere"
    INTERNAL = "Internal"
    UNKNOWN_INPUT = "UnknownInput"
    UNKNOWN_GENERATION = "UnknownGeneration"


class ErrorEntry:
    """One row of the error table: n of the JSON-RPC code −32000−n, never reused, the exit code, and what it means."""

    __slots__ = ("exit_code", "meaning", "number")

    def __init__(self, number: int, exit_code: Exit, meaning: str) -> None:
        self.number = number
        self.exit_code = exit_code
        self.meaning = meaning


ERRORS: Final[Mapping[ErrorCode, ErrorEntry]] = {
    ErrorCode.INVALID_ARGUMENT: ErrorEntry(
        1, Exit.USAGE, "An argument or option is not of its form; names which and why."
    ),
    ErrorCode.UNKNOWN_OPERATION: ErrorEntry(2, Exit.USAGE, "No operation has that name."),
    ErrorCode.MALFORMED: ErrorEntry(3, Exit.USAGE, "The message is no valid request."),
    ErrorCode.AMBIGUOUS: ErrorEntry(4, Exit.REFUSED, "A name means several packages; lists the command for each."),
    ErrorCode.CORE_TOO_OLD: ErrorEntry(5, Exit.REFUSED, "The locked core lacks a feature that the change needs."),
    ErrorCode.UNKNOWN_HOST: ErrorEntry(
        6, Exit.NOT_FOUND, "No host of that name is in the repository; lists the known ones."
    ),
    ErrorCode.UNKNOWN_PACKAGE: ErrorEntry(7, Exit.NOT_FOUND, "No source knows the name; lists the closest ones."),
    ErrorCode.UNKNOWN_TRANSACTION: ErrorEntry(8, Exit.NOT_FOUND, "No transaction has that id."),
    ErrorCode.NOT_INSTALLED: ErrorEntry(9, Exit.NOT_FOUND, "The manifest of the host has no such package."),
    ErrorCode.ALREADY_INSTALLED: ErrorEntry(10, Exit.REFUSED, "The manifest of the host already has that name."),
    ErrorCode.BAD_REFERENCE: ErrorEntry(11, Exit.REFUSED, "The text is no flake reference that may be used."),
    ErrorCode.LOCAL_PATH_REFUSED: ErrorEntry(12, Exit.REFUSED, "A local path needs consent or is not for this caller."),
    ErrorCode.REFERENCE_MOVED: ErrorEntry(13, Exit.REFUSED, "What was locked is not what was resolved and authorised."),
    ErrorCode.LOCK_FAILED: ErrorEntry(14, Exit.FAILED, "nix could not lock the inputs; carries nix's own words."),
    ErrorCode.EVALUATION_FAILED: ErrorEntry(15, Exit.FAILED, "The configuration of a host does not evaluate."),
    ErrorCode.BUILD_FAILED: ErrorEntry(16, Exit.FAILED, "A derivation did not build."),
    ErrorCode.ACTIVATION_FAILED: ErrorEntry(17, Exit.FAILED, "The activation script failed."),
    ErrorCode.NO_REPOSITORY: ErrorEntry(18, Exit.NOT_FOUND, "There is no repository yet; `init` makes one."),
    ErrorCode.MANIFEST_INVALID: ErrorEntry(
        19, Exit.REFUSED, "A glix.toml is broken; names the path, the line and the reason."
    ),
    ErrorCode.MANAGED_FILE_EDITED: ErrorEntry(
        20, Exit.REFUSED, "A managed file was edited by hand; names it and how to adopt it."
    ),
    ErrorCode.MANAGED_REGION_BROKEN: ErrorEntry(
        21, Exit.REFUSED, "The markers of a managed region are missing or out of order."
    ),
    ErrorCode.CONFLICT: ErrorEntry(22, Exit.REFUSED, "The change contradicts what is there."),
    ErrorCode.NOTHING_TO_UNDO: ErrorEntry(23, Exit.NOTHING_TO_DO, "There is no change that a rollback could undo."),
    ErrorCode.NOT_AUTHORISED: ErrorEntry(24, Exit.NOT_AUTHORISED, "The caller may not do that."),
    ErrorCode.AUTHORISATION_DISMISSED: ErrorEntry(25, Exit.DISMISSED, "The password dialogue was closed."),
    ErrorCode.AUTHORISATION_TIMED_OUT: ErrorEntry(26, Exit.TIMED_OUT, "Nobody answered the password dialogue in time."),
    ErrorCode.AUTHORISATION_UNAVAILABLE: ErrorEntry(
        27, Exit.UNAVAILABLE, "polkit is not there, or nobody can be asked."
    ),
    ErrorCode.LIMIT_EXCEEDED: ErrorEntry(28, Exit.FAILED, "The caller has too much under way; says the limit."),
    ErrorCode.TOO_LARGE: ErrorEntry(29, Exit.REFUSED, "The message or a part of it is over its limit."),
    ErrorCode.NO_SPACE: ErrorEntry(30, Exit.FAILED, "The file system has too little room."),
    ErrorCode.READ_ONLY: ErrorEntry(
        31, Exit.FAILED, "The repository can't be written, or is damaged; nothing is changed."
    ),
    ErrorCode.BUSY: ErrorEntry(32, Exit.FAILED, "Somebody else holds the repository; names the lock."),
    ErrorCode.CANCELLED: ErrorEntry(33, Exit.INTERRUPTED, "The transaction was cancelled before its commit point."),
    ErrorCode.INTERRUPTED: ErrorEntry(34, Exit.FAILED, "The daemon ended in the middle; nothing was changed."),
    ErrorCode.TIMED_OUT: ErrorEntry(35, Exit.FAILED, "The time given to wait is over; the transaction goes on."),
    ErrorCode.CONSENT_NEEDED: ErrorEntry(
        36, Exit.REFUSED, "The change needs a consent; names the option that gives it."
    ),
    ErrorCode.UNSUPPORTED_HERE: ErrorEntry(37, Exit.FAILED, "This machine or mode can't do that; says what can."),
    ErrorCode.UNKNOWN_INPUT: ErrorEntry(39, Exit.NOT_FOUND, "flake.lock has no such input; lists the closest ones."),
    ErrorCode.UNKNOWN_GENERATION: ErrorEntry(
        40, Exit.NOT_FOUND, "The host has no such generation; lists the known ones."
    ),
    ErrorCode.INTERNAL: ErrorEntry(
        38, Exit.FAILED, "A defect of glixd; the journal has the rest under the transaction."
    ),
}


def json_code(code: ErrorCode) -> int:
    """The JSON-RPC code of an error: the specification's own where it has one, −32000−n otherwise."""
    match code:
        case ErrorCode.MALFORMED:
            return -32600
        case ErrorCode.UNKNOWN_OPERATION:
            return -32601
        case ErrorCode.INVALID_ARGUMENT:
            return -32602
        case _:
            return -32000 - ERRORS[code].number


# -- places ------------------------------------------------------------------------------------------------------

SYSTEM_SOCKET: Final = "/run/glixd/rpc.sock"
SYSTEM_REPOSITORY: Final = "/var/lib/glixd/repo"
SYSTEM_SETTINGS: Final = "/etc/glixd/config.toml"
SYSTEM_WISHES: Final = "/run/glixd-activate"
"""Where root says which transactions of its own may switch the machine."""
SYSTEM_EXPORT: Final = "/etc/glixos"
"""Where everybody may read what the system's repository says."""
COPIED_REVISION: Final = ".glixd-revision"
"""The file in there that says which commit that is."""


def user_repository(environment: Mapping[str, str]) -> str:
    """The repository of user mode: `$GLIX_ROOT`, else `$XDG_CONFIG_HOME/glixos`, else `~/.config/glixos`."""
    if root := environment.get("GLIX_ROOT"):
        return os.path.abspath(root)
    return _unnamed(environment)


def _unnamed(environment: Mapping[str, str]) -> str:
    """The repository of a user who has named none."""
    return os.path.join(_xdg(environment, "XDG_CONFIG_HOME", ".config"), "glixos")


def user_runtime(environment: Mapping[str, str]) -> str:
    """The folder of user mode's sockets: `$XDG_RUNTIME_DIR/glixd`, else `~/.cache/glixd/run`."""
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "glixd")
    return os.path.join(_home(environment), ".cache", "glixd", "run")


def user_state(environment: Mapping[str, str], repository: str) -> str:
    """The folder where user mode keeps the history and caches of one repository."""
    return os.path.join(
        _xdg(environment, "XDG_STATE_HOME", os.path.join(".local", "state")), "glixd", repository_key(repository)
    )


def user_socket(environment: Mapping[str, str], repository: str | None = None) -> str:
    """The socket of the daemon of `repository`, by default of `user_repository`.

    It depends on the repository's place alone, however that was named: `rpc.sock` stands for the one that nobody has to name.
    """
    runtime = user_runtime(environment)
    repository = repository or user_repository(environment)
    if os.path.realpath(repository) == os.path.realpath(_unnamed(environment)):
        return os.path.join(runtime, "rpc.sock")
    return os.path.join(runtime, repository_key(repository) + ".sock")


def repository_key(repository: str) -> str:
    """Sixteen hex digits that stand for the path of a repository, symbolic links resolved."""
    import hashlib  # loads OpenSSL: only callers with a repository of their own pay for it

    return hashlib.sha256(os.fsencode(os.path.realpath(repository))).hexdigest()[:16]


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> str:
    value = environment.get(variable, "")
    return value if os.path.isabs(value) else os.path.join(_home(environment), fallback)
