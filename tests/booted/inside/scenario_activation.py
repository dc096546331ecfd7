# SPDX-License-Identifier: GPL-3.0-or-later
"""glixd is started by whoever asks for it, on the bus or on the socket, and started again when it fails."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.booted.inside.machine import (
    PATIENCE,
    UNIT,
    answer,
    call,
    drop_in,
    eventually,
    glixctl,
    main_pid,
    owner,
    run,
    stop,
    unit,
)


def _ready() -> int:
    """The process of a daemon that has told systemd that it is ready; it answers a little before that."""
    answer("ping")
    eventually(lambda: unit(UNIT, "ActiveState") == "active", "a daemon that is ready")
    return main_pid()


def test_a_call_on_the_bus_starts_the_daemon() -> None:
    stop()
    said = json.loads(call("Ping", "a{sv}", "0").stdout)
    assert said["type"]
    assert main_pid() > 0
    owned = run("busctl", "--json=short", "call", *DRIVER, "GetConnectionUnixUser", "s", "org.glixos.Glix1").stdout
    assert json.loads(owned)["data"] == [int(run("id", "-u", "glixd").stdout)]


DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def test_a_connection_to_the_socket_starts_the_daemon() -> None:
    stop()
    assert answer("ping")["version"]
    assert main_pid() > 0


def test_the_daemon_is_never_root() -> None:
    answer("ping")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{main_pid()}/status").read_text().splitlines())
    uid = int(run("id", "-u", "glixd").stdout)
    assert status["Uid"].split() == [str(uid)] * 4
    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"


def test_the_sockets_belong_to_those_who_may_use_them() -> None:
    glixd = int(run("id", "-u", "glixd").stdout)
    assert owner("/run/glixd") == (0, 0, 0o755)
    assert owner("/run/glixd/rpc.sock") == (0, 0, 0o666)
    assert owner("/run/glixd/eval.sock") == (glixd, 0, 0o600)
    assert owner("/run/glixd/activate.sock") == (glixd, 0, 0o600)


def test_nobody_else_may_own_the_name() -> None:
    command = ("RequestName", "su", "org.glixos.Glix1", "0")
    refused = run("busctl", "call", *DRIVER, *command, check=False)
    assert refused.returncode != 0
    assert "not allowed" in refused.stderr or "denied" in refused.stderr.lower()


def test_the_daemon_ends_when_there_is_nothing_to_do_and_comes_back() -> None:
    stop()
    with drop_in(UNIT, "[Service]\nEnvironment=GLIXD_IDLE_EXIT=0.5\n"):
        answer("ping")
        eventually(lambda: unit(UNIT, "ActiveState") == "inactive", "the end of an idle daemon")
        assert unit(UNIT, "Result") == "success"
        assert answer("ping")["version"]
    stop()


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_started_again() -> None:
    stop()
    with drop_in(UNIT, "[Service]\nWatchdogSec=2\nRestartSec=2\n"):
        hung = _ready()
        restarts = int(unit(UNIT, "NRestarts"))
        os.kill(hung, signal.SIGSTOP)
        eventually(lambda: unit(UNIT, "Result") == "watchdog", "the end of a daemon that hangs", PATIENCE)
        eventually(lambda: main_pid() not in (0, hung), "a new process", PATIENCE)
        assert int(unit(UNIT, "NRestarts")) > restarts
        assert answer("ping")["version"]
    stop()


def test_a_daemon_that_is_killed_is_started_again() -> None:
    killed = _ready()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: main_pid() not in (0, killed), "a new process")
    assert answer("ping")["version"]


def test_a_new_bus_is_served_after_the_old_one_is_gone() -> None:
    answer("ping")
    before = main_pid()
    run("systemctl", "restart", "dbus.service")
    run("systemctl", "restart", "systemd-logind.service")  # does not come back by itself, and opens no session without
    eventually(lambda: main_pid() != before, "the end of the daemon of the old bus")
    eventually(lambda: call("Ping", "a{sv}", "0", check=False).returncode == 0, "an answer on the new bus")
    assert glixctl("--transport", "socket", "ping").returncode == 0
