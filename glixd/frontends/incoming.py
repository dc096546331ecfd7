# SPDX-License-Identifier: GPL-3.0-or-later
"""What one JSON-RPC message asks for: its requests, each checked against the table, or why there is nothing to do.

This touches nothing but the bytes, so that a large message can be read on another thread.
"""

from __future__ import annotations

from typing import Final

from glixd import api
from glixd.errors import GlixError, InvalidRequest
from glixd.frontends import messages, strict_json
from glixd.frontends.messages import Request
from glixd.frontends.wire import explained
from glixd.protocol import ErrorCode
from glixd.values import dataclass

_DISCOVER: Final = "rpc.discover"
DISCOVER: Final = _DISCOVER.encode()
"""What stands in a message that may ask for the description, which takes long to make."""


@dataclass(frozen=True, slots=True)
class Work:
    """One request: an operation to carry out, or an answer that is known already."""

    id: bytes | None
    """As JSON; None for a notification, which is carried out and not answered."""
    row: api.Operation | None = None
    parameters: api.Parameters | None = None
    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message: a request, a batch of them, or what to say of it as a whole."""

    works: tuple[Work, ...] = ()
    batch: bool = False
    refusal: bytes = b""


def read(raw: bytes, batch_limit: int) -> Incoming:
    """What a message asks for; never raises for what a caller may have sent."""
    try:
        message = strict_json.loads(raw)
    except GlixError as error:
        code = messages.PARSE_ERROR if error.code is ErrorCode.MALFORMED else None
        return Incoming(refusal=messages.error(b"null", error, code=code))
    if not isinstance(message, list):
        return Incoming(works=(_work(message),))
    if not message:
        return _refused(messages.malformed("A batch needs at least one request."))
    if len(message) > batch_limit:
        return _refused(messages.too_many("The batch has too many requests.", batch_limit))
    return Incoming(works=tuple(map(_work, message)), batch=True)


def _refused(error: GlixError) -> Incoming:
    return Incoming(refusal=messages.error(b"null", error))


def _work(message: object) -> Work:
    try:
        request = Request.read(message)
    except GlixError as error:
        identity = messages.usable_id(message)
        return Work(identity, answer=messages.error(identity, error))
    identity = request.id or b"null"
    try:
        if request.method == _DISCOVER:
            return Work(request.id, answer=messages.result(identity, _discovered(request)))
        row = api.operation(request.method)
        return Work(request.id, row, api.parse(row, request.arguments(api.required(row.parameters))))
    except Exception as error:  # noqa: BLE001 — the door: what is not for callers is logged and named Internal
        return Work(request.id, answer=messages.error(identity, explained(error, request.method)))


def _discovered(request: Request) -> bytes:
    from glixd.frontends.openrpc import document  # builds a schema of every model: only who asks pays for it

    if request.arguments():
        raise InvalidRequest(f"{_DISCOVER} has no parameters.")
    return document()
