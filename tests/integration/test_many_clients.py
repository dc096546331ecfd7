# SPDX-License-Identifier: GPL-3.0-or-later
"""Thirty-two clients over both transports: nothing reported is lost, nothing is done twice, and nobody waits for ever."""

from __future__ import annotations

import os
import random
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from glixd.protocol import MAX_PENDING_PER_UID
from tests.support.bus_client import BusClient
from tests.support.daemon import (
    Answer,
    DaemonEnded,
    RpcClient,
    RpcError,
    RunningDaemon,
    Site,
)
from tests.support.private_bus import private_bus
from tests.support.standing_git import MOMENTS, StandingGit

pytestmark = [pytest.mark.integration, pytest.mark.nix]

FULL: Final = os.environ.get("GLIX_FULL_MODEL") == "1"
CLIENTS: Final = 32
EACH: Final = 30 if FULL else 2
MANIFEST: Final = "hosts/laptop/glix.toml"
TAKEN: Final = 75

Client = RpcClient | BusClient
Connect = Callable[[], Client]


@pytest.fixture
def bus(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bus of this site's own, which its programs and this process find."""
    with private_bus(site.runtime) as address:
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = address
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        yield address


@pytest.fixture
def both(site: Site, bus: str) -> Iterator[RunningDaemon]:
    """A daemon on both transports, which lets one uid have as much under way as all together may."""
    extra = {"GLIXD_PENDING_PER_UID": "64", "GLIXD_INDEX": "false"}
    with RunningDaemon(site, bus="session", extra=extra) as daemon:
        yield daemon


def transports(daemon: RunningDaemon) -> tuple[Connect, Connect]:
    """How to connect over the socket, and over the bus."""
    return daemon.connect, BusClient


# -- nothing is lost -------------------------------------------------------------------------------------------------


@dataclass
class Person:
    """One client, with packages of its own; it knows what they have to be afterwards."""

    number: int
    packages: dict[str, Answer] = field(default_factory=dict)
    done: list[Answer] = field(default_factory=list)

    def live(self, connect: Connect) -> None:
        """Change something again and again, and keep what was reported."""
        chance = random.Random(self.number)
        with connect() as client:
            for turn in range(EACH):
                operation, parameters = self._mutation(chance, turn)
                self.done.append(client.run(operation, evaluate=False, **parameters))

    def _mutation(self, chance: random.Random, turn: int) -> tuple[str, Answer]:
        name = f"hello-{self.number}-{turn}"
        earlier = sorted(self.packages)
        verb = chance.choice(["Add", "Set", "Disable", "Remove"]) if earlier else "Add"
        match verb:
            case "Set":
                name = chance.choice(earlier)
                self.packages[name].setdefault("config", {})["turn"] = str(turn)
                return verb, {"name": name, "changes": {"config.turn": str(turn)}}
            case "Disable":
                name = chance.choice(earlier)
                self.packages[name]["enabled"] = False
                return verb, {"names": [name]}
            case "Remove":
                name = chance.choice(earlier)
                del self.packages[name]
                return verb, {"names": [name]}
            case _:
                self.packages[name] = {"flake": "nixpkgs#hello", "scope": "system"}
                return verb, {"refs": ["nixpkgs#hello"], "name": name}


def test_changes_of_many_clients_over_both_transports_are_all_there_in_their_order(
    site: Site, both: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(site.commits())
    people = [Person(number) for number in range(CLIENTS)]
    ways = transports(both)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for end in [pool.submit(person.live, ways[person.number % 2]) for person in people]:
            end.result()
    done = [transaction for person in people for transaction in person.done]
    with capsys.disabled():
        print(f"\n{len(done)} concurrent changes of {CLIENTS} clients over two transports")
    assert {transaction["state"] for transaction in done} == {"succeeded"}

    history = site.git("rev-list", "--reverse", "HEAD").splitlines()[before:]
    reported = [transaction["commit"] for transaction in done if "commit" in transaction]
    assert sorted(history) == sorted(reported), "one commit each, and none beside"
    assert len(reported) == len(done) - sum(not one["outcome"]["changed"] for one in done)
    for person in people:
        places = [history.index(one["commit"]) for one in person.done if "commit" in one]
        assert places == sorted(places), "a client's changes are in the order in which it made them"
    expected = {name: package for person in people for name, package in person.packages.items()}
    assert tomllib.loads(site.committed(MANIFEST)).get("packages", {}) == expected
    assert site.read(MANIFEST) == site.committed(MANIFEST)
    assert site.git("status", "--porcelain") == ""
    assert len(both.call("ListTransactions", limit=1000)["transactions"]) >= min(500, len(done))


def test_one_request_of_many_clients_is_one_transaction_and_one_commit(site: Site, both: RunningDaemon) -> None:
    commits = len(site.commits())
    socket, bus = transports(both)
    clients = [(socket if number % 2 else bus)() for number in range(CLIENTS)]
    try:
        with site.locked(), both.connect() as first:
            blocker = first.call("Add", refs=["firefox"], evaluate=False)["transaction"]
            first.reach(blocker, "running")
            started = {client.call("Add", refs=["hello"], evaluate=False)["transaction"] for client in clients}
            assert len(started) == 1
        with ThreadPoolExecutor(CLIENTS) as pool:
            ends = list(pool.map(lambda client: client.wait(*started), clients))
        assert all(end == ends[0] for end in ends)
        assert ends[0]["state"] == "succeeded"
    finally:
        for client in clients:
            client.close()
    assert len(site.commits()) == commits + 2


def test_limit_of_a_uid_counts_both_transports(site: Site, bus: str) -> None:
    running = RunningDaemon(site, bus="session", extra={"GLIXD_INDEX": "false"})
    with running as daemon, daemon.connect() as socket, BusClient() as peer:
        with site.locked():
            started = []
            for number in range(MAX_PENDING_PER_UID):
                client: Client = socket if number % 2 else peer
                parameters = {"refs": ["nixpkgs#hello"], "name": f"hello-{number}", "evaluate": False}
                started.append(client.call("Add", **parameters)["transaction"])
            for client in (socket, peer):
                with pytest.raises(RpcError) as refused:
                    client.call("Add", refs=["git"])
                assert refused.value.name == "LimitExceeded"
            socket.call("Cancel", transaction=started[-1])
            assert socket.wait(started[-1])["state"] == "cancelled"
            started[-1] = peer.call("Add", refs=["git"], evaluate=False)["transaction"]
        assert {socket.wait(transaction)["state"] for transaction in started} == {"succeeded"}


# -- clients that leave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "queued"])
@pytest.mark.parametrize("way", [0, 1], ids=["socket", "bus"])
def test_change_goes_on_when_its_client_leaves(site: Site, both: RunningDaemon, way: int, state: str) -> None:
    with site.locked(), both.connect() as first:
        blocker = first.call("Add", refs=["git"], evaluate=False)["transaction"] if state == "queued" else None
        if blocker:
            first.reach(blocker, "running")
        leaver = transports(both)[way]()
        transaction = leaver.call("Add", refs=["firefox"], evaluate=False)["transaction"]
        first.call("Watch", transaction=transaction)
        first.reach(transaction, state)
        leaver.close()
    ended = both.call("Wait", transaction=transaction, timeout=60)
    assert (ended["state"], ended["commit"]) == ("succeeded", site.git("rev-parse", "HEAD"))


def test_client_that_leaves_with_half_a_request_changes_nothing(site: Site, both: RunningDaemon) -> None:
    head = site.git("rev-parse", "HEAD")
    with both.connect() as leaver:
        leaver.write(b'{"jsonrpc":"2.0","id":1,"method":"Add","params":{"refs":["firefox"]')
    assert both.call("ListTransactions")["transactions"] == []
    assert site.git("rev-parse", "HEAD") == head


# -- cancelling ------------------------------------------------------------------------------------------------------


def test_waiting_change_is_cancelled_in_its_place_and_the_others_go_on(site: Site, both: RunningDaemon) -> None:
    with both.connect() as client:
        with site.locked():
            started = []
            for number, state in enumerate(("running", "queued", "queued")):
                parameters = {"refs": ["nixpkgs#hello"], "name": f"hello-{number}", "evaluate": False}
                started.append(client.call("Add", **parameters)["transaction"])
                client.reach(started[-1], state)  # what is prepared sooner would come before it
            client.call("Cancel", transaction=started[1])
        ends = [client.wait(transaction) for transaction in started]
    assert [end["state"] for end in ends] == ["succeeded", "cancelled", "succeeded"]
    assert set(tomllib.loads(site.read(MANIFEST))["packages"]) == {"hello-0", "hello-2"}


def test_running_change_that_waits_for_the_repository_is_cancelled(site: Site, both: RunningDaemon) -> None:
    trace = site.trace()
    with both.connect() as client, site.locked():
        transaction = client.call("Add", refs=["firefox"], evaluate=False)["transaction"]
        client.reach(transaction, "running")
        client.call("Cancel", transaction=transaction)
        assert client.wait(transaction)["state"] == "cancelled"
        assert site.trace().items() >= trace.items()
    assert both.done("Add", refs=["firefox"], evaluate=False)["commit"]


def standing(site: Site, folder: Path) -> tuple[StandingGit, RunningDaemon]:
    """A daemon whose git stands still where it is told to."""
    git = StandingGit(folder / "programs")
    return git, RunningDaemon(site, extra={"PATH": git.path, "GLIXD_INDEX": "false"})


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_change_at_its_commit_point_is_not_cancelled_and_says_so(site: Site, tmp_path: Path, moment: str) -> None:
    git, running = standing(site, tmp_path)
    with running as daemon, daemon.connect() as client:
        git.arm(moment)
        transaction = client.call("Add", refs=["firefox"], evaluate=False)["transaction"]
        with git.standing(), pytest.raises(RpcError) as refused:
            client.call("Cancel", transaction=transaction)
        assert refused.value.name == "Conflict"
        ended = client.wait(transaction)
        assert (ended["state"], ended["commit"]) == ("succeeded", site.git("rev-parse", "HEAD"))
        with pytest.raises(RpcError) as ended_already:
            client.call("Cancel", transaction=transaction)
        assert ended_already.value.name == "Conflict"


# -- others beside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["another state", "a link"])
def test_second_daemon_is_refused_however_it_comes_to_the_repository(
    site: Site, daemon: RunningDaemon, tmp_path: Path, way: str
) -> None:
    repository = site.repository
    if way == "a link":
        repository = tmp_path / "link"
        repository.symlink_to(site.repository)
    second = RunningDaemon(
        site, repository=repository, state=tmp_path / "other-state", socket=site.runtime / "second.sock"
    )
    with pytest.raises(DaemonEnded) as refused:
        second.start()
    assert (refused.value.status, "Another glixd serves this repository" in refused.value.log) == (TAKEN, True)
    assert daemon.done("Add", refs=["hello"], evaluate=False)["commit"] == site.git("rev-parse", "HEAD")


@pytest.mark.parametrize("moment", ["before the commit point", "after the commit point"])
def test_commit_of_a_person_in_the_middle_of_a_change_is_kept(site: Site, tmp_path: Path, moment: str) -> None:
    git, running = standing(site, tmp_path)
    before = site.git("rev-parse", "HEAD")
    with running as daemon, daemon.connect() as client:
        git.arm(moment)
        transaction = client.call("Add", refs=["firefox"], evaluate=False)["transaction"]
        with git.standing():
            mine = site.commit({"notes/mine.txt": "mine\n"})
        ended = client.wait(transaction)
        assert ended["state"] == "succeeded"
        assert set(site.git("rev-list", f"{before}..HEAD").splitlines()) == {mine, ended["commit"]}
        assert site.read("notes/mine.txt") == site.committed("notes/mine.txt") == "mine\n"
        assert "[packages.firefox]" in site.committed(MANIFEST)
        assert site.read(MANIFEST) == site.committed(MANIFEST)
        assert site.git("status", "--porcelain") == ""
        assert daemon.done("Add", refs=["hello"], evaluate=False)["commit"] == site.git("rev-parse", "HEAD")
