# SPDX-License-Identifier: GPL-3.0-or-later
"""What glixctl tells the person when something went wrong: a sentence, maybe a hint, and an exit code.

ClientError            whatever ends a command
├── UsageError         the command line itself
└── Unreachable        the daemon can't be asked
    ├── NotListening   nobody answers there: the user's daemon may be started
    └── Disconnected   the daemon went away before it had answered

The table of errors is loaded where something went wrong.
"""

from __future__ import annotations

from glixd.protocol import Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from glixd.protocol import ErrorCode

UNREACHABLE = "Unreachable"
"""The name of the errors that come from no daemon."""
TARGET_UNREACHABLE = "TargetUnreachable"
"""The name of the error of another machine that ssh does not reach."""


class ClientError(Exception):
    """An error with its name on the wire, its sentence, its hint and its exit code."""

    def __init__(
        self,
        message: str,
        *,
        name: str,
        exit_code: int,
        hint: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.exit_code = exit_code
        self.hint = hint
        self.details = dict(details or {})

    @classmethod
    def from_wire(cls, error: Mapping[str, Any]) -> ClientError:
        """The error whose name, message, hint and details the daemon sent; an unknown name is a plain failure."""
        from glixd.protocol import ERRORS, ErrorCode

        name = str(error.get("name") or ErrorCode.INTERNAL)
        code = _known(name)
        return cls(
            str(error.get("message") or "The daemon gave no reason."),
            name=name,
            exit_code=ERRORS[code].exit_code if code else Exit.FAILED,
            hint=str(error.get("hint") or ""),
            details=error.get("details") or {},
        )

    def document(self) -> dict[str, Any]:
        """The error as `--json` prints it."""
        from glixd.protocol import json_code

        code = _known(self.name)
        return {
            "error": {
                "code": json_code(code) if code else None,
                "name": self.name,
                "message": self.message,
                "hint": self.hint,
                "details": self.details,
            }
        }


class UsageError(ClientError):
    """The command line says something that glixctl does not understand."""

    def __init__(self, message: str, hint: str = "") -> None:
        from glixd.protocol import ErrorCode

        super().__init__(message, name=ErrorCode.INVALID_ARGUMENT, exit_code=Exit.USAGE, hint=hint)


class Unreachable(ClientError):
    """The daemon can't be asked."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, name=UNREACHABLE, exit_code=Exit.UNREACHABLE, hint=hint)


class NotListening(Unreachable):
    """Nobody listens at the place where the daemon should be."""


class Disconnected(Unreachable):
    """The connection ended before the answer; `answering` says whether a part of it had come."""

    def __init__(self, *, answering: bool) -> None:
        super().__init__(
            "The daemon closed the connection before it had answered.",
            "Its log says why; `glixctl transaction list` shows what it had begun.",
        )
        self.answering = answering


def _known(name: str) -> ErrorCode | None:
    """The error of that name in the table, where there is one."""
    from glixd.protocol import ErrorCode

    try:
        return ErrorCode(name)
    except ValueError:
        return None
