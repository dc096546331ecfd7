# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON-RPC 2.0 messages: the envelope of a request is checked here, answers and notifications are spelt here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from glixd.errors import Cancelled, GlixError, InvalidRequest
from glixd.protocol import ErrorCode, json_code
from glixd.values import dataclass

PARSE_ERROR: Final = -32700
_MEMBERS: Final = frozenset({"jsonrpc", "method", "params", "id"})

Reply = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Request:
    """A well-formed request object."""

    id: bytes | None
    """As JSON, ready for the answer; None for a notification."""
    method: str
    params: object

    @classmethod
    def read(cls, message: object) -> Request:
        """Check the envelope; raises Malformed."""
        if not isinstance(message, dict):
            raise malformed("A request is an object, or an array of objects.")
        if message.get("jsonrpc") != "2.0":
            raise malformed('A request has the member "jsonrpc" with the value "2.0".')
        method = message.get("method")
        if not isinstance(method, str):
            raise malformed('A request has the member "method" with a name.')
        if unknown := message.keys() - _MEMBERS:
            raise malformed(f"A request has no member {min(unknown)[:60]!a}.")
        if "id" not in message:
            return cls(None, method, message.get("params"))
        if not _is_id(message["id"]):
            raise malformed('The member "id" is a string, a number or null.')
        return cls(encoded(message["id"]), method, message.get("params"))

    def arguments(self, required: Sequence[str] = ()) -> Mapping[str, object]:
        """The parameters by name; by position, as on the bus, only those that are `required`; raises InvalidArgument."""
        if isinstance(self.params, dict):
            return self.params
        if self.params is None:
            return {}
        if isinstance(self.params, list) and len(self.params) <= len(required):
            return dict(zip(required, self.params, strict=False))
        known = f"By position it takes {', '.join(required)}." if required else "None of its parameters has a position."
        raise InvalidRequest(
            f"Parameters are given by name, as an object. {known}", hint='For example {"host": "laptop"}.'
        )


def _is_id(value: object) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def usable_id(message: object) -> bytes:
    """The id of a message that is no request, as far as it has one that can be sent back."""
    identity = message.get("id") if isinstance(message, dict) else None
    return encoded(identity) if _is_id(identity) else b"null"


def encoded(value: object) -> bytes:
    """A value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def result(identity: bytes, result: bytes) -> bytes:
    """The answer to a request that succeeded; `identity` and `result` are JSON already."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (identity, result)


def notification(method: bytes, params: bytes) -> bytes:
    """A notification to the client; `params` is JSON already."""
    return b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method, params)


def error(identity: bytes, error: GlixError, code: int | None = None) -> bytes:
    """The answer to a request that failed; `code` replaces the one of the table."""
    told = {
        "code": json_code(error.code) if code is None else code,
        "message": error.message,
        "data": {"name": error.code, "hint": error.hint, "details": error.details},
    }
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (identity, encoded(told))


def malformed(why: str) -> InvalidRequest:
    """The message is no valid request."""
    return InvalidRequest(why, code=ErrorCode.MALFORMED)


def too_many(message: str, limit: int) -> InvalidRequest:
    """A count is over its limit."""
    return InvalidRequest(message, code=ErrorCode.LIMIT_EXCEEDED, details={"limit": limit})


def too_large(message: str) -> InvalidRequest:
    """What was asked for does not fit into one answer."""
    return InvalidRequest(message, code=ErrorCode.TOO_LARGE, hint="Ask for one after the other.")


def stopping(operation: str) -> Cancelled:
    """What those are told that still wait when the daemon stops."""
    return Cancelled(
        f"The daemon stopped before {operation} had an answer.", code=ErrorCode.INTERRUPTED, hint="Ask again."
    )
