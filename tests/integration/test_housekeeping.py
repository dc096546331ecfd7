# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon tidies its repository while people work: nothing waits for that, and a kill in the middle loses nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from glixd.housekeeping import LOOSE
from tests.support.daemon import PATIENCE, RunningDaemon, Site

pytestmark = [pytest.mark.integration, pytest.mark.nix]

PROMPT = {"GLIXD_TIDY_DELAY": "0", "GLIXD_INDEX": "false"}
SLOW_GIT = """\
#!/bin/sh
PATH={path}
case "$*" in
*pack-objects*) echo >{told}; read -r _ <{never} ;;
esac
exec git "$@"
"""
"""A git that stands still when it is to pack."""


def fill(site: Site) -> None:
    """Give the repository as many loose objects as are worth packing, in one commit of a person."""
    names = {f"notes/{number}.txt": f"note {number}\n" for number in range(LOOSE)}
    site.commit(names)


def loose(site: Site) -> int:
    return len(list((site.repository / ".git" / "objects").glob("??/*")))


def tidied(daemon: RunningDaemon) -> list[dict[str, Any]]:
    """What the daemon has said about its tidying, once it has said something."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
        if found := [line for line in lines if line.get("event") == "tidied the repository"]:
            return found
        assert time.monotonic() < deadline, "the repository is not tidied"
        time.sleep(0.01)  # nothing announces it


def test_loose_objects_are_packed_in_the_background_and_changes_go_on(site: Site) -> None:
    fill(site)
    with RunningDaemon(site, extra=PROMPT) as daemon:
        for name in ("hello", "git", "tmux"):
            daemon.done("Add", refs=[name], evaluate=False)
        (told,) = tidied(daemon)
        assert told["packed"] >= LOOSE
        assert daemon.done("Add", refs=["firefox"], evaluate=False)["commit"] == site.git("rev-parse", "HEAD")
        assert len(daemon.call("History", limit=10)["entries"]) >= 5
    assert loose(site) < 100
    assert site.git("fsck", "--strict", "--no-dangling") == ""
    assert site.git("status", "--porcelain") == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_daemon_that_ends_while_it_packs_loses_nothing_and_the_next_one_does_it(
    site: Site, number: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("programs")
    told, never = folder / "told", folder / "never"
    os.mkfifo(told)
    os.mkfifo(never)
    (folder / "git").write_text(SLOW_GIT.format(path=os.environ["PATH"], told=told, never=never))
    (folder / "git").chmod(0o755)
    fill(site)
    before = site.git("cat-file", "--batch-all-objects", "--batch-check")
    with RunningDaemon(site, extra={**PROMPT, "PATH": f"{folder}:{os.environ['PATH']}"}) as daemon:
        told.read_text()
        assert daemon.done("Add", refs=["hello"], evaluate=False)["commit"], "nobody waits for it"
        assert daemon.kill(number) == (-number if number == signal.SIGKILL else 0)
    assert set(before.splitlines()) <= set(site.git("cat-file", "--batch-all-objects", "--batch-check").splitlines())
    with RunningDaemon(site, extra=PROMPT) as daemon:
        tidied(daemon)
    assert loose(site) < 100
    assert not (site.repository / ".git" / "glix" / "packing").exists()
    assert site.git("fsck", "--strict", "--no-dangling") == ""
