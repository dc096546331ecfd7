# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts a stream of bytes into JSON-RPC messages, one per line or behind a `Content-Length` header, and never buffers more than one.

The first byte of a connection tells the two apart: a header begins with the letter C, a JSON message never does.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from glixd.errors import InvalidRequest
from glixd.protocol import MAX_JSON_MESSAGE, ErrorCode

_MAX_HEADER: Final = 4096
_HEADER_END: Final = b"\r\n\r\n"


class Framing(Enum):
    """How the messages of a connection are told apart."""

    LINES = "lines"
    HEADERS = "headers"


class FramingLost(InvalidRequest):
    """Where the next message begins can't be known any more; the connection has to end."""

    default = ErrorCode.MALFORMED


class Frames:
    """The messages of one connection.

    `feed` takes what arrived; `next` gives the next complete message, or None when more bytes are needed. An oversized
    message raises TooLarge as soon as its size is known, once; the rest of it is dropped as it comes, and the messages
    behind it are served.
    """

    def __init__(self, limit: int = MAX_JSON_MESSAGE) -> None:
        self.framing: Framing | None = None
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        """Bytes at the front of the buffer that are known to hold no end of line."""
        self._length: int | None = None
        """Length of the message behind the header that was read last."""
        self._skip = 0
        self._skip_line = False

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not complete; meaningful when `next` has just given None."""
        return bool(self._buffer) or self._skip_line or self._skip > 0 or self._length is not None

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next complete message; raises TooLarge for one that is over the limit, FramingLost for a broken header."""
        if self.framing is None:
            self._detect()
        if self.framing is Framing.HEADERS:
            return self._next_with_header()
        return self._next_line()

    def _detect(self) -> None:
        del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b" \t\r\n"))]
        if self._buffer:
            self.framing = Framing.HEADERS if self._buffer.startswith((b"C", b"c")) else Framing.LINES

    def _next_line(self) -> bytes | None:
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._keep_incomplete_line()
                return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if self._skip_line:
                self._skip_line = False
            elif len(line) > self._limit:
                raise self._too_large()
            elif line and not line.isspace():
                return line

    def _keep_incomplete_line(self) -> None:
        self._searched = len(self._buffer)
        if self._skip_line or self._searched > self._limit:
            self._buffer.clear()
            self._searched = 0
            if not self._skip_line:
                self._skip_line = True
                raise self._too_large()

    def _next_with_header(self) -> bytes | None:
        self._drop_skipped()
        if self._skip:
            return None
        if self._length is None:
            self._length = self._read_header()
        if self._length is None:
            return None
        if self._length > self._limit:
            self._skip, self._length = self._length, None
            self._drop_skipped()
            raise self._too_large()
        if len(self._buffer) < self._length:
            return None
        message = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        self._length = None
        return message

    def _drop_skipped(self) -> None:
        dropped = min(self._skip, len(self._buffer))
        del self._buffer[:dropped]
        self._skip -= dropped

    def _read_header(self) -> int | None:
        end = self._buffer.find(_HEADER_END, 0, _MAX_HEADER)
        if end < 0:
            if len(self._buffer) >= _MAX_HEADER:
                raise FramingLost(f"There is no end of the header within {_MAX_HEADER} bytes.")
            return None
        header = bytes(self._buffer[:end])
        del self._buffer[: end + len(_HEADER_END)]
        return _content_length(header)

    def _too_large(self) -> InvalidRequest:
        return InvalidRequest(
            f"The message is over {self._limit} bytes and was not read.",
            code=ErrorCode.TOO_LARGE,
            hint="Split the request.",
            details={"limit": self._limit},
        )


def framed(message: bytes, framing: Framing | None) -> bytes:
    """A message as it is sent on a connection of that framing; `message` has no line ends."""
    if framing is Framing.HEADERS:
        return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
    return message + b"\n"


def _content_length(header: bytes) -> int:
    lengths = []
    for line in header.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            raise FramingLost("A line of the header has no colon.")
        if name.strip().lower() == b"content-length":
            lengths.append(value.strip())
    if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise FramingLost("The header needs exactly one Content-Length, in bytes.")
    return int(lengths[0])
