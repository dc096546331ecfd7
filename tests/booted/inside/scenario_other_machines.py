# SPDX-License-Identifier: GPL-3.0-or-later
"""Another machine, with a systemd and an sshd, that goes back by itself unless its switch is confirmed: here it is this one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from glixd.protocol import Exit
from tests.booted.inside.conftest import HOST
from tests.booted.inside.machine import Done, as_user, eventually, git, run, unit
from tests.support.repositories import Sources

FLEET: Final = Path("/root/fleet")
ENVIRONMENT: Final = {**os.environ, "HOME": "/root"}
RUNNING: Final = Path("/run/current-system")
PROFILE: Final = Path("/nix/var/nix/profiles/system")
PI: Final = ("--host", "pi", "--target-host", "root@pi", "--json")
FOUND: Final = "Host pi\n  HostName 127.0.0.1\n  HostKeyAlias pi\n"


def glixctl(*words: str, check: bool = True) -> Done:
    """Run glixctl on a repository of root's own."""
    return run("glixctl", "--mode=user", f"--dir={FLEET}", *words, check=check, env=ENVIRONMENT)


def rebuild(*words: str) -> tuple[int, dict[str, Any]]:
    """How a rebuild of pi ends, and what became of it."""
    done = glixctl("rebuild", *PI, *words, check=False)
    print(done.stderr)
    [row] = json.loads(done.stdout)["hosts"]
    return done.returncode, row


def configure(text: str) -> None:
    """Commit a default.nix that holds these settings."""
    (FLEET / "hosts/pi/default.nix").write_text(f"{{ ... }}: {{ users.users.alice.isNormalUser = true; {text} }}\n")
    glixctl("adopt", "--all", check=False)


@pytest.fixture(scope="module", autouse=True)
def fleet(sources: Sources) -> Iterator[None]:
    """A repository of root's own, and an sshd that lets root in; what runs afterwards is what ran before."""
    ssh = Path("/root/.ssh")
    ssh.mkdir(mode=0o700, exist_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519"))
    shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
    (ssh / "config").write_text(FOUND)
    key = Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (ssh / "known_hosts").write_text(f"pi {key}")
    before = {link: link.readlink() for link in (RUNNING, *PROFILE.parent.glob("system*")) if link.is_symlink()}
    words = ("--nixpkgs", sources.nixpkgs, "--core", sources.core, "--home-manager", sources.home_manager)
    glixctl("init", "--host", "pi", "--user", "alice", *words)
    yield
    for link in (RUNNING, *PROFILE.parent.glob("system*")):
        link.unlink()
    for link, target in before.items():
        link.symlink_to(target)
    shutil.rmtree(ssh)


@pytest.fixture
def running() -> Iterator[tuple[str, Path]]:
    """The generation and the system of pi, which was switched without being watched."""
    run("systemctl", "start", "ssh.service")
    configure("")
    code, row = rebuild()
    assert code == Exit.DONE, row
    yield os.readlink(PROFILE), RUNNING.readlink()
    run("systemctl", "start", "ssh.service")
    assert unit("glix-confirm.service", "LoadState") == "not-found"


@pytest.mark.usefixtures("repository", "running")
def test_somebody_who_is_not_root_here_switches_a_machine_that_lets_them_in() -> None:
    ssh = Path("/home/alice/.ssh")
    as_user("alice", "mkdir", "--mode=700", str(ssh))
    as_user("alice", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519"))
    for name in ("config", "known_hosts"):
        shutil.copy(f"/root/.ssh/{name}", ssh)
        shutil.chown(ssh / name, "alice", "alice")
    words = ("glixctl", "rebuild", "--host", HOST, "--target-host", "root@pi", "--json")
    refused = as_user("alice", *words, check=False)
    assert refused.returncode == Exit.NOT_AUTHORISED
    assert json.loads(refused.stdout)["hosts"][0]["error"]["name"] == "LoginRefused"
    with Path("/root/.ssh/authorized_keys").open("a") as file:
        file.write((ssh / "id_ed25519.pub").read_text())
    [row] = json.loads(as_user("alice", *words).stdout)["hosts"]
    assert row["state"] == "switched"
    assert str(RUNNING.readlink()) == row["path"]
    assert row["commit"] == git("rev-parse", "main")
    shutil.rmtree(ssh)


def answers() -> list[Path]:
    return list(Path("/run").glob("glix-confirm-*"))


def test_a_switch_that_is_confirmed_stays(running: tuple[str, Path]) -> None:
    configure('boot.kernelVersion = "6.12";')
    code, row = rebuild("--confirm-within", "60")
    assert (code, row["state"], row["reconnected"]) == (Exit.DONE, "switched", False)
    assert str(RUNNING.readlink()) == row["path"] != str(running[1])
    assert os.readlink(PROFILE) == f"system-{row['generation']}-link" != running[0]
    assert answers() == []


def test_a_switch_that_nobody_can_confirm_is_undone_by_the_machine_itself(running: tuple[str, Path]) -> None:
    configure('system.extraActivation = "systemctl stop ssh.socket ssh.service";')
    code, row = rebuild("--confirm-within", "4")
    assert (code, row["error"]["name"]) == (Exit.FAILED, "NotConfirmed")
    assert "Connection refused" in row["error"]["message"]
    generation, system = running
    eventually(lambda: RUNNING.readlink() == system, "the system before")
    assert os.readlink(PROFILE) == generation
    eventually(lambda: unit("glix-confirm.service", "LoadState") == "not-found", "the end of the watch")
    for answer in answers():
        answer.rmdir()


def test_a_switch_that_hangs_is_ended_and_undone_by_the_machine_itself(running: tuple[str, Path]) -> None:
    configure('system.extraActivation = "echo it hangs >&2; sleep infinity";')
    code, row = rebuild("--confirm-within", "1")
    assert (code, row["error"]["name"]) == (Exit.FAILED, "NotConfirmed"), row
    generation, system = running
    eventually(lambda: unit("glix-confirm.service", "LoadState") == "not-found", "the end of the watch")
    assert (os.readlink(PROFILE), RUNNING.readlink()) == (generation, system)
    assert unit("nixos-rebuild-switch-to-configuration.service", "LoadState") == "not-found"
    for answer in answers():
        answer.rmdir()


def test_a_connection_that_a_switch_breaks_is_made_anew_to_confirm_it(running: tuple[str, Path]) -> None:
    configure('system.extraActivation = "pkill -KILL -f sshd-session:.root@notty";')
    code, row = rebuild("--confirm-within", "60")
    assert (code, row["state"], row["reconnected"]) == (Exit.DONE, "switched", True), row
    assert str(RUNNING.readlink()) == row["path"]
    assert answers() == []


def test_a_failed_activation_goes_back_at_once_and_nothing_waits_any_more(running: tuple[str, Path]) -> None:
    configure('system.extraActivation = "false";')
    code, row = rebuild("--confirm-within", "600")
    assert (code, row["error"]["name"]) == (Exit.FAILED, "ActivationFailed")
    assert f"system-{row['restored']}-link" == running[0] == os.readlink(PROFILE)
    assert RUNNING.readlink() == running[1]
    assert answers() == []


def test_one_switch_at_a_time_waits_for_a_confirmation(running: tuple[str, Path]) -> None:
    run("systemd-run", "--unit=glix-confirm", "--service-type=exec", "--collect", "sleep", "600")
    configure('boot.kernelVersion = "6.13";')
    code, row = rebuild("--confirm-within", "60")
    assert code == Exit.FAILED
    assert "glix-confirm.service" in row["error"]["message"]
    assert (os.readlink(PROFILE), RUNNING.readlink()) == running
    run("systemctl", "stop", "glix-confirm.service")
