# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the user's daemon on demand, with shell scripts that keep to the same agreement as glixd."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glixctl.errors import Unreachable
from glixctl.start import LOG_LIMIT, start
from glixd.protocol import user_state

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a glixd beside the glixctl that runs; `$fd` is where it tells that it is ready."""
    script = tmp_path / "bin" / "glixd"
    script.parent.mkdir()
    monkeypatch.setattr("sys.argv", [str(script.with_name("glixctl")), "list"])

    def write(body: str) -> None:
        script.write_text(f"#!/bin/sh\nfor fd; do :; done\nfd=/proc/self/fd/$fd\n{body}\n")
        script.chmod(0o700)

    return write


@pytest.fixture
def log(tmp_path: Path, runtime: Path) -> Path:
    return Path(user_state(os.environ, str(tmp_path / "repo"))) / "daemon.log"


def _start(tmp_path: Path) -> None:
    start(str(tmp_path / "repo"), os.environ, time.monotonic() + 15)


def test_a_daemon_that_says_it_is_ready_has_started(tmp_path: Path, install: Install, log: Path) -> None:
    install('echo "$@" >&2; printf . >$fd')
    _start(tmp_path)
    assert log.read_text().startswith(f"--mode user --repository {tmp_path / 'repo'} --ready-fd ")
    assert log.parent.stat().st_mode & 0o777 == 0o700
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_daemon_that_fails_is_quoted(tmp_path: Path, install: Install, log: Path) -> None:
    log.parent.mkdir(parents=True)
    log.write_text("an old line\n")
    install("echo one >&2; echo the last word >&2; echo >&2; exit 3")
    with pytest.raises(Unreachable, match="the last word") as failed:
        _start(tmp_path)
    assert str(log) in failed.value.hint
    assert log.read_text().startswith("an old line\n")


def test_a_daemon_that_fails_in_silence_is_quoted_by_its_exit_code(tmp_path: Path, install: Install, log: Path) -> None:
    log.parent.mkdir(parents=True)
    log.write_text("an old line\n")
    install("exit 3")
    with pytest.raises(Unreachable, match="exit code 3"):
        _start(tmp_path)


def test_another_daemon_that_serves_the_repository_is_fine(tmp_path: Path, install: Install) -> None:
    install("exit 75")
    _start(tmp_path)


def test_a_daemon_that_can_not_run_is_said(tmp_path: Path, install: Install) -> None:
    install("")
    (tmp_path / "bin" / "glixd").write_text("#!/nonexistent/interpreter\n")
    with pytest.raises(Unreachable, match="can't be started"):
        _start(tmp_path)


def test_a_long_log_starts_anew(tmp_path: Path, install: Install, log: Path) -> None:
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * (LOG_LIMIT + 1))
    install("printf . >$fd")
    _start(tmp_path)
    assert log.read_text() == ""


def test_a_log_that_is_a_link_is_refused(tmp_path: Path, install: Install, log: Path) -> None:
    log.parent.mkdir(parents=True)
    log.symlink_to(tmp_path / "elsewhere")
    install("printf . >$fd")
    with pytest.raises(Unreachable, match="can't be written"):
        _start(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
