# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to polkit, and whoever decides by it: nothing but a plain yes lets anybody through, whatever answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from glixd.actions import REGISTERED
from glixd.api import Caller, Presence
from glixd.authority import PolkitAuthority
from glixd.backends.bus import Bus, Message
from glixd.backends.polkit import Polkit, subject_of
from glixd.errors import Cancelled, NotAllowed
from glixd.policy import Check
from glixd.protocol import POLKIT_PREFIX, ErrorCode
from tests.support.fake_polkit import Answers, FakePolkit, asked, fake_polkit
from tests.support.loop import on_loop, until
from tests.support.private_bus import private_bus

pytestmark = pytest.mark.integration

INSTALL = Check(POLKIT_PREFIX + "package-install-trusted", {"package": "hello", "trusted": "yes"})
STRANGER = Check(POLKIT_PREFIX + "package-install-untrusted", {"package": "evil", "trusted": "no"})
REMOVE = Check(POLKIT_PREFIX + "package-remove", {"package": "vim"})


@dataclass
class Running:
    """A process that can be said to have ended."""

    pid: int = 4711
    start: int = 99
    alive: bool = True


@dataclass
class World:
    """The authority with its bus and the service that answers it."""

    authority: PolkitAuthority
    polkit: FakePolkit
    bus: Bus
    caller: Caller

    async def refusal(self, *checks: Check, interactive: bool = True, caller: Caller | None = None) -> NotAllowed:
        with pytest.raises(NotAllowed) as caught:
            await self.authority.authorise(caller or self.caller, checks or (INSTALL,), interactive=interactive)
        return caught.value

    async def allow(self, *checks: Check, interactive: bool = True, caller: Caller | None = None) -> None:
        await self.authority.authorise(caller or self.caller, checks or (INSTALL,), interactive=interactive)

    def actions(self, *, prompts: bool) -> list[str]:
        """The actions that were asked about, silently or with a prompt."""
        return [action for _, _, action, _, interactive in map(asked, self.polkit.checks) if interactive is prompts]


@asynccontextmanager
async def world(
    folder: Path, *, patience: float = 20.0, silence: float = 20.0, per_uid: int = 4, present: bool = True
) -> AsyncIterator[World]:
    with private_bus(folder) as address:
        bus = await Bus.connect(address)
        door = Polkit(bus, REGISTERED, silence=silence)
        await door.start()
        authority = PolkitAuthority(door, checks_per_uid=per_uid, patience=patience)
        caller = Caller(uid=1000, login="alice", address=":1.77")
        async with fake_polkit(address) as service:
            try:
                yield World(authority, service, bus, caller)
            finally:
                await bus.close()


# -- what is a yes -------------------------------------------------------------------------------------------------


@on_loop
async def test_a_plain_yes_lets_through(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=True)
        await at.allow(interactive=False)
        assert asked(at.polkit.checks[0]) == (
            "system-bus-name",
            {"name": ":1.77"},
            "package-install-trusted",
            {"package": "hello", "trusted": "yes"},
            False,
        )


BROKEN: Sequence[tuple[str, Callable[[FakePolkit], Answers], ErrorCode]] = (
    ("refused", lambda polkit: polkit.say(authorised=False), ErrorCode.NOT_AUTHORISED),
    (
        "failed",
        lambda polkit: polkit.fail("org.freedesktop.PolicyKit1.Error.Failed"),
        ErrorCode.AUTHORISATION_UNAVAILABLE,
    ),
    (
        "not the owner",
        lambda polkit: polkit.fail("org.freedesktop.PolicyKit1.Error.NotAuthorized"),
        ErrorCode.AUTHORISATION_UNAVAILABLE,
    ),
    (
        "cancelled by another",
        lambda polkit: polkit.fail("org.freedesktop.PolicyKit1.Error.Cancelled"),
        ErrorCode.AUTHORISATION_UNAVAILABLE,
    ),
    ("no reply", lambda polkit: polkit.fail("org.freedesktop.DBus.Error.NoReply"), ErrorCode.AUTHORISATION_UNAVAILABLE),
    ("another form", lambda polkit: polkit.spell("b", True), ErrorCode.AUTHORISATION_UNAVAILABLE),
    ("empty", lambda polkit: polkit.spell(""), ErrorCode.AUTHORISATION_UNAVAILABLE),
    ("a number", lambda polkit: polkit.spell("(uba{ss})", [1, False, {}]), ErrorCode.AUTHORISATION_UNAVAILABLE),
    ("a text", lambda polkit: polkit.spell("(sba{ss})", ["true", False, {}]), ErrorCode.AUTHORISATION_UNAVAILABLE),
)


@pytest.mark.parametrize(("answer", "code"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
@on_loop
async def test_nothing_else_is_a_yes(tmp_path: Path, answer: Callable[[FakePolkit], Answers], code: ErrorCode) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = answer(at.polkit)
        assert (await at.refusal()).code is code
        assert (await at.refusal(interactive=False)).code is code


@on_loop
async def test_a_challenge_is_no_yes(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=False, challenge=True)
        refused = await at.refusal(interactive=False)
        assert (refused.code, refused.details) == (ErrorCode.NOT_AUTHORISED, {"action": INSTALL.action})
        assert at.actions(prompts=True) == []
        assert (await at.refusal()).code is ErrorCode.AUTHORISATION_UNAVAILABLE  # there is nobody who could ask


@on_loop
async def test_a_dialogue_that_was_closed_is_another_answer_than_a_refusal(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        silent, prompt = (
            at.polkit.say(authorised=False, challenge=True),
            at.polkit.say(authorised=False, polkit_dismissed="true"),
        )
        at.polkit.answer = lambda check: (prompt if asked(check)[4] else silent)(check)
        assert (await at.refusal()).code is ErrorCode.AUTHORISATION_DISMISSED


# -- polkit is not there -------------------------------------------------------------------------------------------


@on_loop
async def test_without_polkit_nobody_is_let_through_and_with_it_again(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        bus = await Bus.connect(address)
        door = Polkit(bus, REGISTERED)
        await door.start()
        at = World(PolkitAuthority(door), None, bus, Caller(1000, "alice", ":1.77"))  # type: ignore[arg-type]
        assert (await at.refusal()).code is ErrorCode.AUTHORISATION_UNAVAILABLE
        assert await at.authority.problem()
        async with fake_polkit(address) as service:
            service.answer = service.say(authorised=True)
            await at.allow()
            assert await at.authority.problem() is None
        assert (await at.refusal()).code is ErrorCode.AUTHORISATION_UNAVAILABLE
        await bus.close()


@on_loop
async def test_a_polkit_that_hangs_lets_nobody_through(tmp_path: Path) -> None:
    async with world(tmp_path, silence=0.2) as at:
        at.polkit.answer = lambda _: None
        refused = await at.refusal()
        assert refused.code is ErrorCode.AUTHORISATION_UNAVAILABLE
        await until(lambda: len(at.polkit.taken_back) == 1)
        assert at.polkit.taken_back == [at.polkit.checks[0].body[4]]


@on_loop
async def test_a_dialogue_that_nobody_answers_times_out_and_is_taken_back(tmp_path: Path) -> None:
    async with world(tmp_path, patience=0.3) as at:
        silent = at.polkit.say(authorised=False, challenge=True)
        at.polkit.answer = lambda check: None if asked(check)[4] else silent(check)
        assert (await at.refusal()).code is ErrorCode.AUTHORISATION_TIMED_OUT
        await until(lambda: at.polkit.taken_back == [at.polkit.checks[-1].body[4]])


@on_loop
async def test_actions_that_polkit_does_not_know_are_refused_altogether(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=True)
        at.polkit.actions = REGISTERED - {POLKIT_PREFIX + "host-manage"}
        refused = await at.refusal()  # though it is another action that is asked for
        assert refused.code is ErrorCode.AUTHORISATION_UNAVAILABLE
        assert refused.details == {"missing": [POLKIT_PREFIX + "host-manage"]}
        assert at.polkit.checks == []
        assert "host-manage" in (await at.authority.problem() or "")
        at.polkit.actions = REGISTERED
        await at.allow()


@on_loop
async def test_the_actions_are_looked_at_once_and_again_when_polkit_says_that_they_changed(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=True)
        await at.allow()
        looked = at.polkit.enumerations
        await at.allow()
        await at.allow()
        assert at.polkit.enumerations == looked
        at.polkit.actions = frozenset()
        at.polkit.change()
        await until(lambda: not at.authority._polkit._known)  # type: ignore[union-attr]
        assert (await at.refusal()).code is ErrorCode.AUTHORISATION_UNAVAILABLE


@on_loop
async def test_without_a_bus_there_is_nobody_but_root() -> None:
    authority = PolkitAuthority(None)
    await authority.authorise(Caller(0, "root", "socket:1"), (INSTALL,), interactive=False)
    with pytest.raises(NotAllowed) as caught:
        await authority.authorise(Caller(1000, "alice", "socket:1"), (INSTALL,), interactive=False)
    assert caught.value.code is ErrorCode.AUTHORISATION_UNAVAILABLE


# -- who is asked about --------------------------------------------------------------------------------------------


@on_loop
async def test_root_needs_no_polkit(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await at.allow(STRANGER, caller=Caller(0, "root", ":1.5"))
        assert at.polkit.checks == []


@on_loop
async def test_what_everybody_may_do_is_not_asked_about(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await at.authority.authorise(at.caller, (), interactive=True)
        assert at.polkit.checks == []


@pytest.mark.parametrize("uid", [65534, 2**31, 2**31 + 1000, 2**32 - 1, -1])
@on_loop
async def test_a_uid_that_stands_for_nobody_is_refused_unasked(tmp_path: Path, uid: int) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=True)
        for caller in (replace(at.caller, uid=uid), Caller(uid, "x", "socket:1", Running())):
            assert (await at.refusal(caller=caller)).code is ErrorCode.NOT_AUTHORISED
        assert at.polkit.checks == []


@on_loop
async def test_a_peer_of_the_socket_is_its_process_with_its_uid(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=True)
        await at.allow(caller=Caller(1000, "alice", "socket:1", Running(pid=12, start=34)))
        assert asked(at.polkit.checks[0])[:2] == ("unix-process", {"pid": 12, "start-time": 34, "uid": 1000})


@on_loop
async def test_a_pid_that_may_mean_somebody_else_by_now_is_not_let_through(tmp_path: Path) -> None:
    """The answer is about the pid; it counts only if the process that connected still runs after it."""
    async with world(tmp_path) as at:
        process = Running()
        caller = Caller(1000, "alice", "socket:1", process)
        yes = at.polkit.say(authorised=True)

        def answer(check: Message) -> None:
            process.alive = False
            yes(check)

        at.polkit.answer = answer
        with pytest.raises(Cancelled):
            await at.authority.authorise(caller, (INSTALL,), interactive=False)
        with pytest.raises(Cancelled):  # and is not even asked about when that is known before
            await at.authority.authorise(caller, (INSTALL,), interactive=False)
        assert len(at.polkit.checks) == 1


def test_a_peer_whose_process_is_not_known_is_no_subject() -> None:
    assert subject_of(Caller(1000, "alice", "socket:1")) is None
    assert subject_of(Caller(1000, "alice", "socket:1", Running(alive=False))) is None
    assert subject_of(Caller(1000, "alice", "socket:1", Running())) is not None


# -- leaving -------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_caller_that_leaves_takes_its_question_along(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        silent = at.polkit.say(authorised=False, challenge=True)
        at.polkit.answer = lambda check: None if asked(check)[4] else silent(check)
        asking = asyncio.create_task(at.allow())
        await until(lambda: bool(at.actions(prompts=True)))
        at.caller.presence.leave()
        with pytest.raises(Cancelled):
            await asking
        await until(lambda: at.polkit.taken_back == [at.polkit.checks[-1].body[4]])


@on_loop
async def test_a_caller_that_has_left_is_not_asked_about(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.say(authorised=True)
        at.caller.presence.leave()
        with pytest.raises(Cancelled):
            await at.allow()
        assert at.polkit.checks == []


@on_loop
async def test_a_yes_that_comes_after_the_caller_left_is_none(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        yes = at.polkit.say(authorised=True)

        def answer(check: Message) -> None:
            at.caller.presence.leave()
            yes(check)

        at.polkit.answer = answer
        with pytest.raises(Cancelled):
            await at.allow()


@on_loop
async def test_whoever_gives_up_waiting_takes_the_question_back(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = lambda _: None
        asking = asyncio.create_task(at.allow())
        await until(lambda: bool(at.polkit.checks))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: len(at.polkit.taken_back) == 1)


# -- several actions -----------------------------------------------------------------------------------------------


@on_loop
async def test_the_strongest_prompts_once_and_the_others_are_asked_about_silently(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        challenge = (False, True)
        at.polkit.answer = at.polkit.by_action(
            {"package-install-untrusted": challenge, "package-install-trusted": challenge, "package-remove": challenge}
        )
        await at.allow(STRANGER, INSTALL, REMOVE)
        assert at.actions(prompts=False) == ["package-install-untrusted", "package-install-trusted", "package-remove"]
        assert at.actions(prompts=True) == ["package-install-untrusted"]
        *_, details, _ = asked(at.polkit.checks[-1])
        assert {name: details[name] for name in STRANGER.details} == STRANGER.details  # what rules read is as it was
        assert details["parts"] == "package-install-untrusted evil; package-install-trusted hello; package-remove vim"
        assert details["polkit.message"] == "Authentication is required for 3 steps: $(parts)"


@on_loop
async def test_a_plain_no_to_any_of_them_refuses_before_anybody_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.by_action({"package-install-untrusted": (False, True)})
        refused = await at.refusal(STRANGER, REMOVE)
        assert (refused.code, refused.details) == (ErrorCode.NOT_AUTHORISED, {"action": REMOVE.action})
        assert at.actions(prompts=True) == []


@on_loop
async def test_what_is_allowed_already_does_not_open_what_is_not(tmp_path: Path) -> None:
    """A rule that lets the strongest through without a password says nothing about the others."""
    async with world(tmp_path) as at:
        at.polkit.answer = at.polkit.by_action(
            {"package-install-untrusted": (True, False), "package-remove": (False, True)}
        )
        await at.allow(STRANGER, REMOVE)
        assert at.actions(prompts=True) == ["package-remove"]
        refused = await at.refusal(STRANGER, REMOVE, interactive=False)
        assert refused.details == {"action": REMOVE.action}


# -- limits --------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_uid_has_few_questions_under_way_and_others_are_not_held_up(tmp_path: Path) -> None:
    async with world(tmp_path, per_uid=2) as at:
        held: list[Message] = []
        yes = at.polkit.say(authorised=True)
        at.polkit.answer = held.append
        mine = [asyncio.create_task(at.allow()) for _ in range(5)]
        await until(lambda: len(held) == 2)
        other = asyncio.create_task(at.allow(caller=Caller(1001, "bob", ":1.78")))
        await until(lambda: len(held) == 3)
        assert not other.done()
        while not all(task.done() for task in (*mine, other)):
            assert len(held) <= 3
            if held:
                yes(held.pop(0))
            await asyncio.sleep(0)
        await asyncio.gather(*mine, other)
        assert at.authority._turns == {}


def test_the_process_of_this_test_is_not_the_user_nobody() -> None:
    assert os.getuid() != 65534  # else the tests above would say nothing
    assert Presence().here
