# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to other programs, with real ones behind it: shells that do as they are told, and some that do not."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from glixd.backends.process import Cancellation, Processes
from glixd.errors import Cancelled, Failed
from glixd.protocol import ErrorCode
from tests.support.hermetic import PROJECT

PATIENCE = 60


@pytest.fixture
def programs() -> Processes:
    return Processes({"PATH": os.environ["PATH"], "GREETING": "hello"})


@pytest.fixture
def impatient() -> Processes:
    return Processes({"PATH": os.environ["PATH"]}, kill_after=0.2)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def _ended(pid: int) -> bool:
    """Wait for the end of a process that is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Processes that must be gone at the end, and are ended if they are not."""
    known: list[int] = []
    yield known
    for pid in known:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _cancelled(programs: Processes, script: str, fifo: Path, pids: list[int]) -> None:
    """Run a script that writes process ids to the pipe, cancel it then, and see that it ends as cancelled."""
    cancellation = Cancellation()
    heard: list[bool] = []

    def cancel() -> None:
        pids.extend(int(word) for word in fifo.read_text().split())
        heard.append(cancellation.request())

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            programs.run(["sh", "-c", script, "sh", fifo], cancellation=cancellation)
    finally:
        thread.join()
    assert heard == [True]
    assert all(_ended(pid) for pid in pids)


def test_output_and_status_come_back(programs: Processes) -> None:
    done = programs.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], stdin=b"in\0put")
    assert (done.status, done.stdout, done.stderr) == (3, b"in\0put", b"wrong\n")


def test_a_signal_is_a_negative_status(programs: Processes) -> None:
    assert programs.run(["sh", "-c", "kill -9 $$"]).status == -signal.SIGKILL


def test_children_get_the_constructed_environment_alone(programs: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    words = programs.run(["env"], environment={"MORE": "1"}).stdout.decode().split()
    names = {word.partition("=")[0] for word in words}
    assert names - {"_", "PWD", "SHLVL"} == {"PATH", "GREETING", "MORE"}


def test_a_program_is_found_on_the_given_path_only(programs: Processes, tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        Processes({"PATH": str(tmp_path)}).run(["git"])
    assert caught.value.code is ErrorCode.UNSUPPORTED_HERE
    assert "git" in caught.value.message


def test_children_inherit_no_descriptor_but_those_to_keep(programs: Processes) -> None:
    ours, kept = os.pipe()
    try:
        os.set_inheritable(ours, True)
        listed = programs.run(["sh", "-c", "echo /proc/$$/fd/*"], keep=(kept,)).stdout.decode().split()
        numbers = {int(path.rpartition("/")[2]) for path in listed}
        assert kept in numbers
        assert ours not in numbers
    finally:
        os.close(ours)
        os.close(kept)


def test_a_program_that_does_not_read_its_input_is_no_error(programs: Processes) -> None:
    assert programs.run(["true"], stdin=b"x" * 1_000_000).status == 0


def test_a_program_that_takes_too_long_is_ended(programs: Processes, pids: list[int], fifo: Path) -> None:
    thread = threading.Thread(target=lambda: pids.append(int(fifo.read_text())))
    thread.start()
    with pytest.raises(Failed) as caught:
        programs.run(["sh", "-c", "echo $$ >$1; sleep 1000", "sh", fifo], timeout=0.5)
    thread.join()
    assert caught.value.code is ErrorCode.TIMED_OUT
    assert all(_ended(pid) for pid in pids)


def test_cancelling_interrupts_the_whole_group(impatient: Processes, pids: list[int], fifo: Path) -> None:
    _cancelled(impatient, "sleep 1000 & echo $$ $! >$1; wait", fifo, pids)


def test_a_program_that_ignores_the_interrupt_is_killed(impatient: Processes, pids: list[int], fifo: Path) -> None:
    _cancelled(impatient, "trap '' INT; echo $$ >$1; while :; do sleep 1000; done", fifo, pids)


def test_a_child_of_a_program_that_ended_is_killed_too(impatient: Processes, pids: list[int], fifo: Path) -> None:
    # what a shell starts in the background ignores the interrupt, and it holds the pipes of its parent
    _cancelled(impatient, "sleep 1000 & echo $$ $! >$1; trap 'exit 1' INT; wait", fifo, pids)


def test_nobody_is_left_when_a_program_ends(programs: Processes, pids: list[int]) -> None:
    done = programs.run(["sh", "-c", "sleep 1000 >&- 2>&- <&- & echo $!"])
    pids.append(int(done.stdout))
    assert _ended(pids[0])


def test_cancelled_work_starts_no_program(programs: Processes, tmp_path: Path) -> None:
    cancellation = Cancellation()
    assert cancellation.request()
    with pytest.raises(Cancelled):
        programs.run(["touch", tmp_path / "canary"], cancellation=cancellation)
    assert not (tmp_path / "canary").exists()


def test_sealed_work_can_not_be_cancelled(programs: Processes) -> None:
    cancellation = Cancellation()
    cancellation.seal()
    assert not cancellation.request()
    assert programs.run(["true"], cancellation=cancellation).status == 0


def test_cancelled_work_can_not_be_sealed() -> None:
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled):
        cancellation.seal()


def test_children_die_with_us(tmp_path: Path, pids: list[int]) -> None:
    script = (
        "import os, sys\n"
        "from glixd.backends.process import Processes\n"
        "child = Processes({'PATH': os.environ['PATH']}).start(['sh', '-c', 'echo ready; sleep 1000'])\n"
        "assert child.stdout.readline() == b'ready\\n'\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT
    )
    with parent:
        assert parent.stdout is not None
        pids.append(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    assert _ended(pids[0])
