# SPDX-License-Identifier: GPL-3.0-or-later
"""A broken /etc/glixd/config.toml ends every program that reads it with one sentence that says where, and nothing is done."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.activator import PATIENCE
from tests.support.hermetic import commit_all, write_files

pytestmark = pytest.mark.integration

BROKEN = {
    "no value": (b'host = "a"\nbranch =\n', "line 2, column 9"),
    "half a table": (b"[registries\n", "line 1, column 12"),
    "no UTF-8": (b'host = "\xff"\n', "0xff"),
    "nested too deeply": (b"a = " + b"[" * 20_000, "recursion"),
    "a number without end": (b"a = " + b"9" * 5000, "4300 digits"),
}
"""What a file may say, and what is said of it."""
ALONE = ("unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"')
"""Words that start a program which has another /etc."""


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """An /etc with broken settings, and what has to be said of them."""
    etc = tmp_path / "etc"
    (etc / "glixd").mkdir(parents=True)
    for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
        if (Path("/etc") / name).exists():
            shutil.copy(Path("/etc") / name, etc / name)
    text, said = BROKEN[request.param]
    (etc / "glixd" / "config.toml").write_bytes(text)
    return etc, said


def run(etc: Path, module: str, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    command = [*ALONE, os.fspath(etc), sys.executable, "-I", "-m", module, *words]
    return subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd="/")


def assert_told(lines: Sequence[str], said: str) -> None:
    assert len(lines) == 1, lines
    assert "/etc/glixd/config.toml" in lines[0]
    assert said in lines[0]
    assert "orrect" in lines[0]


def test_the_activator_refuses_in_a_sentence_and_switches_nothing(broken: tuple[Path, str], tmp_path: Path) -> None:
    etc, said = broken
    places = {name: tmp_path / name for name in ("results", "wishes", "profile", "current")}
    words = [word for name, place in places.items() for word in (f"--{name}", os.fspath(place))]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"{}\n")
        done = run(etc, "glixd.activator", "--peer", "root", *words, stdin=theirs.fileno())
        theirs.close()
        answer = json.loads(ours.makefile().read())
    assert done.returncode == 1
    assert_told(done.stderr.splitlines(), said)
    assert answer["refused"]["code"] == "ActivationFailed"
    assert_told(answer["refused"]["message"].splitlines(), said)
    assert not any(os.path.lexists(place) for place in places.values())


def test_the_export_ends_with_a_sentence_and_copies_nothing(broken: tuple[Path, str], tmp_path: Path) -> None:
    etc, said = broken
    write_files(tmp_path / "repo", {"flake.nix": "one"})
    commit_all(tmp_path / "repo")
    places = {name: tmp_path / name for name in ("copy", "history")}
    words = [word for name, place in places.items() for word in (f"--{name}", os.fspath(place))]
    done = run(etc, "glixd.export", "--repository", os.fspath(tmp_path / "repo"), "--user", "root", *words)
    assert done.returncode == 1
    assert_told(done.stderr.splitlines(), said)
    assert not any(place.exists() for place in places.values())


def test_the_daemon_ends_with_a_sentence(broken: tuple[Path, str], tmp_path: Path) -> None:
    etc, said = broken
    places = [f"--repository={tmp_path / 'repository'}", f"--state={tmp_path / 'state'}"]
    done = run(etc, "glixd", "--mode", "system", "--bus", "none", *places)
    assert done.returncode not in (0, 1)
    expected = {"0xff": "line 1, column 9", "recursion": "nested too deeply"}.get(said, said)
    assert_told(done.stderr.splitlines(), expected)
    assert not (tmp_path / "repository").exists()
    assert not (tmp_path / "state").exists()


def test_the_export_refuses_a_setting_of_another_type(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    write_files(etc, {"glixd/config.toml": "repository = 5\n"})
    done = run(etc, "glixd.export", "--copy", os.fspath(tmp_path / "copy"))
    assert done.returncode == 1
    assert_told(done.stderr.splitlines(), "repository is no text")
