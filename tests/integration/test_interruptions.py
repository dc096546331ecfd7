# SPDX-License-Identifier: GPL-3.0-or-later
"""A rebuild that is stopped in each of its phases, by whoever asked or by the end of the daemon, changes nothing.

Each phase is held: an evaluation that does not end, a download that stalls, a builder and an activation that wait at a gate.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.daemon import PATIENCE, RpcClient, RunningDaemon, Site, Template, new_site
from tests.support.hermetic import HermeticNix
from tests.support.repositories import Sources
from tests.support.switching import Machine, switchable

pytestmark = [pytest.mark.integration, pytest.mark.nix]

PHASES: Final = ("evaluating", "fetching", "building")
ENDLESS: Final = (
    "let f = n: if n == 0 then 0 else f (n - 1) + 0; in"
    " toString (builtins.foldl' (a: _: a + f 5000) 0 (builtins.genList (x: x) 1000000))"
)
GATED: Final = """
environment.systemPackages = [
  (derivation {{
    name = "gated-1.0"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-ec" "read word < {gate}; mkdir -p $out/bin; touch $out/bin/gated" ];
  }})
];
"""


@dataclass
class Cache:
    """A binary cache whose downloads stall in the middle until they are let go."""

    url: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@contextmanager
def caching(folder: Path) -> Iterator[Cache]:
    """Serve a folder as a binary cache."""
    cache = Cache()

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            try:
                data = source.read()
                if self.path.startswith("/nar/"):
                    outputfile.write(data[: len(data) // 2])
                    outputfile.flush()
                    data = data[len(data) // 2 :]
                    cache.stalled.set()
                    cache.go.wait(PATIENCE)
                outputfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=os.fspath(folder))) as http:
        cache.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield cache
        finally:
            cache.go.set()
            http.shutdown()
            thread.join()


@dataclass(frozen=True)
class World:
    """A nix of the module's own, whose cache stalls, and what is in that cache."""

    nix: HermeticNix
    template: Template
    cache: Cache
    cached: list[tuple[str, Path]]
    """Packages that are there and that nobody has fetched yet."""


@dataclass(frozen=True)
class Held:
    """A machine whose next rebuild is held in a phase."""

    site: Site
    machine: Machine
    gate: Path
    release: Callable[[], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> Iterator[World]:
    root = tmp_path_factory.mktemp("stalling")
    nix = HermeticNix(root / "nix")
    template = Template.make(root / "template", nix, sources)
    cached = [(name, nix.build(f"{sources.nixpkgs}#{name}")) for name in ("git", "tmux")]
    for _, path in cached:
        assert nix.nix("copy", "--to", f"file://{root / 'cache'}", os.fspath(path)).returncode == 0
    with caching(root / "cache") as cache:
        settings = nix.root / "etc" / "nix.conf"
        settings.write_text(
            settings.read_text().replace("substituters =", f"substituters = {cache.url}\nrequire-sigs = false")
        )
        yield World(nix, template, cache, cached)
    nix.remove()


@pytest.fixture
def held(world: World, tmp_path: Path, phase: str) -> Iterator[Held]:
    """A machine with a change to be built, which gets no further than a phase."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    world.cache.stalled.clear()
    world.cache.go.clear()
    with new_site(tmp_path / "site", world.nix, world.template) as site, switchable(site) as machine:
        with RunningDaemon(site) as daemon:
            match phase:
                case "evaluating":
                    configure(site, daemon, f"system.extraActivation = {ENDLESS};")
                case "fetching":
                    name, path = world.cached.pop()
                    world.nix.run("nix-store", "--delete", os.fspath(path))
                    assert not path.exists()
                    daemon.done("Add", refs=[name])
                case "building":
                    configure(site, daemon, GATED.format(gate=gate))

        def release() -> None:
            world.cache.go.set()
            # A builder whose nix was killed waits on, and nobody waits where everything was ended.
            os.close(os.open(gate, os.O_RDWR | os.O_NONBLOCK))

        yield Held(site, machine, gate, release)


def configure(site: Site, daemon: RunningDaemon, text: str) -> None:
    """Commit a default.nix that holds these settings."""
    site.write({"hosts/laptop/default.nix": f"{{ ... }}: {{ users.users.alice.isNormalUser = true; {text} }}\n"})
    daemon.done("Adopt", everything=True)


def begin(client: RpcClient, phase: str, world: World) -> str:
    """Begin a rebuild, and return when it is in a phase."""
    transaction: str = client.call("Rebuild")["transaction"]
    client.progress("phase", phase)
    if phase == "fetching":
        assert world.cache.stalled.wait(PATIENCE)
    return transaction


def builds(held: Held) -> list[str]:
    """What builds for this machine: nix, and its builders; an evaluation for the search index is none of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        builds = " build --json " in words and os.fspath(held.site.root) in words
        if builds or os.fspath(held.gate) in words:
            found.append(words)
    return found


def is_as_before(held: Held, trace: dict[str, str]) -> None:
    """Nothing of the repository changed, and no system came."""
    assert held.site.trace() == trace
    assert held.machine.running is None
    assert not held.machine.profile.is_symlink()


def goes_on(held: Held, daemon: RunningDaemon) -> None:
    """The next rebuild does all of it."""
    held.release()
    configure(held.site, daemon, "")
    done = daemon.done("Rebuild")
    assert held.machine.running == done["outcome"]["rebuild"]["path"]


@pytest.mark.parametrize("phase", PHASES)
def test_rebuilds_that_are_cancelled_change_nothing_and_leave_nothing_running(
    held: Held, world: World, phase: str
) -> None:
    with RunningDaemon(held.site) as daemon:
        trace = held.site.trace()
        with daemon.connect() as client:
            transaction = begin(client, phase, world)
            deadline = time.monotonic() + PATIENCE
            while not builds(held):  # the evaluator is told to build a moment before it does
                assert time.monotonic() < deadline, "this test sees what runs"
                time.sleep(0.01)
            waiting = client.call("Rebuild")["transaction"]
            client.reach(waiting, "queued")
            client.call("Cancel", transaction=waiting)
            assert client.wait(waiting)["state"] == "cancelled"
            client.call("Cancel", transaction=transaction)
            ended = client.wait(transaction)
        assert ended["state"] == "cancelled"
        assert "nothing was changed" in ended["error"]["message"]
        assert builds(held) == []
        is_as_before(held, trace)
        goes_on(held, daemon)


@pytest.mark.parametrize("phase", PHASES)
def test_a_daemon_that_is_killed_in_a_rebuild_changes_nothing_and_its_successor_says_so(
    held: Held, world: World, phase: str
) -> None:
    with RunningDaemon(held.site) as daemon:
        trace = held.site.trace()
        with daemon.connect() as client:
            transaction = begin(client, phase, world)
            daemon.kill()
        deadline = time.monotonic() + PATIENCE
        while any(" build --json " in words for words in builds(held)):
            assert time.monotonic() < deadline, "its nix goes on"
            time.sleep(0.01)  # nothing announces the end of somebody else's process
        daemon.start()
        ended = daemon.call("GetTransaction", transaction=transaction)
        assert (ended["state"], ended["error"]["name"]) == ("failed", "Interrupted")
        is_as_before(held, trace)
        goes_on(held, daemon)
