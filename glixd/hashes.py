# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes of bytes: of little with what is in the interpreter, of much with OpenSSL, which is loaded by the first that is much.

OpenSSL hashes eight times as quickly, and its library is 3.5 of 43 MiB of a daemon that is idle (`glixd/lean.py` keeps it away).
"""

from __future__ import annotations

import hashlib
from typing import Final

MUCH: Final = 4096
"""Bytes from which on OpenSSL is asked: 20 µs without it, 3 µs with it."""


def sha1(data: bytes) -> str:
    """The hexadecimal SHA-1 of these bytes, for the names that git gives."""
    if len(data) < MUCH:
        return hashlib.sha1(data, usedforsecurity=False).hexdigest()
    from _hashlib import openssl_sha1

    return openssl_sha1(data, usedforsecurity=False).hexdigest()


def sha256(data: bytes) -> str:
    """The hexadecimal SHA-256 of these bytes."""
    if len(data) < MUCH:
        return hashlib.sha256(data).hexdigest()
    from _hashlib import openssl_sha256

    return openssl_sha256(data).hexdigest()
