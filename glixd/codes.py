# SPDX-License-Identifier: GPL-3.0-or-later
"""States, errors and how an activation ended: the words of the wire that are more than words.

`glixd.protocol` has them too, and loads this module when the first of them is wanted: a command that goes well needs none of
them, and what enumerations are made with takes a quarter of its start.
"""

from __future__ import annotations

from enum import StrEnum

from glixd import protocol
from glixd.protocol import Exit

TYPE_CHECKING = False  # known to type checkers by this name; loading `typing` would cost every start of glixctl
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final


class State(StrEnum):
    """Where a transaction is. `commit` of a transaction is set from the commit point on, whatever its state."""

    PREPARING = "preparing"
    WAITING_FOR_AUTHORISATION = protocol.WAITING_FOR_AUTHORISATION
    QUEUED = "queued"
    RUNNING = "running"
    ACTIVATING = "activating"
    SUCCEEDED = protocol.SUCCEEDED
    FAILED = protocol.FAILED
    CANCELLED = protocol.CANCELLED

    @property
    def final(self) -> bool:
        """Whether nothing follows this state."""
        return self in protocol.ENDS


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

    def __init__(self, number: int, exit_code: int, meaning: str) -> None:
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
