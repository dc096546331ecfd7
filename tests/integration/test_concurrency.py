# SPDX-License-Identifier: GPL-3.0-or-later
"""Many clients at once: every change that was reported is there, one commit each, in the order of the commits."""

from __future__ import annotations

import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from glixd.protocol import MAX_PENDING_PER_UID
from tests.support.daemon import Answer, RpcError, RunningDaemon, Site, glixctl_command
from tests.support.hermetic import git, make_git_flake, write_files

pytestmark = [pytest.mark.integration, pytest.mark.nix]

CLIENTS = 8
EACH = 5


def _add(daemon: RunningDaemon, client: int) -> list[Answer]:
    """The packages of one client, one after the other, each under a name of its own."""
    with daemon.connect() as connection:
        return [
            connection.run("Add", refs=["nixpkgs#hello"], name=f"hello-{client}-{number}", evaluate=False)
            for number in range(EACH)
        ]


def test_every_change_of_eight_clients_is_there_as_a_commit_of_its_own(site: Site, daemon: RunningDaemon) -> None:
    before = len(site.commits())
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda client: _add(daemon, client), range(CLIENTS)))
    done = [transaction for transactions in answers for transaction in transactions]
    assert {transaction["state"] for transaction in done} == {"succeeded"}

    names = {f"hello-{client}-{number}" for client in range(CLIENTS) for number in range(EACH)}
    assert set(tomllib.loads(site.committed("hosts/laptop/glix.toml"))["packages"]) == names
    assert len(site.commits()) == before + CLIENTS * EACH
    commits = site.git("rev-list", "--reverse", "HEAD").splitlines()[before:]
    assert sorted(commits) == sorted(transaction["commit"] for transaction in done)
    for transactions in answers:
        places = [commits.index(transaction["commit"]) for transaction in transactions]
        assert places == sorted(places), "a client's changes are in the order in which it made them"
    added = dict(line.split(" ", 1) for line in site.git("log", "--format=%H %s").splitlines())
    for transaction in done:
        (change,) = transaction["outcome"]["changes"]
        assert f": {change['name']} (" in added[transaction["commit"]]
    assert site.git("status", "--porcelain") == ""


def test_identical_requests_that_wait_are_one_transaction(site: Site, daemon: RunningDaemon) -> None:
    with daemon.connect() as first, daemon.connect() as second:
        with site.locked():
            blocker = first.call("Add", refs=["firefox"])["transaction"]
            first.reach(blocker, "running")
            started = [client.call("Add", refs=["hello"])["transaction"] for client in (first, second)]
        assert started[0] == started[1]
        assert first.wait(started[0]) == second.wait(started[1])
    assert [one["operation"] for one in daemon.call("ListTransactions")["transactions"]] == ["Add", "Add"]


def test_too_many_at_once_are_refused_and_the_others_go_on(site: Site, daemon: RunningDaemon) -> None:
    with daemon.connect() as client:
        with site.locked():
            started = [
                client.call("Add", refs=["nixpkgs#hello"], name=f"hello-{number}")["transaction"]
                for number in range(MAX_PENDING_PER_UID)
            ]
            with pytest.raises(RpcError) as refused:
                client.call("Add", refs=["git"])
            assert refused.value.name == "LimitExceeded"
            assert str(MAX_PENDING_PER_UID) in refused.value.message
            assert client.call("List")["packages"] == [], "a query never waits for the queue"
        assert {client.wait(transaction)["state"] for transaction in started} == {"succeeded"}


def test_clients_of_the_command_line_wait_for_each_other(site: Site, daemon: RunningDaemon) -> None:
    names = ["firefox", "hello", "git", "tmux"]
    clients = [
        subprocess.Popen(
            glixctl_command("add", name, "-q"),
            env=site.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    assert [(client.communicate()[1], client.returncode) for client in clients] == [("", 0)] * len(names)
    assert site.evaluated()["system"] == sorted(names)
    assert daemon.health()["state"] == "ok"


def test_source_that_moves_between_authorisation_and_lock_is_refused(
    site: Site, daemon: RunningDaemon, tmp_path: Path
) -> None:
    source = tmp_path / "moving"
    make_git_flake(source, {"flake.nix": "{ outputs = _: { }; }"})
    resolved = git(source, "rev-parse", "HEAD")
    with daemon.connect() as client:
        with site.locked():
            reference = f"git+file://{source}?ref=main"
            transaction = client.call("Add", refs=[reference], allow_local=True)["transaction"]
            client.reach(transaction, "running")
            make_git_flake(source, {"flake.nix": "{ outputs = _: { moved = true; }; }"})
            # An edit that the change takes over, so that what was locked for the authorisation is locked anew.
            flake = site.read("flake.nix")
            write_files(site.repository, {"flake.nix": flake.replace("My machines", "Our machines")})
            trace = site.trace()
        ended = client.wait(transaction)
    assert (ended["state"], ended["error"]["name"]) == ("failed", "ReferenceMoved")
    moved = git(source, "rev-parse", "HEAD")
    assert ended["error"]["details"] == {"input": "moving", "resolved": resolved, "locked": moved}
    assert site.trace() == trace
    assert daemon.done("Add", refs=[reference], allow_local=True)["outcome"]["lock"][0]["after"] == moved
