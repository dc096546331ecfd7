# SPDX-License-Identifier: GPL-3.0-or-later
"""One's own home in user mode: the packages of a commit become those of the home, and no system is switched."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Site

pytestmark = [pytest.mark.integration, pytest.mark.nix]

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def own(site: Site) -> Site:
    """A site whose host knows the user that the tests run as."""
    text = site.read("hosts/laptop/default.nix").rstrip().removesuffix("}")
    site.commit({"hosts/laptop/default.nix": f"{text}  users.users.{ME}.isNormalUser = true;\n}}\n"})
    return site


def current(site: Site) -> Path:
    """The home generation that is in effect."""
    return site.home / ".local/state/home-manager/gcroots/current-home"


def test_apply_puts_packages_of_the_own_home_into_effect(own: Site) -> None:
    done = own.glixctl("add", "hello", "--user", ME, "--apply")
    assert done.returncode == Exit.DONE, done.stderr
    assert f"built the home of {ME} at " in done.stdout
    assert done.stdout.endswith(f"activated the home of {ME}\n")
    assert (current(own) / "home-path" / "bin" / "hello").exists()
    assert not (Path(own.nix.environment()["NIX_STATE_DIR"]) / "profiles" / "system").exists()
    again = own.glixctl("rebuild", "--home")
    assert again.returncode == Exit.DONE, again.stderr
    planned = own.glixctl("rebuild", "dry-build", "--home")
    assert planned.returncode == Exit.DONE, planned.stderr
    assert "activated" not in planned.stdout


def test_a_home_of_somebody_else_or_of_nobody_is_not_activated(own: Site) -> None:
    nothing = own.glixctl("rebuild", "--home")
    assert nothing.returncode == Exit.NOT_FOUND
    assert f"laptop has no packages for the home of {ME}." in nothing.stderr
    other = own.glixctl("add", "hello", "--user", "alice", "--apply")  # a package of another home: the system has it
    assert other.returncode == Exit.DONE, other.stderr
    assert "activated" not in other.stdout
    assert not current(own).exists()


def test_a_home_is_not_switched_like_a_system(own: Site) -> None:
    refused = own.glixctl("rebuild", "boot", "--home")
    assert refused.returncode == Exit.USAGE
    assert "a home is built, and put into effect by its owner at once" in refused.stderr


def test_an_activation_that_fails_is_told(own: Site) -> None:
    (own.home / ".local" / "state").mkdir(parents=True, exist_ok=True)
    (own.home / ".local" / "state" / "home-manager").write_text("in the way\n")
    done = own.glixctl("add", "hello", "--user", ME, "--apply")
    assert done.returncode == Exit.FAILED
    assert "the activation of the home failed with status" in done.stderr
