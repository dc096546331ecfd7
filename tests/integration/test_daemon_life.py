# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of the daemon: how it starts, that there is one, and how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import (
    PATIENCE,
    Answer,
    DaemonEnded,
    RpcClient,
    RpcError,
    RunningDaemon,
    Site,
    Template,
    glixctl_command,
    new_site,
    notify_socket,
)
from tests.support.fake_github import FakeGitHub

pytestmark = [pytest.mark.integration, pytest.mark.nix]

TAKEN = 75
IDLE = 0.1


@contextmanager
def end_of(pid: int) -> Iterator[Callable[[float], bool]]:
    """A function that says whether a process ends within some seconds."""
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda seconds: bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def ready_lines(site: Site) -> int:
    """How many daemons a client has started here that came to serve."""
    lines = (site.state / "daemon.log").read_text().splitlines()
    return sum('"event": "ready"' in line for line in lines)


# -- coming --------------------------------------------------------------------------------------------------------


def test_client_starts_the_daemon_on_demand_and_finds_it_again(site: Site) -> None:
    assert site.daemon_pid() is None
    assert site.glixctl("ping").returncode == Exit.DONE
    pid = site.daemon_pid()
    assert pid is not None
    assert site.glixctl("add", "hello").returncode == Exit.DONE
    assert site.daemon_pid() == pid
    assert site.socket.stat().st_mode & 0o777 == 0o600
    assert ready_lines(site) == 1


def test_a_users_socket_is_served_while_the_bus_says_nothing(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as silent, ThreadPoolExecutor(1) as starter:
        silent.settimeout(PATIENCE)
        silent.bind(os.fspath(site.root / "bus"))
        silent.listen()
        daemon = RunningDaemon(site, bus=f"unix:path={site.root / 'bus'}")
        starting = starter.submit(daemon.start)
        connection, _ = silent.accept()
        with connection:
            assert daemon.call("Ping")["version"]
            assert not starting.done(), "it is not ready before it knows about the bus"
        with starting.result(PATIENCE):
            assert "there is no bus to serve" in daemon.log


def test_daemon_on_demand_outlives_the_client_and_keeps_none_of_its_files(site: Site) -> None:
    """Whoever reads the client's output to its end must not wait for the daemon."""
    done = site.glixctl("ping")  # returns only when nobody holds its standard output and error any more
    assert done.returncode == Exit.DONE
    pid = site.daemon_pid()
    assert pid is not None
    assert os.getsid(pid) == pid


def test_daemon_on_demand_lets_go_of_the_pipes_of_its_caller(site: Site) -> None:
    """A shell hands every pipe of its own on; whoever reads one to its end must not wait for the daemon."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [*glixctl_command("ping")],
            env=site.environment(),
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == Exit.DONE
        os.close(writing)
        assert select.select([reading], [], [], 10)[0]
        assert os.read(reading, 1) == b""
        assert site.daemon_pid() is not None
    finally:
        os.close(reading)


def test_four_clients_at_once_start_one_daemon(site: Site) -> None:
    clients = [
        subprocess.Popen(
            glixctl_command("list", "-q"),
            env=site.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ends = [(client.communicate(timeout=PATIENCE)[1], client.returncode) for client in clients]
    assert ends == [("", Exit.DONE)] * 4
    assert ready_lines(site) == 1


def test_socket_of_a_killed_daemon_is_no_obstacle(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        daemon.kill(signal.SIGKILL)
        assert site.socket.exists()
        assert site.glixctl("ping").returncode == Exit.DONE
        assert site.daemon_pid() is not None


def test_second_daemon_on_one_repository_refuses_clearly(site: Site, daemon: RunningDaemon) -> None:
    second = RunningDaemon(site, socket=site.runtime / "second.sock")
    with pytest.raises(DaemonEnded) as refused:
        second.start()
    assert refused.value.status == TAKEN
    assert refused.value.log == "glixd: Another glixd serves this repository already. Use that one, or stop it first.\n"
    assert daemon.call("Ping")
    assert not second.socket.exists()


def test_daemon_that_can_not_start_is_explained_by_the_client(site: Site) -> None:
    done = site.glixctl("ping", extra={"GLIXD_IDLE_EXIT": "soon"})
    assert done.returncode == Exit.UNREACHABLE
    assert "idle_exit" in done.stderr
    assert "Traceback" not in done.stderr


def test_systemd_is_told_when_the_daemon_serves_and_when_it_stops(site: Site) -> None:
    with notify_socket(site) as messages, RunningDaemon(site) as daemon:
        assert messages.recv(4096) == b"READY=1"
        assert daemon.call("Ping")
        assert daemon.stop() == 0
        assert messages.recv(4096) == b"STOPPING=1"


LAUNCHER = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "glixd", *sys.argv[2:]])
"""
"""What systemd does for a service with a socket unit."""


def test_socket_of_systemd_is_served_and_left_in_place(site: Site) -> None:
    site.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, notify_socket(site) as messages:
        listener.bind(os.fspath(site.socket))
        listener.listen()
        with RpcClient(site.socket) as early:  # connects before there is a daemon, as with socket activation
            number = early.send("Ping")
            process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(listener.fileno()), "--bus", "none", "--idle-exit", "0"],
                env=site.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=(listener.fileno(),),
            )
            try:
                assert messages.recv(4096) == b"READY=1"
                assert early.answer(number)["version"]
                assert early.run("Add", refs=["hello"])["state"] == "succeeded"
            finally:
                process.terminate()
                log = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0, log
        assert site.socket.exists()


# -- going ---------------------------------------------------------------------------------------------------------


def test_asked_to_stop_it_ends_well_and_takes_its_socket_away(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["firefox"])
        assert daemon.stop() == 0
        assert not site.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_transaction_that_runs_is_finished_before_the_daemon_ends(site: Site, number: int) -> None:
    with notify_socket(site) as messages, RunningDaemon(site) as daemon, daemon.connect() as client:
        assert messages.recv(4096) == b"READY=1"
        with site.locked():
            transaction = client.call("Add", refs=["firefox"])["transaction"]
            client.reach(transaction, "running")
            waiting = client.send("Wait", transaction=transaction, timeout=PATIENCE)
            daemon.signal(number)
            assert messages.recv(4096) == b"STOPPING=1"
        ended = client.answer(waiting)
        assert daemon.wait() == 0
    assert ended["state"] == "succeeded"
    assert ended["commit"] == site.git("rev-parse", "HEAD")
    assert site.git("status", "--porcelain") == ""


def test_transactions_that_have_not_begun_are_cancelled_when_the_daemon_stops(site: Site) -> None:
    with notify_socket(site) as messages, RunningDaemon(site) as daemon, daemon.connect() as client:
        assert messages.recv(4096) == b"READY=1"
        with site.locked():
            first = client.call("Add", refs=["firefox"])["transaction"]
            client.reach(first, "running")
            second = client.call("Add", refs=["hello"])["transaction"]
            client.reach(second, "queued")
            waiting = client.send("Wait", transaction=second, timeout=PATIENCE)
            daemon.signal(signal.SIGTERM)
            assert messages.recv(4096) == b"STOPPING=1"
        assert client.answer(waiting)["state"] == "cancelled"
        assert daemon.wait() == 0
        assert site.commits()[-1].startswith("glix add laptop: firefox ")
        daemon.start()
        assert {one["id"]: one["state"] for one in daemon.call("ListTransactions")["transactions"]} == {
            first: "succeeded",
            second: "cancelled",
        }


class StandingGitHub(FakeGitHub):
    """A GitHub that takes a request and answers it only when it is let go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def repository(self, owner: str, name: str) -> Path:
        """Look a repository up, which every answer begins with."""
        self.asked.set()
        assert self.let_go.wait(PATIENCE)
        return super().repository(owner, name)


@pytest.fixture
def standing(tmp_path: Path, template: Template) -> Iterator[tuple[Site, StandingGitHub]]:
    """A home whose GitHub does not answer."""
    github = StandingGitHub(tmp_path / "github")
    with github, new_site(tmp_path / "standing", template.nix, template, github.environment()) as site:
        try:
            yield site, github
        finally:
            github.let_go.set()


def test_change_that_is_still_being_prepared_is_rolled_back_when_the_daemon_stops(
    standing: tuple[Site, StandingGitHub],
) -> None:
    site, github = standing
    with RunningDaemon(site) as daemon, daemon.connect() as client:
        before = site.trace()
        transaction = client.call("Add", refs=["github:owner/slow"])["transaction"]
        assert github.asked.wait(PATIENCE)
        assert daemon.stop() == 0
        assert site.trace() == before
        assert not list((site.state / "scratch").iterdir())
        daemon.start()
        assert daemon.call("GetTransaction", transaction=transaction)["state"] == "cancelled"


def test_cancel_stops_a_change_that_is_being_prepared_and_leaves_no_trace(
    standing: tuple[Site, StandingGitHub],
) -> None:
    site, github = standing
    with RunningDaemon(site) as daemon, daemon.connect() as client:
        before = site.trace()
        transaction = client.call("Add", refs=["github:owner/slow"])["transaction"]
        assert github.asked.wait(PATIENCE)
        assert site.glixctl("transaction", "cancel", transaction).returncode == Exit.DONE
        ended = client.wait(transaction)
        assert (ended["state"], ended["error"]["name"]) == ("cancelled", "Cancelled")
        assert site.trace() == before
        assert daemon.done("Add", refs=["hello"])["commit"]


def test_slow_preparation_holds_up_nobody_else(standing: tuple[Site, StandingGitHub]) -> None:
    site, github = standing
    with RunningDaemon(site) as daemon, daemon.connect() as client:
        slow = client.call("Add", refs=["github:owner/slow"])["transaction"]
        assert github.asked.wait(PATIENCE)
        assert daemon.done("Add", refs=["hello"])["commit"]
        assert client.call("GetTransaction", transaction=slow)["state"] == "preparing"


def test_daemon_without_work_ends_and_takes_its_socket_away(site: Site) -> None:
    with RunningDaemon(site, idle_exit=IDLE) as daemon:
        assert daemon.wait() == 0
        assert not site.socket.exists()
        assert "nothing to do" in daemon.log


def test_daemon_never_ends_for_want_of_work_while_somebody_is_connected(site: Site) -> None:
    with RunningDaemon(site, idle_exit=IDLE) as daemon, end_of(daemon.pid) as ends:
        with daemon.connect() as client:
            assert client.call("Ping")
            assert not ends(10 * IDLE)
            assert client.call("Ping")
        assert daemon.wait() == 0


def test_daemon_never_ends_for_want_of_work_while_a_transaction_is_pending(site: Site) -> None:
    with RunningDaemon(site, idle_exit=IDLE) as daemon, end_of(daemon.pid) as ends:
        with site.locked():
            daemon.call("Add", refs=["firefox"])
            assert not ends(10 * IDLE)
        assert daemon.wait() == 0
    assert site.commits()[-1].startswith("glix add laptop: firefox ")


def test_restart_keeps_the_transactions(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        done = daemon.done("Add", refs=["firefox"])
        failed = daemon.run("Add", refs=["firefox"])
        dry = daemon.done("Add", refs=["hello"], dry_run=True)
        listed = daemon.call("ListTransactions")
        daemon.kill(signal.SIGKILL)
        daemon.start()
        assert daemon.call("ListTransactions") == listed
        assert [one["id"] for one in listed["transactions"]] == [dry["id"], failed["id"], done["id"]]
        for transaction in (done, failed, dry):
            assert daemon.call("GetTransaction", transaction=transaction["id"]) == transaction
    shown = json.loads(site.glixctl("transaction", "show", failed["id"], "--json").stdout)
    assert shown["error"]["name"] == "AlreadyInstalled"


def test_unknown_transaction_is_not_found(daemon: RunningDaemon) -> None:
    with pytest.raises(RpcError) as refused:
        daemon.call("GetTransaction", transaction="0" * 26)
    assert refused.value.name == "UnknownTransaction"


def test_log_tells_who_allowed_a_transaction_and_its_story_in_one_line_each(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        transaction = daemon.done("Add", refs=["firefox"])
        lines: list[Answer] = [json.loads(line) for line in daemon.log.splitlines()]
    about = [line for line in lines if line.get("transaction") == transaction["id"]]
    assert [line["event"] for line in about] == ["authorisation decided", "transaction done"]
    story = about[-1]
    told = {name: story[name] for name in ("uid", "host", "operation", "result", "commit")}
    assert told == {
        "uid": os.getuid(),
        "host": "laptop",
        "operation": "Add",
        "result": "succeeded",
        "commit": transaction["commit"],
    }
