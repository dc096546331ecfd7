# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers that leave in the middle of being authorised get nothing, however many of them there are (CVE-2021-3560).

`DISCONNECTS` in the environment says how many leave on each transport; ./prove lets four thousand leave.
"""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from glixd.protocol import State
from tests.support.agent import Reply, agent
from tests.support.loop import on_loop
from tests.support.matrix import TRANSPORTS
from tests.support.system import System

pytestmark = [pytest.mark.integration, pytest.mark.nix]

COUNT = int(os.environ.get("DISCONNECTS", "120"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_who_leaves_while_being_authorised_is_granted_nothing(at: System, transport: str) -> None:
    before = len(decisions(at))
    address = f"{at.socket}" if transport == "socket" else at.machine.bus
    words = [sys.executable, "-m", "tests.support.leavers", transport, address, str(COUNT)]
    command, environment = at.machine.command("alice", *words), at.machine.environment()
    async with agent(at.machine.bus, Reply.NEVER) as asked:
        leavers = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd="/", stdout=asyncio.subprocess.PIPE
        )
        await asked.serve_process(leavers.pid)
        told, _ = await leavers.communicate()
        assert leavers.returncode == 0
        with at.visitor("root", "socket") as root:
            waits = [state.value for state in State if not state.final]
            while (await root.ask("ListTransactions", states=waits))["answer"]["transactions"]:
                pass  # what is under way ends by itself, now that nobody waits for it
    results = [str(event["result"]) for event in decisions(at)[before:]]
    assert int(told) == COUNT // 2, "half of them were seen waiting before they left"
    assert results.count("allowed") == 0
    assert len(results) >= COUNT // 2  # of those that left at once, some were gone before there was anything to decide
    assert set(results) <= {"cancelled", "unavailable"}, set(results)


def decisions(at: System) -> list[dict[str, object]]:
    return [event for event in at.events("authorisation decided") if event["operation"] == "CollectGarbage"]
