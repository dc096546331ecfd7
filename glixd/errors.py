# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can go wrong, as one tree.

    GlixError                    a sentence, maybe a hint, facts; carries a protocol.ErrorCode
    ├── InvalidRequest           the request itself: InvalidArgument, BadReference, LocalPathRefused, TooLarge, Malformed …
    ├── NotFound                 UnknownHost, UnknownPackage, NotInstalled, NoRepository …
    ├── Refused                  what is there forbids it: AlreadyInstalled, Ambiguous, Conflict, ManagedFileEdited …
    ├── NotAllowed               the four answers of authorisation
    ├── Failed                   nix, git or the disk: LockFailed, EvaluationFailed, NoSpace, Busy …
    └── Cancelled                somebody asked to stop, or the daemon did

A class is what code reacts to; the code inside it is what callers and scripts react to. Errors are translated only at a
front-end (to the wire) and in glixctl (to a sentence and an exit code).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from glixd.protocol import ErrorCode

Detail = str | int | bool | list[str]
"""What a detail of an error may be: only what every transport can carry as it is."""


class GlixError(Exception):
    """An error that is told to the caller: what was wrong, where, and what to do about it."""

    default: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        hint: str = "",
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default
        self.message = message
        self.hint = hint
        self.details: dict[str, Detail] = dict(details or {})


class InvalidRequest(GlixError):
    """The request is refused for what it says; nothing was looked at or touched."""

    default = ErrorCode.INVALID_ARGUMENT


class NotFound(GlixError):
    """Something the request names does not exist."""

    default = ErrorCode.UNKNOWN_PACKAGE


class Refused(GlixError):
    """The request is well formed, but what is there forbids it."""

    default = ErrorCode.CONFLICT


class NotAllowed(GlixError):
    """The caller may not do it, or could not be asked."""

    default = ErrorCode.NOT_AUTHORISED


class Failed(GlixError):
    """Something outside failed: nix, git, the file system."""

    default = ErrorCode.INTERNAL


class Cancelled(GlixError):
    """The transaction was stopped before its commit point; everything is as it was."""

    default = ErrorCode.CANCELLED


def invalid(argument: str, why: str, *, hint: str = "", others: Sequence[str] = ()) -> InvalidRequest:
    """An InvalidArgument error that names the argument and the reason; `others` are arguments that the reason names."""
    details: dict[str, Detail] = {"argument": argument, "reason": why}
    if others:
        details["others"] = list(others)
    return InvalidRequest(f"{argument}: {why}", hint=hint, details=details)


@contextmanager
def naming_part(number: int) -> Iterator[None]:
    """Let an error say which part of a batch it is about."""
    try:
        yield
    except GlixError as error:
        details = {**error.details, "part": number}
        message = f"operations.{number}: {error.message}"
        raise type(error)(message, code=error.code, hint=error.hint, details=details) from error
