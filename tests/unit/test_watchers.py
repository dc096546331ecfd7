# SPDX-License-Identifier: GPL-3.0-or-later
"""What watchers are told: ten events a second at most, the last one always, and nothing to those who left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from glixd.api import ProgressEvent
from glixd.protocol import State
from glixd.watchers import INTERVAL, LINES, Watchers
from tests.support.clock import on_clock

ID = "01jzzzzzzzzzzzzzzzzzzzzzzz"
OTHER = "01jyyyyyyyyyyyyyyyyyyyyyyy"


@dataclass(eq=False)
class Reader:
    """A client that reads, or does not."""

    slow: bool = False
    taken: list[tuple[float, ProgressEvent]] = field(default_factory=list)
    refused: int = 0
    hosts: list[str] = field(default_factory=list)

    def progress(self, event: ProgressEvent) -> bool:
        if self.slow:
            self.refused += 1
            return False
        self.taken.append((asyncio.get_running_loop().time(), event))
        return True

    def changed(self, host: str) -> None:
        self.hosts.append(host)

    def staged(self, host: str) -> None:
        self.hosts.append(f"staged {host}")

    @property
    def steps(self) -> list[str | None]:
        return [event.step for _, event in self.taken]

    @property
    def lines(self) -> list[str]:
        return [line for _, event in self.taken for line in event.lines]


def event(step: str, state: State = State.RUNNING, transaction: str = ID) -> ProgressEvent:
    return ProgressEvent(transaction=transaction, state=state, step=step, lines=(step,))


async def passes(seconds: float) -> None:
    await asyncio.sleep(seconds)


def watched(*readers: Reader) -> Watchers:
    watchers = Watchers()
    for reader in readers:
        watchers.attach(reader)
        watchers.watch(reader, ID)
    return watchers


@on_clock
async def test_a_single_event_comes_at_once() -> None:
    reader = Reader()
    watched(reader).progress(event("locking"))
    assert reader.steps == ["locking"]


@on_clock
async def test_a_thousand_events_in_a_second_become_ten_and_no_line_is_lost() -> None:
    reader = Reader()
    watchers = watched(reader)
    for number in range(1000):
        watchers.progress(event(str(number)))
        await passes(0.001)
    await passes(INTERVAL)
    moments = [moment for moment, _ in reader.taken]
    assert all(later - earlier >= INTERVAL - 1e-9 for earlier, later in pairwise(moments))
    assert 9 <= len(moments) <= 12
    assert reader.steps[-1] == "999"
    assert reader.lines == [str(number) for number in range(1000)]


@on_clock
async def test_the_last_event_comes_at_once_however_many_came_before() -> None:
    reader = Reader()
    watchers = watched(reader)
    for number in range(50):
        watchers.progress(event(str(number)))
    watchers.progress(event("done", State.SUCCEEDED))
    assert reader.steps == ["0", "done"]
    assert reader.taken[-1][1].state == "succeeded"
    assert reader.lines == [*map(str, range(50)), "done"]
    await passes(10)
    assert reader.steps == ["0", "done"]


@on_clock
async def test_a_slow_reader_loses_events_but_never_the_last() -> None:
    reader = Reader(slow=True)
    watchers = watched(reader)
    for number in range(500):
        watchers.progress(event(str(number)))
        await passes(0.01)
    watchers.progress(event("done", State.FAILED))
    await passes(5)
    assert reader.taken == []
    reader.slow = False
    await passes(INTERVAL)
    assert reader.steps == ["done"]
    assert reader.taken[0][1].state == "failed"
    assert len(reader.lines) == LINES
    assert reader.lines[-1] == "done"
    assert reader.refused <= 10.5 / INTERVAL, "it was asked more than ten times a second"


@on_clock
async def test_a_slow_reader_does_not_hold_up_others() -> None:
    slow, quick = Reader(slow=True), Reader()
    watchers = watched(slow, quick)
    watchers.progress(event("one"))
    await passes(INTERVAL)
    watchers.progress(event("done", State.SUCCEEDED))
    assert quick.steps == ["one", "done"]


@on_clock
async def test_a_slow_reader_that_leaves_before_the_last_event_is_forgotten() -> None:
    reader = Reader(slow=True)
    watchers = watched(reader)
    watchers.progress(event("done", State.SUCCEEDED))
    await passes(1)
    watchers.detach(reader)
    refused = reader.refused
    await passes(10)
    assert reader.refused == refused, "somebody who is gone is still asked"


@pytest.mark.parametrize("leave", ["unwatch", "detach"])
@on_clock
async def test_who_leaves_is_told_nothing_more(leave: str) -> None:
    reader = Reader()
    watchers = watched(reader)
    watchers.progress(event("one"))
    watchers.progress(event("two"))
    if leave == "unwatch":
        watchers.unwatch(reader, ID)
        watchers.unwatch(reader, ID)
    else:
        watchers.detach(reader)
        watchers.detach(reader)
    watchers.progress(event("three"))
    watchers.progress(event("done", State.SUCCEEDED))
    await passes(1)
    assert reader.steps == ["one"]


@on_clock
async def test_only_who_watches_a_transaction_hears_of_it() -> None:
    watcher, other = Reader(), Reader()
    watchers = watched(watcher)
    watchers.attach(other)
    watchers.watch(other, OTHER)
    watchers.progress(event("mine"))
    assert (watcher.steps, other.steps) == (["mine"], [])
    watchers.progress(event("theirs", transaction=OTHER))
    assert (watcher.steps, other.steps) == (["mine"], ["theirs"])


@on_clock
async def test_watching_twice_is_watching_once() -> None:
    reader = Reader()
    watchers = watched(reader)
    watchers.watch(reader, ID)
    watchers.progress(event("one"))
    assert reader.steps == ["one"]


@on_clock
async def test_everybody_is_told_that_a_manifest_changed_until_they_leave() -> None:
    first, second = Reader(), Reader()
    watchers = watched(first, second)
    watchers.changed("laptop")
    watchers.detach(second)
    watchers.changed("server")
    watchers.staged("server")
    assert (first.hosts, second.hosts) == (["laptop", "server", "staged server"], ["laptop"])


@dataclass
class Broadcast:
    """A transport that tells everybody."""

    told: list[tuple[object, ...]] = field(default_factory=list)

    def added(self, transaction: str, state: State) -> None:
        self.told.append(("added", transaction, state))

    def state_changed(self, transaction: str, state: State) -> None:
        self.told.append(("state", transaction, state))

    def removed(self, transaction: str) -> None:
        self.told.append(("removed", transaction))

    def changed(self, host: str) -> None:
        self.told.append(("changed", host))

    def staged(self, host: str) -> None:
        self.told.append(("staged", host))


@on_clock
async def test_a_broadcast_carries_ids_and_states_and_no_progress() -> None:
    broadcast = Broadcast()
    watchers = Watchers()
    watchers.observe(broadcast)
    watchers.added(ID, State.PREPARING)
    watchers.progress(event("a secret step"))
    watchers.state_changed(ID, State.RUNNING)
    watchers.changed("laptop")
    watchers.removed(ID)
    assert broadcast.told == [
        ("added", ID, State.PREPARING),
        ("state", ID, State.RUNNING),
        ("changed", "laptop"),
        ("removed", ID),
    ]


@on_clock
async def test_everybody_hears_of_a_change_at_once_and_of_many_ten_times_a_second() -> None:
    reader, broadcast = Reader(), Broadcast()
    watchers = watched(reader)
    watchers.observe(broadcast)
    watchers.changed("laptop")
    watchers.changed("pi")
    assert reader.hosts == ["laptop", "pi"]
    for _ in range(10):
        watchers.changed("laptop")
    assert reader.hosts == ["laptop", "pi"]
    await passes(INTERVAL * 1.5)
    assert reader.hosts == ["laptop", "pi", "laptop"], "the last one is told, and those before with it"
    await passes(INTERVAL * 3)
    assert reader.hosts == ["laptop", "pi", "laptop"]
    watchers.changed("laptop")
    assert reader.hosts == ["laptop", "pi", "laptop", "laptop"]
    assert [host for _, host in broadcast.told] == reader.hosts


@on_clock
async def test_a_client_that_left_in_the_middle_of_its_call_is_not_brought_back() -> None:
    reader = Reader()
    watchers = watched(reader)
    watchers.detach(reader)
    watchers.watch(reader, OTHER)
    watchers.changed("laptop")
    assert reader.hosts == []
