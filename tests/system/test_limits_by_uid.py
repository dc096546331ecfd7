# SPDX-License-Identifier: GPL-3.0-or-later
"""What one user has under way leaves room for the others: real users of a machine, each at the limit of their own."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from glixd.protocol import MAX_PENDING, MAX_PENDING_PER_UID
from tests.support.machine import UIDS
from tests.support.system import System, system

EVERYBODY = """\
polkit.addRule(function (action, subject) {
    return action.id.indexOf("org.glixos.") === 0 ? polkit.Result.YES : polkit.Result.NOT_HANDLED;
});
"""
DEFAULTS = {"GLIXD_PENDING": str(MAX_PENDING), "GLIXD_PENDING_PER_UID": str(MAX_PENDING_PER_UID)}
TOO_MANY = MAX_PENDING_PER_UID + 4
ADDS = f"""\
import sys
from pathlib import Path
from tests.support.daemon import RpcClient, RpcError

with RpcClient(Path(sys.argv[1])) as client:
    started = []
    for number in range({TOO_MANY}):
        try:
            name = f"hello-{{sys.argv[2]}}-{{number}}"
            started.append(client.call("Add", refs=["nixpkgs#hello"], name=name, evaluate=False)["transaction"])
        except RpcError as error:
            print(error.name)
    for transaction in started:
        client.reach(transaction, "queued")  # whoever leaves before they are authorised takes the request along
        print(transaction)
"""
pytestmark = pytest.mark.system


@contextmanager
def held(at: System) -> Iterator[None]:
    """Hold the lock of the repository, so that nothing under way comes to its end."""
    descriptor = os.open(at.repository / ".git" / "glix" / "lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def adds(at: System, user: str) -> list[str]:
    """What a user is told who asks for too much at once."""
    done = at.machine.run(user, sys.executable, "-c", ADDS, os.fspath(at.socket), user)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_each_user_has_a_limit_of_their_own_and_root_a_reserve() -> None:
    users = ("alice", "bob", "wanda")
    with system(rules={"00-everybody.rules": EVERYBODY}, start=False) as at:
        at.start(DEFAULTS)
        with at.as_root() as root:
            before = int(at.git("rev-list", "--count", "HEAD"))
            with held(at), ThreadPoolExecutor(len(users)) as pool:
                told = dict(zip(users, pool.map(lambda user: adds(at, user), users), strict=True))
                for user, answers in told.items():
                    assert answers.count("LimitExceeded") == TOO_MANY - MAX_PENDING_PER_UID, (user, answers)
                assert root.call("List")["packages"] == [], "whoever only asks waits for nobody"
                mine = root.call("Add", refs=["git"], evaluate=False)["transaction"]
            started = [one for answers in told.values() for one in answers if one != "LimitExceeded"]
            ends = [root.wait(transaction) for transaction in (*started, mine)]
            assert {end["state"] for end in ends} == {"succeeded"}, [end.get("error") for end in ends]
            assert int(at.git("rev-list", "--count", "HEAD")) == before + len(started) + 1
            uids = at.git("log", f"-{len(started) + 1}", "--format=%(trailers:key=Glix-Uid,valueonly,separator=%x20)")
            counts = {uid: uids.split().count(str(uid)) for uid in (0, *(UIDS[user] for user in users))}
            assert counts == {0: 1, **{UIDS[user]: MAX_PENDING_PER_UID for user in users}}
