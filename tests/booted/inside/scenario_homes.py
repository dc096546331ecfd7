# SPDX-License-Identifier: GPL-3.0-or-later
"""One's own home: an ordinary user adds a package and has it, with no administrator and no switch of the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.booted.inside.machine import answer, as_user, in_session, run

CURRENT = Path("/home/bob/.local/state/home-manager/gcroots/current-home")
WITHOUT_AGENT = 12

pytestmark = pytest.mark.usefixtures("repository")


def _programs() -> set[str]:
    return set(os.listdir(CURRENT / "home-path/bin"))


def _of(user: str) -> set[str]:
    return {package["name"] for package in answer("list", "--scope", "home", "--user", user)["packages"]}


@pytest.fixture
def noted() -> Path:
    """Where the unit of the activation notes what it is, since bob says so in an addition to it."""
    folder = Path("/home/bob/.config/systemd/user/glix-home-activate.service.d")
    as_user("bob", "mkdir", "-p", str(folder))
    file = Path("/home/bob/activated-by")
    (folder / "note.conf").write_text(f"[Service]\nExecStartPre=/bin/sh -c 'cat /proc/self/cgroup >{file}'\n")
    return file


def test_an_ordinary_user_installs_into_the_own_home_and_has_it_at_once(noted: Path) -> None:
    profiles = Path("/nix/var/nix/profiles")
    before = sorted(profiles.glob("system*"))
    done = in_session("bob", "glixctl", "add", "hello", "--user", "bob", "--apply", seat=True)
    assert done.stdout.endswith("activated the home of bob\n"), done
    assert _programs() == {"hello"}
    assert run(str(CURRENT / "home-path/bin/hello")).returncode == 0
    assert CURRENT.lstat().st_uid == Path("/home/bob").stat().st_uid
    assert sorted(profiles.glob("system*")) == before, "the system was switched"
    assert noted.read_text().strip().endswith("/glix-home-activate.service"), "it was not a unit of the user"


def test_what_the_user_removes_is_gone_from_the_home() -> None:
    in_session("bob", "glixctl", "add", "cowsay", "--user", "bob", "--apply", seat=True)
    assert _programs() == {"hello", "cowsay"}
    in_session("bob", "glixctl", "remove", "hello", "--apply", seat=True)
    assert _programs() == {"cowsay"}
    assert _of("bob") == {"cowsay"}


@pytest.mark.parametrize("words", [("cowsay", "--user", "carol"), ("cowsay", "--scope", "system")])
def test_nobody_else_gets_anything_by_it(words: tuple[str, ...]) -> None:
    before = answer("list", "--all")["packages"]
    done = in_session("bob", "glixctl", "add", *words, "--apply", seat=True, check=False)
    assert done.returncode == WITHOUT_AGENT, done
    assert answer("list", "--all")["packages"] == before


def test_a_source_that_nobody_vouched_for_wants_an_administrator_for_a_home_too(stranger: str) -> None:
    words = ("add", "--yes", f"{stranger}/hello.tar.gz", "--name", "stranger", "--user", "bob", "--apply")
    done = in_session("bob", "glixctl", *words, seat=True, check=False)
    assert done.returncode == WITHOUT_AGENT, done
    assert _of("bob") == {"cowsay"}


def test_away_from_the_machine_the_own_password_is_wanted() -> None:
    done = in_session("bob", "glixctl", "add", "tmux", "--user", "bob", "--apply", seat=False, check=False)
    assert done.returncode == WITHOUT_AGENT, done
    assert _of("bob") == {"cowsay"}
