# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon that lives long: 20,000 changes and 100,000 questions through one process, which stays as small as it was.

With GLIX_SOAK in the environment, that part of it is done: `GLIX_SOAK=0.02` takes about a minute.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from glixd.backends.packs import MANY
from glixd.backends.state import JOURNAL, KEEP
from glixd.housekeeping import LOOSE
from tests.support.bus_client import BusClient
from tests.support.daemon import Answer, RpcClient, RpcError, RunningDaemon, Site, Template, new_site
from tests.support.hermetic import HermeticNix
from tests.support.private_bus import private_bus
from tests.support.repositories import Sources

PART: Final = float(os.environ.get("GLIX_SOAK", "1"))
MUTATIONS: Final = int(20_000 * PART)
QUERIES: Final = int(100_000 * PART)
WARM: Final = 0.1
"""The part after which the daemon has warmed up: every cache has what it will have."""
SAMPLES: Final = 50
GROWTH: Final = 10 * 1024 * 1024
DATABASE: Final = 8 * 1024 * 1024
CLIENTS: Final = 4
"""Connections at work at once; the first of them is on the bus."""
LASTS: Final = 100
"""Rounds after which a client ends its connection and makes another one."""
MANIFEST: Final = "hosts/laptop/glix.toml"

Client = RpcClient | BusClient


@dataclass(frozen=True)
class Sample:
    """What the daemon takes up at one moment."""

    mutations: int
    queries: int
    memory: int
    descriptors: int
    threads: int
    loose: int
    packs: int
    repository: int
    database: int
    journal: int
    refs: int

    @classmethod
    def of(cls, daemon: RunningDaemon, mutations: int, queries: int) -> Sample:
        process, git = Path(f"/proc/{daemon.pid}"), daemon.site.repository / ".git"
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        journal = daemon.state / "state.db-wal"
        return cls(
            mutations,
            queries,
            memory=int(status["VmRSS"].split()[0]) * 1024,
            descriptors=len(os.listdir(process / "fd")),
            threads=int(status["Threads"]),
            loose=sum(len(path.parent.name) == 2 for path in _files(git / "objects")),
            packs=len(list((git / "objects" / "pack").glob("*.idx"))),
            repository=_size(git / "objects"),
            database=(daemon.state / "state.db").stat().st_size,
            journal=journal.stat().st_size if journal.exists() else 0,
            refs=sum(path.suffix != ".lock" for path in _files(git / "refs" / "glix")),
        )

    def line(self) -> str:
        return (
            f"{self.mutations:8} {self.queries:8} {self.memory / 2**20:9.1f} {self.descriptors:6} {self.threads:7} "
            f"{self.loose:6} {self.packs:5} {self.repository / 2**20:9.1f} {self.database / 2**20:6.1f} "
            f"{self.journal / 2**20:6.1f}"
        )


HEAD: Final = " changes  queries  RSS(MiB)    fds threads  loose packs objs(MiB) db(MiB) wal(MiB)"


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder; git may take one or the other away meanwhile."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _size(folder: Path) -> int:
    total = 0
    for path in _files(folder):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


@dataclass
class Work:
    """What all clients share: how much is to be done, and what was."""

    daemon: RunningDaemon
    show: Callable[[str], None]
    guard: threading.Lock = field(default_factory=threading.Lock)
    commits: int = 0
    mutations: int = 0
    queries: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def left(self) -> bool:
        return self.mutations < MUTATIONS or self.queries < QUERIES

    def changed(self, operation: str, transaction: Answer) -> None:
        error = transaction.get("error")
        with self.guard:
            self.mutations += 1
            self.commits += "commit" in transaction
            self.ends[f"{operation} {error['name'] if error else transaction['state']}"] += 1
            self.ids = [*self.ids[-50:], transaction["id"]]
        self.sample()

    def asked(self) -> None:
        with self.guard:
            self.queries += 1

    def sample(self) -> None:
        with self.guard:
            if self.mutations < len(self.samples) * MUTATIONS / SAMPLES:
                return
            self.samples.append(Sample.of(self.daemon, self.mutations, self.queries))
            self.show(self.samples[-1].line())


class Person:
    """One client: what it changes and asks is random, and the same in every run."""

    def __init__(self, number: int, work: Work) -> None:
        self._number = number
        self._work = work
        self._random = random.Random(number)
        self._values = itertools.count(number, CLIENTS)

    def live(self) -> None:
        """Change and ask until everything is done, with a new connection now and then."""
        while self._work.left:
            with self._connection() as client:
                for _ in range(LASTS):
                    if self._work.mutations < MUTATIONS:
                        self._change(client)
                    for _ in range(max(1, QUERIES // MUTATIONS)):
                        self._ask(client)

    def _connection(self) -> Client:
        return BusClient() if self._number == 0 else self._work.daemon.connect()

    def _change(self, client: Client) -> None:
        operation, parameters = self._mutation()
        self._work.changed(operation, client.run(operation, evaluate=False, **parameters))

    def _mutation(self) -> tuple[str, Answer]:
        mine = f"hello-{self._number}-{self._random.randrange(8)}"
        value = next(self._values)
        match self._random.randrange(20):
            case 0 | 1 | 2:
                return "Add", {"refs": ["nixpkgs#hello"], "name": mine}
            case 3 | 4:
                return "Remove", {"names": [mine]}
            case 5:
                return "Disable", {"names": [mine]}
            case 6:
                return "Enable", {"names": [mine]}
            case 7:
                return "Move", {"names": [mine], "scope": "home" if value % 2 else "system"}
            case 8:
                return "SetHost", {"changes": {"state_version": f"25.{value % 90 + 10}"}}
            case 9:
                return "Add", {"refs": ["hello"], "name": mine, "dry_run": True}
            case 10:
                return "Rollback", {}
            case _:
                return "Set", {"name": "firefox", "changes": {f"config.value{self._number}": str(value)}}

    def _ask(self, client: Client) -> None:
        operation, parameters = self._query()
        try:
            client.call(operation, **parameters)
        except RpcError as error:
            if error.name not in ("NotInstalled", "UnknownTransaction"):
                raise
        self._work.asked()

    def _query(self) -> tuple[str, Answer]:
        mine = f"hello-{self._number}-{self._random.randrange(8)}"
        ids = self._work.ids
        match self._random.randrange(12):
            case 0 | 1 | 2:
                return "List", {}
            case 3:
                return "Show", {"name": mine}
            case 4:
                return "Info", {}
            case 5:
                return "History", {"limit": 20}
            case 6:
                return "ListTransactions", {"limit": 20}
            case 7 if ids:
                return "GetTransaction", {"transaction": self._random.choice(ids)}
            case 8:
                return "ListHosts", {}
            case 9:
                return "ListInputs", {}
            case 10:
                return "Search", {"query": "hel"}
            case _:
                return "GetCapabilities", {}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """A daemon as it is by default, on a bus and a socket."""
    nix = HermeticNix(tmp_path / "nix")
    template = Template.make(tmp_path / "template", nix, Sources.make(tmp_path / "sources"))
    with new_site(tmp_path / "site", nix, template) as site, private_bus(site.runtime) as address:
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = address
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        with RunningDaemon(site, bus="session") as running:
            running.done("Add", refs=["firefox"])
            yield running
    nix.remove()


@pytest.mark.timeout(6 * 3600)
def test_daemon_stays_small_through_changes_and_questions(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    def show(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    site = daemon.site
    before = len(site.commits())
    show(f"\n{MUTATIONS} changes and {QUERIES} queries by {CLIENTS} clients\n{HEAD}")
    work, started = Work(daemon, show), time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(Person(number, work).live) for number in range(CLIENTS)]:
            done.result()
    seconds = time.monotonic() - started
    work.samples.append(Sample.of(daemon, work.mutations, work.queries))
    show(work.samples[-1].line())
    show(f"{seconds:.0f} s; {work.commits} commits; {dict(sorted(work.ends.items()))}")
    _check_size(work.samples, show)
    _check_history(site, before, work)
    assert len(daemon.call("ListTransactions", limit=1000)["transactions"]) <= 1000
    assert daemon.stop() == 0
    with RunningDaemon(site, extra={"GLIXD_INDEX": "false"}) as again:
        assert len(again.call("ListTransactions", limit=1000)["transactions"]) <= KEEP
        assert again.done("Add", refs=["git"], evaluate=False)["commit"] == site.git("rev-parse", "HEAD")


def _check_size(samples: list[Sample], show: Callable[[str], None]) -> None:
    """Nothing grows once the daemon has warmed up."""
    warm = [sample for sample in samples if sample.mutations >= WARM * MUTATIONS]
    third = max(1, len(warm) // 3)
    growth = _middle(warm[-third:], "memory") - _middle(warm[:third], "memory")
    show(
        f"memory grew by {growth / 2**20:.1f} MiB after the warm-up; descriptors: "
        f"{_middle(warm[:third], 'descriptors')} and {_middle(warm[-third:], 'descriptors')}"
    )
    assert growth < GROWTH
    assert max(sample.descriptors for sample in warm[-third:]) <= max(sample.descriptors for sample in warm[:third]) + 4
    assert max(sample.threads for sample in warm[-third:]) <= max(sample.threads for sample in warm[:third]) + 2
    assert max(sample.loose for sample in samples) < 4 * LOOSE
    assert max(sample.packs for sample in samples) <= MANY + 2
    assert max(sample.journal for sample in samples) <= 2 * JOURNAL
    assert max(sample.refs for sample in samples) <= 2
    assert max(sample.database for sample in samples) <= DATABASE


def _middle(samples: list[Sample], what: str) -> Any:
    """The middle value of some samples: of a moment alone it says little."""
    return sorted(getattr(sample, what) for sample in samples)[len(samples) // 2]


def _check_history(site: Site, before: int, work: Work) -> None:
    """Every change that was reported is a commit, and nothing is damaged."""
    assert work.ends.total() == work.mutations
    assert len(site.commits()) == before + work.commits
    assert site.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""
    assert site.git("status", "--porcelain") == ""
    assert site.read(MANIFEST) == site.committed(MANIFEST)
