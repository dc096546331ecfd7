# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes are the same whichever library makes them, and the daemon makes those of little without OpenSSL."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from glixd import hashes

CHECKOUT = Path(__file__).resolve().parents[2]
IN_THE_DAEMON = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
import glixd.__main__
from glixd import hashes
little, much = bytes(hashes.MUCH - 1), bytes(hashes.MUCH)
print(hashes.sha1(little), hashes.sha256(little), "_hashlib" in sys.modules)
print(hashes.sha1(much), hashes.sha256(much), "_hashlib" in sys.modules)
"""


@pytest.mark.parametrize("size", [0, 1, hashes.MUCH - 1, hashes.MUCH, hashes.MUCH + 1])
def test_a_hash_is_what_the_standard_says(size: int) -> None:
    data = b"x" * size
    assert hashes.sha1(data) == hashlib.sha1(data, usedforsecurity=False).hexdigest()
    assert hashes.sha256(data) == hashlib.sha256(data).hexdigest()


def test_openssl_is_loaded_by_the_first_that_is_much() -> None:
    told = subprocess.run([sys.executable, "-I", "-c", IN_THE_DAEMON], capture_output=True, text=True, check=True)
    expected = [
        [
            hashlib.sha1(bytes(size), usedforsecurity=False).hexdigest(),
            hashlib.sha256(bytes(size)).hexdigest(),
            str(size == hashes.MUCH),
        ]
        for size in (hashes.MUCH - 1, hashes.MUCH)
    ]
    assert [line.split() for line in told.stdout.splitlines()] == expected
