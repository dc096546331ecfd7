# SPDX-License-Identifier: GPL-3.0-or-later
"""The optional rule as it is shipped, read by a real polkitd: administrators at the machine, and nothing that was not said."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

import pytest

from glixd.protocol import POLKIT_PREFIX
from tests.support.machine import Machine, end, machine
from tests.support.system import WHEEL_RULE, session_rules

pytestmark = pytest.mark.integration

INSTALL = {"package": "hello", "trusted": "yes"}
ACTIVATE = {"commit": "c0ffee", "action": "switch"}


@pytest.fixture(scope="module")
def at() -> Iterator[Machine]:
    """A machine with the rule, where wanda and alice sit, and nobody is let through by the defaults of a session."""
    rules = {name: text for name, text in session_rules().items() if name.startswith("00")}
    with machine(rules={**rules, "50-glixd-wheel.rules": WHEEL_RULE.read_text()}) as made:
        yield made


def allowed(at: Machine, who: str, action: str, details: Mapping[str, str]) -> bool:
    """Whether polkit lets somebody do something without a question."""
    waiting = at.command(who, "sh", "-c", "echo here; exec sleep 600")
    process = subprocess.Popen(waiting, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"  # it is who it is meant to be, and no more the one who started it
        words = [word for name, value in details.items() for word in ("--detail", name, value)]
        pid = f"{process.pid}"
        done = at.run("root", "pkcheck", "--action-id", POLKIT_PREFIX + action, "--process", pid, *words)
        assert done.returncode in (0, 1, 2), done.stderr
        return done.returncode == 0
    finally:
        end(process)
        if process.stdout is not None:
            process.stdout.close()


def test_an_administrator_at_the_machine_installs_and_activates_what_is_trusted(at: Machine) -> None:
    assert allowed(at, "wanda", "package-install-trusted", INSTALL)
    assert allowed(at, "wanda", "system-activate-trusted", ACTIVATE)


@pytest.mark.parametrize("who", ["alice", "bob", "nobody"])
def test_nobody_else_does(at: Machine, who: str) -> None:
    assert not allowed(at, who, "package-install-trusted", INSTALL)
    assert not allowed(at, who, "system-activate-trusted", ACTIVATE)


@pytest.mark.parametrize(
    ("action", "details"),
    [
        ("package-install-trusted", {"package": "hello"}),
        ("package-install-trusted", {"trusted": "yes"}),
        ("package-install-trusted", {}),
        ("system-activate-trusted", {"action": "switch"}),
        ("system-activate-trusted", {}),
    ],
)
def test_a_detail_that_is_missing_grants_nothing(at: Machine, action: str, details: dict[str, str]) -> None:
    assert not allowed(at, "wanda", action, details)


@pytest.mark.parametrize(
    ("action", "details"),
    [
        ("package-install-trusted", {"package": "hello", "trusted": "no"}),
        ("package-install-trusted", {"package": "hello", "trusted": "YES"}),
        ("package-install-untrusted", {"package": "evil", "trusted": "yes"}),
        ("package-remove", {"package": "hello", "trusted": "yes"}),
        ("system-activate", {"commit": "c0ffee", "trusted": "yes"}),
        ("repo-adopt-edits", {"files": "flake.nix", "trusted": "yes"}),
    ],
)
def test_nothing_else_goes_without_a_password(at: Machine, action: str, details: dict[str, str]) -> None:
    assert not allowed(at, "wanda", action, details)
