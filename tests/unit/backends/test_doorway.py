# SPDX-License-Identifier: GPL-3.0-or-later
"""A program behind a socket is there before its work is, is used once, and is never waited for when it is gone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from glixd.backends.doorway import Doorway
from glixd.errors import Failed
from glixd.protocol import ErrorCode

PATIENCE = 30.0


class Listener:
    """What systemd is: a socket, on which each connection would be a program."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(os.fspath(path))
        self._socket.listen()
        self._socket.settimeout(PATIENCE)

    def accepted(self) -> socket.socket:
        """The next connection."""
        return self._socket.accept()[0]

    def accepts_nothing(self) -> bool:
        """Whether nobody has connected."""
        self._socket.setblocking(False)
        try:
            self._socket.accept()
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket's path has to be short."""
    with TemporaryDirectory(prefix="glix-") as folder:
        yield Path(folder) / "socket"


@pytest.fixture
def listener(path: Path) -> Iterator[Listener]:
    """Somebody who listens there."""
    made = Listener(path)
    yield made
    made.close()


def doorway(path: Path, patience: float = PATIENCE) -> Doorway:
    """The way to a program that is called so."""
    return Doorway(path, program="evaluator", unit="glixd-eval.socket", patience=patience)


def test_work_takes_the_connection_that_waits_and_the_next_work_a_new_one(path: Path, listener: Listener) -> None:
    way = doorway(path)
    way.knock()
    way.knock()
    with listener.accepted() as waiting:
        assert listener.accepts_nothing(), "one waits, however often is knocked"
        with way.connect() as connection:
            connection.sendall(b"work")
            assert waiting.recv(4) == b"work"
            with way.connect() as other, listener.accepted() as second:
                other.sendall(b"more")
                assert second.recv(4) == b"more"


def test_a_program_that_ended_while_it_waited_is_replaced(path: Path, listener: Listener) -> None:
    way = doorway(path)
    way.knock()
    listener.accepted().close()
    with way.connect() as connection, listener.accepted() as second:
        connection.sendall(b"work")
        assert second.recv(4) == b"work"


def test_a_program_that_waited_for_too_long_is_not_trusted_to_be_there(path: Path, listener: Listener) -> None:
    way = doorway(path, patience=0.0)
    way.knock()
    with listener.accepted() as first, way.connect() as connection, listener.accepted() as second:
        assert first.recv(1) == b"", "the one that waited is let go"
        connection.sendall(b"work")
        assert second.recv(4) == b"work"


def test_work_that_wants_a_program_of_now_leaves_the_one_that_waits(path: Path, listener: Listener) -> None:
    way = doorway(path)
    way.knock()
    with listener.accepted() as waiting, way.connect(anew=True) as connection, listener.accepted() as second:
        connection.sendall(b"work")
        assert second.recv(4) == b"work"
        with way.connect() as other:
            other.sendall(b"more")
            assert waiting.recv(4) == b"more"


def test_whoever_waits_is_let_go(path: Path, listener: Listener) -> None:
    way = doorway(path)
    way.dismiss()
    way.knock()
    with listener.accepted() as waiting:
        way.dismiss()
        assert waiting.recv(1) == b""


def test_nobody_there_is_told_to_whoever_has_work_and_not_before(path: Path) -> None:
    way = doorway(path)
    way.knock()
    with pytest.raises(Failed, match=r"The evaluator can't be reached at .*: No such file or directory\.") as failed:
        way.connect()
    assert (failed.value.code, failed.value.hint) == (
        ErrorCode.UNSUPPORTED_HERE,
        "See: systemctl status glixd-eval.socket",
    )
