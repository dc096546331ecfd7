# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail as the journal receives it: a socket in the place of the journal's, and hostile names and reasons."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glixd import audit
from tests.support.hermetic import PROJECT

pytestmark = pytest.mark.integration

HOSTILE = "why\nGLIX_UID=0\nMESSAGE=forged\x00\x1b[2J\u202e"

PROGRAM = """\
import os, sys
from glixd import audit, log
from glixd.api import Caller, Transaction
from glixd.errors import NotAllowed

facts = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{facts.st_dev}:{facts.st_ino}"
log.configure("info")
hostile = sys.argv[1].encode().decode("unicode_escape")
caller = Caller(1000, hostile, "socket:1")
audit.decided(caller, "Add", ["org.glixos.glix1.x"], transaction="01jz", host="laptop", error=NotAllowed(hostile))
audit.done(Transaction(id="01jz", operation="Add", host="laptop", state="failed", uid=1000, login=hostile,
                       created="2026-01-01T00:00:00Z", reason=hostile, dry_run=False))
"""


@contextmanager
def journal(folder: Path) -> Iterator[socket.socket]:
    """A socket that is seen by a program in the place of the journal's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(os.fspath(folder / "socket"))
        receiver.settimeout(30)
        yield receiver


def entry(datagram: bytes) -> dict[str, list[str]]:
    """The fields of one entry, in the journal's own form: NAME=value, or NAME with a length before its bytes."""
    fields: dict[str, list[str]] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            datagram = rest
        else:
            length = int.from_bytes(rest[:8], "little")
            value, datagram = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields.setdefault(name.decode(), []).append(value.decode())
    return fields


def test_no_name_or_reason_makes_a_field_or_an_entry_of_its_own(tmp_path: Path) -> None:
    with journal(tmp_path) as receiver:
        script = 'mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$0" /run/systemd/journal && exec "$@"'
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, os.fspath(tmp_path)]
        done = subprocess.run(
            [*words, sys.executable, "-c", PROGRAM, HOSTILE.encode("unicode_escape").decode()],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        decided, ended = entry(receiver.recv(1 << 16)), entry(receiver.recv(1 << 16))
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)
    for found, kind, result in ((decided, audit.DECIDED, "refused"), (ended, audit.DONE, "failed")):
        assert found["MESSAGE_ID"] == [kind]
        assert found["GLIX_RESULT"] == [result]
        assert found["GLIX_UID"] == ["1000"]
        assert (found["GLIX_TRANSACTION"], found["GLIX_HOST"], found["GLIX_ACTION"]) == (["01jz"], ["laptop"], ["Add"])
        assert found["GLIX_LOGIN"] == [HOSTILE]
        [message] = found["MESSAGE"]
        assert message.isprintable()
        assert all(len(values) == 1 for values in found.values())
