# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation: one connection, repeated waits, lost daemons, and which daemon is meant."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glixctl.client import Client, Target
from glixctl.errors import ClientError, Disconnected, NotListening, Unreachable, UsageError
from glixd.protocol import user_socket

if TYPE_CHECKING:
    from tests.unit.glixctl.conftest import Daemon, HangUp, WireError

ID = "01hzy7k3m5n8p0q2r4s6t8v0wx"


@pytest.fixture
def client(daemon: Daemon) -> Client:
    return Client(Target("user", str(daemon.path), "socket"), os.environ)


def ignore(event: dict[str, Any]) -> None:
    """Progress that the test does not look at."""


def test_a_query_is_answered(daemon: Daemon, client: Client) -> None:
    daemon.play("Ping", {"version": "1"})
    assert client.call("Ping") == {"version": "1"}
    assert daemon.asked == [("Ping", {})]
    client.close()


def test_an_answer_of_several_megabytes_arrives_whole(daemon: Daemon, client: Client) -> None:
    daemon.play("List", {"packages": ["x" * 100] * 40_000})
    assert len(client.call("List")["packages"]) == 40_000
    client.close()


def test_a_mutation_and_its_wait_share_one_connection_and_bring_progress(daemon: Daemon, client: Client) -> None:
    seen: list[dict[str, Any]] = []
    daemon.play("Add", {"transaction": ID})

    def wait(params: dict[str, Any], notify: Any) -> dict[str, Any]:
        notify({"transaction": ID, "step": "locking"})
        notify({"transaction": ID, "step": "committing"})
        return {"id": ID, "state": "succeeded"}

    daemon.play("Wait", wait)
    assert client.run("Add", {"refs": ["firefox"]}, seen.append)["state"] == "succeeded"
    assert [event["step"] for event in seen] == ["locking", "committing"]
    assert daemon.connections == 1
    assert client.transaction is None
    client.close()


def test_a_wait_that_times_out_is_repeated(daemon: Daemon, client: Client, wire_error: type[WireError]) -> None:
    daemon.play("Add", {"transaction": ID})
    late = wire_error("TimedOut", "The time is over.")
    daemon.play("Wait", late, late, {"id": ID, "state": "failed"})
    assert client.run("Add", {}, ignore)["state"] == "failed"
    assert [method for method, _ in daemon.asked] == ["Add", "Wait", "Wait", "Wait"]
    client.close()


def test_an_error_keeps_its_name_hint_details_and_exit_code(
    daemon: Daemon, client: Client, wire_error: type[WireError]
) -> None:
    daemon.play("Show", wire_error("NotInstalled", "laptop has no firefox.", "Try list.", package="firefox"))
    with pytest.raises(ClientError) as failed:
        client.call("Show", {"name": "firefox"})
    error = failed.value
    assert (error.name, error.message, error.hint, error.exit_code) == (
        "NotInstalled",
        "laptop has no firefox.",
        "Try list.",
        4,
    )
    assert error.document()["error"]["code"] == -32009
    assert error.details == {"package": "firefox"}
    client.close()


def test_an_error_that_this_client_does_not_know_is_a_plain_failure(
    daemon: Daemon, client: Client, wire_error: type[WireError]
) -> None:
    daemon.play("Ping", wire_error("FromTheFuture", "It went wrong."))
    with pytest.raises(ClientError, match="It went wrong") as failed:
        client.call("Ping")
    assert failed.value.exit_code == 1
    client.close()


def test_a_first_query_is_asked_again_when_the_daemon_was_just_ending(
    daemon: Daemon, client: Client, hang_up: type[HangUp]
) -> None:
    daemon.play("Ping", hang_up(), {"version": "1"})
    assert client.call("Ping") == {"version": "1"}
    assert daemon.connections == 2
    client.close()


def test_a_query_is_not_asked_again_once_its_answer_had_begun(
    daemon: Daemon, client: Client, hang_up: type[HangUp]
) -> None:
    daemon.play("Ping", hang_up(b'{"jsonrpc"'), {})
    with pytest.raises(Disconnected):
        client.call("Ping")
    assert len(daemon.asked) == 1
    client.close()


def test_a_later_query_is_not_asked_again(daemon: Daemon, client: Client, hang_up: type[HangUp]) -> None:
    daemon.play("Ping", {}, hang_up())
    client.call("Ping")
    with pytest.raises(Disconnected):
        client.call("Ping")
    client.close()


def test_a_mutation_is_never_asked_twice(daemon: Daemon, client: Client, hang_up: type[HangUp]) -> None:
    daemon.play("Add", hang_up(), {"transaction": ID})
    with pytest.raises(Unreachable) as lost:
        client.run("Add", {}, ignore)
    assert lost.value.exit_code == 6
    assert "transaction list" in lost.value.hint
    assert len(daemon.asked) == 1
    client.close()


def test_a_daemon_that_dies_during_a_transaction_leaves_its_id(
    daemon: Daemon, client: Client, hang_up: type[HangUp]
) -> None:
    daemon.play("Add", {"transaction": ID})
    daemon.play("Wait", hang_up())
    with pytest.raises(Unreachable) as lost:
        client.run("Add", {}, ignore)
    assert ID in lost.value.message
    assert f"glixctl transaction show {ID}" in lost.value.hint
    assert lost.value.exit_code == 6
    client.close()


def test_a_daemon_that_stops_during_a_transaction_counts_as_gone(
    daemon: Daemon, client: Client, wire_error: type[WireError]
) -> None:
    daemon.play("Add", {"transaction": ID})
    daemon.play("Wait", wire_error("Interrupted", "The daemon stopped before Wait had an answer."))
    with pytest.raises(Unreachable, match="The daemon stopped") as lost:
        client.run("Add", {}, ignore)
    assert ID in lost.value.hint
    client.close()


def test_words_that_are_no_json_rpc_are_no_daemon(daemon: Daemon, client: Client, hang_up: type[HangUp]) -> None:
    daemon.play("Ping", hang_up(b"220 mail ready\n"))
    with pytest.raises(Unreachable, match="no glixd"):
        client.call("Ping")
    client.close()


def test_a_daemon_that_turns_callers_away_is_heard(runtime: Path) -> None:
    runtime.parent.mkdir(parents=True)
    refusal = {"code": -32028, "message": "Too many connections.", "data": {"name": "LimitExceeded"}}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime))
        listener.listen()

        def turn_away() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(json.dumps({"jsonrpc": "2.0", "id": None, "error": refusal}).encode() + b"\n")

        thread = threading.Thread(target=turn_away)
        thread.start()
        client = Client(Target("user", str(runtime), "socket"), os.environ)
        with pytest.raises(ClientError, match="Too many") as refused:
            client.call("Ping")
        thread.join()
        client.close()
    assert refused.value.name == "LimitExceeded"


def test_the_system_daemon_is_never_started(tmp_path: Path) -> None:
    client = Client(Target("system", str(tmp_path / "none.sock"), "socket"), os.environ)
    with pytest.raises(NotListening) as missing:
        client.call("Ping")
    assert missing.value.exit_code == 6


def test_a_socket_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    client = Client(Target("system", str(tmp_path / ("x" * 200)), "socket"), os.environ)
    with pytest.raises(Unreachable, match="too long"):
        client.call("Ping")


def test_an_interrupt_cancels_what_was_started_and_tells_the_end(daemon: Daemon, client: Client) -> None:
    client.transaction = ID
    daemon.play("Cancel", {})
    daemon.play("Wait", {"id": ID, "state": "cancelled"})
    assert "nothing was changed" in client.interrupt()
    client.close()
    assert [method for method, _ in daemon.asked] == ["Cancel", "Wait"]


def test_an_interrupt_after_the_commit_point_says_so(
    daemon: Daemon, client: Client, wire_error: type[WireError]
) -> None:
    client.transaction = ID
    daemon.play("Cancel", wire_error("Conflict", "It has been committed."))
    assert "It has been committed." in client.interrupt()
    client.close()


def _listening(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_system_daemon_is_meant_where_there_is_one(runtime: Path, tmp_path: Path) -> None:
    system = tmp_path / "system.sock"
    assert Target.choose(os.environ, system_socket=str(system)).mode == "user"
    target = Target.choose(os.environ, system_socket=str(_listening(system)))
    assert (target.mode, target.socket, target.transport, target.repository) == ("system", str(system), "socket", None)


def test_the_target_is_named_where_there_are_two(runtime: Path, tmp_path: Path) -> None:
    system = str(_listening(tmp_path / "system.sock"))
    assert not Target.choose(os.environ, system_socket=system).note
    assert not Target.choose(os.environ, system_socket=str(tmp_path / "none")).note
    _listening(runtime)
    assert "system daemon" in Target.choose(os.environ, system_socket=system).note
    assert "your own" in Target.choose(os.environ, mode="user", system_socket=system).note


def test_the_flag_beats_the_environment(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = str(_listening(tmp_path / "system.sock"))
    monkeypatch.setenv("GLIX_MODE", "user")
    assert Target.choose(os.environ, system_socket=system).mode == "user"
    assert Target.choose(os.environ, mode="system", system_socket=system).mode == "system"
    monkeypatch.setenv("GLIX_MODE", "both")
    with pytest.raises(UsageError, match="GLIX_MODE"):
        Target.choose(os.environ, system_socket=system)


def test_another_repository_has_its_own_socket(runtime: Path, tmp_path: Path) -> None:
    system = str(_listening(tmp_path / "system.sock"))
    target = Target.choose(os.environ, directory=str(tmp_path / "repo"), system_socket=system)
    assert (target.mode, target.repository) == ("user", str(tmp_path / "repo"))
    assert target.socket == user_socket(os.environ, str(tmp_path / "repo")) != str(runtime)
    for refused in ({"mode": "system"}, {"transport": "bus"}):
        with pytest.raises(UsageError):
            Target.choose(os.environ, directory=str(tmp_path / "repo"), system_socket=system, **refused)


def test_the_system_bus_stands_in_for_a_missing_system_socket(runtime: Path, tmp_path: Path) -> None:
    target = Target.choose(os.environ, mode="system", system_socket=str(tmp_path / "none"))
    assert target.transport == "bus"
