# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a person is asked, with what words, and what becomes of every answer: a real polkitd, and an agent that counts."""

from __future__ import annotations

import asyncio
import signal

import pytest

from glixd.protocol import POLKIT_PREFIX
from tests.support.agent import Agent, Reply, agent
from tests.support.daemon import Answer
from tests.support.loop import on_loop, until
from tests.support.matrix import STRANGER, TRANSPORTS
from tests.support.repositories import EXAMPLES
from tests.support.system import System, Visitor

pytestmark = [pytest.mark.integration, pytest.mark.nix]

ADD = {"refs": ["hello"], "scope": "system", "dry_run": True, "interactive": True}
"""A change that needs one action."""


@pytest.fixture(scope="module", autouse=True)
def _stranger(at: System) -> None:
    """A flake in the repository that nobody vouches for."""
    at.commit({f"{STRANGER.removeprefix('path:./')}/flake.nix": (EXAMPLES / "pkg-greeting" / "flake.nix").read_text()})


def actions(asked: Agent) -> list[str]:
    return [prompt.action.removeprefix(POLKIT_PREFIX) for prompt in asked.prompts]


async def activator_asks(at: System, visitor: Visitor, action: str) -> int:
    """What the activator does: as root, about the caller, with details of its own; the exit status of pkcheck."""
    words = ["pkcheck", "--action-id", POLKIT_PREFIX + action, "--allow-user-interaction"]
    words += ["--detail", "commit", "c0ffee", "--detail", "action", "switch", "--detail", "changes", "hello"]
    subject = ["--system-bus-name", visitor.name] if visitor.name else ["--process", f"{visitor.pid}"]
    done = await asyncio.to_thread(at.machine.run, "root", *words, *subject)
    return done.returncode


async def answered(at: System, transport: str, reply: Reply | None, **request: object) -> tuple[Answer, Agent | None]:
    """What alice is answered when the person at the dialogue does `reply`; None for nobody there."""
    with at.visitor("alice", transport) as visitor:
        if reply is None:
            return await visitor.ask("Add", **{**ADD, **request}), None
        async with agent(at.machine.bus, reply) as asked:
            await asked.serve_process(visitor.pid)
            return await visitor.ask("Add", **{**ADD, **request}), asked


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_installing_what_is_trusted_and_applying_it_is_one_prompt(at: System, transport: str) -> None:
    with at.visitor("alice", transport) as visitor:
        async with agent(at.machine.bus) as asked:
            await asked.serve_process(visitor.pid)
            ended = await visitor.ask("Add", **ADD)
            assert ended["state"] == "succeeded", ended
            assert await activator_asks(at, visitor, "system-activate-trusted") == 0
            assert actions(asked) == ["package-install-trusted"]
            [prompt] = asked.prompts
            assert prompt.message == "Authentication is required to install hello on laptop"


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_what_is_not_trusted_asks_again_before_it_goes_live(at: System, transport: str) -> None:
    with at.visitor("alice", transport) as visitor:
        async with agent(at.machine.bus) as asked:
            await asked.serve_process(visitor.pid)
            ended = await visitor.ask("Add", **{**ADD, "refs": [STRANGER]})
            assert ended["state"] == "succeeded", ended
            assert await activator_asks(at, visitor, "system-activate") == 0
            assert actions(asked) == ["package-install-untrusted", "system-activate"]
            assert STRANGER in asked.prompts[0].message
            assert await activator_asks(at, visitor, "system-activate-trusted") == 0
            assert len(asked.prompts) == 3, "what is not trusted opens nothing else"


@on_loop
async def test_an_authorisation_that_is_kept_for_the_trusted_does_not_cover_strangers(at: System) -> None:
    """One prompt for hello must not let github:evil/rootkit in: they are two actions, and the second is never kept."""
    with at.visitor("alice", "bus") as visitor:
        async with agent(at.machine.bus) as asked:
            await asked.serve_process(visitor.pid)
            for refs in (["hello"], ["hello"], [STRANGER], [STRANGER]):
                assert (await visitor.ask("Add", **{**ADD, "refs": refs}))["state"] == "succeeded"
            assert actions(asked) == [
                "package-install-trusted",
                "package-install-untrusted",
                "package-install-untrusted",
            ]


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_a_change_of_several_parts_is_one_prompt_that_names_them_all(at: System, transport: str) -> None:
    ended, asked = await answered(at, transport, Reply.YES, refs=["hello", STRANGER, "tmux"], evaluate=False)
    assert ended["state"] == "succeeded", ended
    assert asked is not None
    [prompt] = asked.prompts
    assert prompt.action == POLKIT_PREFIX + "evaluation-skip"
    for part in ("evaluation-skip", "package-install-untrusted greeting", "package-install-trusted hello, tmux"):
        assert part in prompt.message


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply.NO, "NotAuthorised"),
        (Reply.DISMISS, "AuthorisationDismissed"),
        (None, "AuthorisationUnavailable"),
    ],
)
@on_loop
async def test_each_way_of_saying_no_is_an_error_of_its_own(
    at: System, transport: str, reply: Reply | None, error: str
) -> None:
    ended, _ = await answered(at, transport, reply)
    assert (ended["state"], ended["error"]) == ("failed", error)


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_nobody_is_asked_who_does_not_allow_it(at: System, transport: str) -> None:
    ended, asked = await answered(at, transport, Reply.YES, interactive=False)
    assert (ended["state"], ended["error"]) == ("failed", "NotAuthorised")
    assert asked is not None
    assert asked.prompts == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_ones_own_home_needs_no_prompt_in_an_active_session(at: System, transport: str) -> None:
    ended, asked = await answered(at, transport, Reply.NEVER, scope="home", user="alice")
    assert ended["state"] == "succeeded", ended
    assert asked is not None
    assert asked.prompts == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_loop
async def test_a_caller_that_leaves_closes_its_dialogue_and_gets_nothing(at: System, transport: str) -> None:
    async with agent(at.machine.bus, Reply.NEVER) as asked:
        with at.visitor("alice", transport) as visitor:
            await asked.serve_process(visitor.pid)
            visitor.say("Add", **{**ADD, "dry_run": False})
            await asyncio.wait_for(asked.asked.wait(), 20)
        await until(lambda: asked.taken_back == 1)
    await until(lambda: decision(at) == "cancelled")
    assert "hello" not in at.git("show", "main:hosts/laptop/glix.toml")


@on_loop
async def test_cancelling_a_transaction_closes_its_dialogue(at: System) -> None:
    async with agent(at.machine.bus, Reply.NEVER) as asked:
        with at.visitor("alice", "socket") as visitor, at.visitor("alice", "socket") as other:
            await asked.serve_process(visitor.pid)
            visitor.say("Add", **ADD)
            await asyncio.wait_for(asked.asked.wait(), 20)
            listed = (await other.ask("ListTransactions", states=["waiting-for-authorisation"]))["answer"]
            [waiting] = listed["transactions"]
            assert (await other.ask("Cancel", transaction=waiting["id"]))["answer"] == {}
            await until(lambda: asked.taken_back == 1)
    assert decision(at) == "cancelled"


def decision(at: System) -> str:
    """How the last decision went."""
    return str(at.events("authorisation decided")[-1]["result"])


# -- polkit is not well ------------------------------------------------------------------------------------------


@on_loop
async def test_polkit_that_dies_while_it_asks_lets_nobody_through_and_is_used_again_when_it_is_back(at: System) -> None:
    async with agent(at.machine.bus, Reply.NEVER) as asked:
        with at.visitor("alice", "bus") as visitor:
            await asked.serve_process(visitor.pid)
            answer = asyncio.create_task(visitor.ask("Add", **ADD))
            await asyncio.wait_for(asked.asked.wait(), 20)
            at.machine.end_polkitd()
            try:
                assert (await answer)["error"] == "AuthorisationUnavailable"
                assert (await visitor.ask("Add", **ADD))["error"] == "AuthorisationUnavailable"
                with at.visitor("root", "bus") as root:
                    assert (await root.ask("Add", **ADD))["state"] == "succeeded"
                    assert "authorisation" in str(failing(await root.ask("Doctor")))
            finally:
                at.machine.start_polkitd()
    ended, _ = await answered(at, "bus", Reply.YES)
    assert ended["state"] == "succeeded", ended


@on_loop
async def test_polkit_that_hangs_lets_nobody_through(at: System) -> None:
    assert at.machine.polkitd is not None
    with at.visitor("alice", "socket") as visitor:
        at.machine.polkitd.send_signal(signal.SIGSTOP)
        try:
            assert (await visitor.ask("Add", **ADD))["error"] == "AuthorisationUnavailable"
        finally:
            at.machine.polkitd.send_signal(signal.SIGCONT)
    ended, _ = await answered(at, "socket", Reply.YES)
    assert ended["state"] == "succeeded", ended


@on_loop
async def test_without_its_whole_policy_nothing_is_changed_and_the_doctor_says_why(at: System) -> None:
    policy = at.root / "actions" / "org.glixos.glix1.policy"
    whole = policy.read_text()
    with at.visitor("alice", "socket") as visitor, at.visitor("root", "socket") as root:
        policy.write_text(whole.replace("org.glixos.glix1.home-activate-own", "org.glixos.glix1.renamed"))
        try:
            await until_doctor(root, well=False)
            own = {**ADD, "scope": "home", "user": "alice"}
            assert (await visitor.ask("Add", **own))["error"] == "AuthorisationUnavailable"
        finally:
            policy.write_text(whole)
        await until_doctor(root, well=True)
        assert (await visitor.ask("Add", **own))["state"] == "succeeded"


async def until_doctor(root: Visitor, *, well: bool) -> None:
    """Wait until polkitd has read its actions again, which it does on its own."""
    for _ in range(400):
        found = [check for check in failing(await root.ask("Doctor")) if check["name"] == "authorisation"]
        if bool(found) is not well:
            return
    raise AssertionError(f"the doctor does not say so: {found}")


def failing(diagnosis: Answer) -> list[Answer]:
    return [check for check in diagnosis["answer"]["checks"] if check["status"] == "FAIL"]
