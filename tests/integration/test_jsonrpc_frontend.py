# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON-RPC front-end over real Unix sockets."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from glixd import api
from glixd.errors import Failed
from glixd.frontends.jsonrpc import JsonRpcServer, listen
from glixd.frontends.limits import Limits
from glixd.protocol import ErrorCode, State, json_code
from tests.support.fake_engine import FakeEngine
from tests.support.loop import PATIENCE, on_loop, until
from tests.support.socket_client import SocketClient, connected

if TYPE_CHECKING:
    from glixd.engine import Engine


@asynccontextmanager
async def served(
    folder: Path, engine: FakeEngine | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[FakeEngine, JsonRpcServer, Path]]:
    engine = engine or FakeEngine()
    path = folder / "run" / "rpc.sock"
    server = JsonRpcServer(cast("Engine", engine), listen(path), limits)
    await server.start()
    try:
        yield engine, server, path
    finally:
        await server.stop(grace=0.1)


def request(method: str, number: object = 1, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


@on_loop
async def test_a_query_is_answered_with_its_id_and_the_caller_is_who_the_kernel_says(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, server, path), connected(path) as client:
        assert await client.call("Ping") == {
            "jsonrpc": "2.0",
            "id": 1,
            "result": {"version": "1", "commit": "c0ffee"},
        }
        [(_, _, caller)] = engine.calls
        assert (caller.uid, caller.login) == (os.getuid(), pwd.getpwuid(os.getuid()).pw_name)
        assert caller.address == "socket:1"
        assert server.connections == 1


@on_loop
async def test_absent_values_are_left_out_of_a_result(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        [host] = (await client.call("ListHosts"))["result"]["hosts"]
        assert host == {
            "name": "laptop",
            "packages": 3,
            "enabled": 2,
            "health": {"state": "ok", "commit": "c0ffee"},
        }


@on_loop
async def test_an_error_carries_code_name_hint_and_details(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        assert (await client.call("Show", name="emacs"))["error"] == {
            "code": json_code(ErrorCode.NOT_INSTALLED),
            "message": "emacs is not installed.",
            "data": {
                "name": "NotInstalled",
                "hint": "List shows what is.",
                "details": {"name": "emacs", "closest": ["firefox"], "count": 1, "certain": False},
            },
        }


@on_loop
async def test_a_defect_is_internal_and_tells_nothing_of_itself(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        answer = await client.call("Show", name="defect")
        assert answer["error"]["data"]["name"] == "Internal"
        assert "secret" not in json.dumps(answer)
        assert "Traceback" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("line", "code", "identity"),
    [
        ("{", -32700, None),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": NaN}', -32700, None),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": 1, "id": 2}', -32700, None),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": "\\ud800"}', -32700, None),
        ("[" * 1000, -32700, None),
        ("[]", -32600, None),
        ("7", -32600, None),
        ('{"jsonrpc": "1.0", "method": "Ping", "id": 5}', -32600, 5),
        ('{"jsonrpc": "2.0", "id": "x"}', -32600, "x"),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": true}', -32600, None),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": [1]}', -32600, None),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": 5, "parms": {}}', -32600, 5),
        ('{"jsonrpc": "2.0", "method": "Pong", "id": 5}', -32601, 5),
        ('{"jsonrpc": "2.0", "method": "rpc.nothing", "id": 5}', -32601, 5),
        ('{"jsonrpc": "2.0", "method": "Show", "id": 5, "params": ["firefox", "laptop"]}', -32602, 5),
        ('{"jsonrpc": "2.0", "method": "Ping", "id": 5, "params": [1]}', -32602, 5),
        ('{"jsonrpc": "2.0", "method": "Show", "id": 5, "params": "firefox"}', -32602, 5),
        ('{"jsonrpc": "2.0", "method": "Show", "id": 5, "params": {"name": "firefox", "colour": 1}}', -32602, 5),
        ('{"jsonrpc": "2.0", "method": "Show", "id": 5}', -32602, 5),
        ('{"jsonrpc": "2.0", "method": "Show", "id": 5, "params": {"name": "a b"}}', -32602, 5),
    ],
)
@on_loop
async def test_what_is_no_request_is_refused_and_the_connection_goes_on(
    tmp_path: Path, line: str, code: int, identity: object
) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as client:
        client.write(line + "\n")
        answer = await client.receive()
        assert (answer["error"]["code"], answer["id"]) == (code, identity)
        assert engine.calls == []
        assert "result" in await client.call("Ping")


@on_loop
async def test_required_parameters_have_a_position_as_on_the_bus_and_optional_ones_have_none(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        client.write('{"jsonrpc": "2.0", "method": "Show", "id": 1, "params": ["firefox"]}\n')
        assert (await client.receive())["result"]["name"] == "firefox"
        client.write('{"jsonrpc": "2.0", "method": "Show", "id": 1, "params": ["firefox", "laptop"]}\n')
        assert "by name" in (await client.receive())["error"]["message"]
        client.write('{"jsonrpc": "2.0", "method": "Ping", "id": 2, "params": []}\n')
        assert "result" in await client.receive()


@pytest.mark.parametrize("identity", [0, -7, 1.5, "", "x", "ü\u2028", None])
@on_loop
async def test_every_id_of_the_specification_comes_back(tmp_path: Path, identity: object) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        client.write(json.dumps(request("Ping", identity)) + "\n")
        assert (await client.receive())["id"] == identity


@on_loop
async def test_a_notification_is_carried_out_and_not_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as client:
        for method in ("Ping", "Pong", "Show"):
            client.write(json.dumps({"jsonrpc": "2.0", "method": method}) + "\n")
        assert (await client.call("ListHosts"))["id"] == 1
        assert [name for name, _, _ in engine.calls] == ["Ping", "ListHosts"]


@on_loop
async def test_a_batch_is_answered_by_one_array_without_its_notifications(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        notification = {"jsonrpc": "2.0", "method": "Ping"}
        client.write(json.dumps([request("Ping", "a"), notification, 7, request("Pong", "b")]) + "\n")
        answers = await client.receive()
        assert {answer["id"] for answer in answers} == {"a", "b", None}
        assert len(answers) == 3


@on_loop
async def test_a_batch_of_notifications_alone_is_not_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        client.write(json.dumps([{"jsonrpc": "2.0", "method": "Ping"}] * 3) + "\n")
        assert (await client.call("ListHosts"))["id"] == 1


@on_loop
async def test_the_requests_of_a_batch_take_turns_with_those_of_others(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as one, connected(path) as other:
        await one.call("Ping")
        await other.call("Ping")
        engine.calls.clear()
        for client, number in ((one, 64), (other, 1)):
            client.write(json.dumps([request("Ping", serial) for serial in range(number)]) + "\n")
        assert len(await other.receive()) == 1
        assert len(await one.receive()) == 64
        addresses = [caller.address for _, _, caller in engine.calls]
        assert addresses.index("socket:2") < 64, "not behind the whole batch"


@on_loop
async def test_all_of_a_batch_is_answered_when_the_daemon_stops_begun_or_not(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(under_way=4)) as (engine, server, path), connected(path) as client:
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        client.write(json.dumps([request("Wait", number, transaction=transaction) for number in range(10)]) + "\n")
        await until(lambda: engine.pending_waits == 4)
        stopping = asyncio.create_task(server.stop(grace=0.05))
        answers = await client.receive()
        assert [answer["error"]["data"]["name"] for answer in answers] == ["Interrupted"] * 10
        assert sorted(answer["id"] for answer in answers) == list(range(10))
        await stopping


@on_loop
async def test_a_batch_over_the_limit_is_refused_as_a_whole(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as client:
        client.write(json.dumps([request("Ping", number) for number in range(65)]) + "\n")
        assert (await client.receive())["error"]["data"]["name"] == "LimitExceeded"
        assert engine.calls == []


@on_loop
async def test_answers_of_a_batch_that_are_too_large_together_are_refused_one_by_one(tmp_path: Path) -> None:
    limits = Limits(batch_bytes=30_000)
    async with served(tmp_path, FakeEngine(hosts=100), limits) as (_, _, path), connected(path) as client:
        client.write(json.dumps([request("ListHosts", number) for number in range(8)]) + "\n")
        answers = {answer["id"]: answer for answer in await client.receive()}
        assert sorted(answers) == list(range(8))
        refused = [answer["error"]["data"]["name"] for answer in answers.values() if "error" in answer]
        assert set(refused) == {"TooLarge"}
        assert 0 < len(refused) < 8


@on_loop
async def test_content_length_framing_is_told_by_the_first_byte(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        body = json.dumps(request("Ping"), indent=2).encode()
        client.write(b"Content-Length: %d\r\nContent-Type: application/json\r\n\r\n%b" % (len(body), body))
        assert "result" in await client.receive_with_header()
        client.write(b"content-length:%d\r\n\r\n" % len(body))
        client.write(body)
        assert "result" in await client.receive_with_header()


@on_loop
async def test_a_broken_header_is_answered_and_ends_the_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        client.write(b"Content-Length: 3 bytes\r\n\r\n{}")
        assert (await client.receive_with_header())["error"]["data"]["name"] == "Malformed"
        assert await client.reader.read() == b""


@pytest.mark.parametrize("header", [False, True])
@on_loop
async def test_an_oversized_message_is_refused_unread_and_the_next_one_is_served(tmp_path: Path, header: bool) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        receive = client.receive_with_header if header else client.receive
        body = b'"%b"' % (b"x" * (3 << 20))
        ping = json.dumps(request("Ping")).encode()
        for message in (body, ping):
            client.write(b"Content-Length: %d\r\n\r\n%b" % (len(message), message) if header else message + b"\n")
        error = (await receive())["error"]
        assert (error["data"]["name"], error["data"]["details"]) == ("TooLarge", {"limit": 1 << 20})
        assert "result" in await receive()


@on_loop
async def test_discovery_describes_every_operation(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, path), connected(path) as client:
        document = (await client.call("rpc.discover"))["result"]
        assert [method["name"] for method in document["methods"]] == list(api.OPERATIONS)


@on_loop
async def test_a_wait_holds_up_nothing_on_its_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as client:
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        waiting = client.send("Wait", transaction=transaction)
        assert "result" in await client.call("Ping")
        engine.move(transaction, State.SUCCEEDED)
        assert (await client.receive())["method"] == "Progress"
        answer = await client.receive()
        assert (answer["id"], answer["result"]["state"]) == (waiting, "succeeded")


@on_loop
async def test_progress_and_changes_come_as_notifications(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as client, connected(path) as other:
        await other.call("Ping")
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        engine.move(transaction, State.RUNNING)
        engine.change("laptop")
        assert await client.receive() == {
            "jsonrpc": "2.0",
            "method": "Progress",
            "params": {"transaction": transaction, "state": "running", "percent": 50.0, "lines": ["a line"]},
        }
        changed = {"jsonrpc": "2.0", "method": "Changed", "params": {"host": "laptop"}}
        assert await client.receive() == changed
        assert await other.receive() == changed


@on_loop
async def test_reading_pauses_while_too_many_requests_are_under_way(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(under_way=2)) as (engine, _, path), connected(path) as client:
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        for _ in range(5):
            client.send("Wait", transaction=transaction)
        await until(lambda: engine.pending_waits == 2)
        async with connected(path) as other:
            await other.call("Ping")
        assert engine.pending_waits == 2
        engine.move(transaction, State.SUCCEEDED)
        answers = [await client.receive() for _ in range(6)]
        assert sum("result" in answer for answer in answers) == 5


@on_loop
async def test_a_half_closed_peer_gets_its_answers_and_then_the_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, server, path), connected(path) as client:
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        client.send("Wait", transaction=transaction)
        client.write(json.dumps(request("ListHosts", "last")))  # without the end of line
        client.writer.write_eof()
        assert (await client.receive())["id"] == "last"
        engine.move(transaction, State.SUCCEEDED)
        assert (await client.receive())["method"] == "Progress"
        assert "result" in await client.receive()
        assert await client.reader.read() == b""
        await until(lambda: server.connections == 0)


@on_loop
async def test_a_peer_that_hangs_up_ends_its_waits_and_is_detached(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, server, path):
        async with connected(path) as client:
            transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
            client.send("Wait", transaction=transaction)
            await until(lambda: engine.pending_waits == 1)
        await until(lambda: engine.pending_waits == 0 and server.connections == 0)
        assert engine.clients == []
        assert engine.watchers == {transaction: []}
        assert transaction in engine.transactions


@on_loop
async def test_a_peer_that_half_closes_and_dies_later_is_noticed(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, server, path):
        async with connected(path) as client:
            transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
            client.send("Wait", transaction=transaction)
            client.writer.write_eof()
            await until(lambda: engine.pending_waits == 1)
        await until(lambda: server.connections == 0)


@on_loop
async def test_a_message_that_does_not_arrive_in_time_ends_the_connection(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(arrival=0.05)) as (_, _, path), connected(path) as client:
        await client.call("Ping")
        client.write('{"jsonrpc": ')
        assert await asyncio.wait_for(client.reader.read(), PATIENCE) == b""


@on_loop
async def test_a_message_that_dribbles_in_byte_by_byte_has_no_more_time(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(arrival=0.2)) as (_, _, path), connected(path) as client:
        end = asyncio.ensure_future(client.reader.read())
        client.write('{"jsonrpc": "')
        async with asyncio.timeout(PATIENCE):
            while not end.done():
                client.write("x")
                await asyncio.wait({end}, timeout=0.01)
        assert isinstance(end.exception(), ConnectionError) or end.result() == b""


@on_loop
async def test_unread_answers_of_one_uid_are_limited_over_all_its_connections(tmp_path: Path) -> None:
    limits = Limits(high_water=4096, hard_per_uid=1 << 20)
    async with served(tmp_path, FakeEngine(hosts=5000), limits) as (engine, server, path):
        deaf = [socket.socket(socket.AF_UNIX) for _ in range(6)]
        try:
            for one in deaf:
                one.connect(os.fspath(path))
                one.sendall(json.dumps(request("ListHosts")).encode() + b"\n")
            await until(lambda: len(engine.calls) == len(deaf) and server.connections < len(deaf))
            async with connected(path) as client:
                assert "result" in await client.call("Ping")
        finally:
            for one in deaf:
                one.close()


@on_loop
async def test_connections_of_one_uid_take_turns_however_much_one_of_them_asks(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as busy, connected(path) as other:
        await busy.call("Ping")
        await other.call("Ping")
        for _ in range(2000):
            busy.send("ListHosts")
        await busy.writer.drain()
        await until(lambda: len(engine.calls) > 2)
        await other.call("Ping")
        assert sum(name == "ListHosts" for name, _, _ in engine.calls) < 2000
        for _ in range(2000):
            await busy.receive()


@on_loop
async def test_a_large_message_is_read_aside_and_in_its_order(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, _, path), connected(path) as client:
        large = json.dumps(request("Add", 1, refs=["firefox"], reason="x" * 100_000))
        client.write(large + "\n" + json.dumps(request("Ping", 2)) + "\n" + large.replace(": 1", ": 3", 1) + "\n")
        answers = [await client.receive() for _ in range(3)]
        assert [answer["id"] for answer in answers] == [1, 2, 3]
        assert [name for name, _, _ in engine.calls] == ["Ping"]


@on_loop
async def test_a_slow_reader_is_sent_no_progress_until_it_has_caught_up(tmp_path: Path) -> None:
    limits = Limits(high_water=4096)
    async with served(tmp_path, limits=limits) as (engine, _, path), connected(path) as client:
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        event = api.ProgressEvent(transaction=transaction, state="running", lines=("x" * 1000,))
        sent = 0
        while not engine.refused_events:
            engine.say(event)
            sent += 1
        engine.change("laptop")
        engine.change("laptop")
        for _ in range(sent - 1):
            assert (await client.receive())["method"] == "Progress"
        assert (await client.receive())["method"] == "Changed"
        engine.say(event)
        assert (await client.receive())["method"] == "Progress"
        assert len(engine.refused_events) == 1


@pytest.mark.parametrize("limits", [Limits(stalled=0.05, high_water=1), Limits(hard=1 << 16)])
@on_loop
async def test_a_peer_that_never_reads_is_cut_off_and_others_are_served(tmp_path: Path, limits: Limits) -> None:
    async with served(tmp_path, FakeEngine(hosts=5000), limits) as (engine, server, path):
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(os.fspath(path))
            deaf.sendall(b"".join(json.dumps(request("ListHosts", number)).encode() + b"\n" for number in range(64)))
            await until(lambda: bool(engine.calls) and server.connections == 0)
            async with connected(path) as client:
                assert "result" in await client.call("Ping")


@on_loop
async def test_connections_of_one_uid_are_limited_and_the_refusal_is_typed(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(connections_per_uid=2)) as (_, server, path):
        async with connected(path) as first, connected(path) as second, connected(path) as third:
            await first.call("Ping")
            await second.call("Ping")
            refusal = await third.receive()
            assert (refusal["id"], refusal["error"]["data"]["name"]) == (None, "LimitExceeded")
        await until(lambda: server.connections == 0)
        async with connected(path) as fourth:
            assert "result" in await fourth.call("Ping")


@on_loop
async def test_stopping_answers_what_is_under_way_and_tells_those_that_still_wait(tmp_path: Path) -> None:
    async with served(tmp_path) as (engine, server, path), connected(path) as client, connected(path) as idle:
        await idle.call("Ping")
        transaction = (await client.call("Add", refs=["firefox"]))["result"]["transaction"]
        client.send("Wait", transaction=transaction)
        await until(lambda: engine.pending_waits == 1)
        await server.stop(grace=0.01)
        assert (await client.receive())["error"]["data"]["name"] == "Interrupted"
        assert await client.reader.read() == await idle.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(path)


@on_loop
async def test_draining_takes_what_waits_before_an_idle_daemon_ends(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, server, path):
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(os.fspath(path))
            assert server.connections == 0
            assert server.drain() == 1
            assert server.connections == 1
        await until(lambda: server.connections == 0)


def test_listening_makes_a_private_folder_and_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "glixd" / "rpc.sock"
    with listen(path):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_socket_of_a_dead_daemon_is_replaced_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    listen(path).close()
    with listen(path), pytest.raises(Failed) as refused:
        listen(path)
    assert refused.value.code is ErrorCode.BUSY


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    path.write_text("mine")
    with pytest.raises(Failed, match="is no socket"):
        listen(path)
    assert path.read_text() == "mine"


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(Failed, match="Others could replace"):
        listen(shared / "rpc.sock")


def test_a_path_that_is_too_long_for_the_kernel_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="too long"):
        listen(tmp_path / ("x" * 120))


def answered(answer: Any) -> bool:
    return "result" in answer


@on_loop
async def test_many_clients_with_many_pipelined_requests_are_all_served(tmp_path: Path) -> None:
    async def one(client: SocketClient) -> int:
        for _ in range(100):
            client.send("Ping")
        return sum([answered(await client.receive()) for _ in range(100)])

    async with served(tmp_path, limits=Limits(connections_per_uid=50)) as (_, _, path):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_with_connection(path, one)) for _ in range(20)]
        assert [task.result() for task in tasks] == [100] * 20


async def _with_connection(path: Path, use: Any) -> Any:
    async with connected(path) as client:
        return await use(client)
