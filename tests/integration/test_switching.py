# SPDX-License-Identifier: GPL-3.0-or-later
"""From a commit to the running system and back, with a real nix, a real profile and a real activation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Answer, RunningDaemon, Site, glixctl_command
from tests.support.switching import Machine, switchable

pytestmark = [pytest.mark.integration, pytest.mark.nix]


@pytest.fixture
def machine(site: Site) -> Iterator[Machine]:
    with switchable(site) as made:
        yield made


@pytest.fixture
def daemon(machine: Machine) -> Iterator[RunningDaemon]:
    with RunningDaemon(machine.site) as running:
        yield running


def rebuilt(transaction: Answer) -> Answer:
    found: Answer = transaction["outcome"]["rebuild"]
    return found


def configure(site: Site, daemon: RunningDaemon, text: str) -> None:
    """Commit a default.nix that holds these settings."""
    site.write({"hosts/laptop/default.nix": f"{{ ... }}: {{ users.users.alice.isNormalUser = true; {text} }}\n"})
    daemon.done("Adopt", everything=True)


def tag(site: Site, number: int) -> dict[str, str]:
    """What the tag of a generation says, and the commit that it names."""
    name = f"glix/gen/laptop/{number}"
    assert site.git("cat-file", "-t", name) == "tag"
    lines = site.git("cat-file", "tag", name).splitlines()
    facts = dict(line.split(": ", 1) for line in lines if line.startswith("Glix-"))
    return {**facts, "commit": site.git("rev-parse", f"{name}^{{commit}}")}


# -- the whole way -------------------------------------------------------------------------------------------------


def test_build_switch_second_generation_diff_rollback_and_garbage(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    first = daemon.done("Add", refs=["hello"], apply=True)
    assert rebuilt(first)["generation"] == 1
    assert machine.current.endswith("-1-link")
    assert machine.running == machine.boots == machine.system(1) == rebuilt(first)["path"]
    assert machine.installed() == {"hello"}
    known = tag(site, 1)
    assert known["commit"] == first["commit"] == site.git("rev-parse", "HEAD")
    assert (known["Glix-Transaction"], known["Glix-Store-Path"]) == (first["id"], machine.system(1))

    daemon.done("Add", refs=["ripgrep"])
    daemon.done("Remove", names=["hello"])
    second = daemon.done("Rebuild")
    assert [line.split(" ", 1)[1] for line in rebuilt(second)["pending"]] == [
        "glix remove laptop: hello (nixpkgs#hello, system)",
        "glix add laptop: ripgrep (nixpkgs#ripgrep, system, via nixpkgs)",
    ]
    assert (rebuilt(second)["previous"], rebuilt(second)["generation"]) == (1, 2)
    assert machine.installed() == {"rg"} or machine.installed() == {"ripgrep"}
    kinds = {one["name"]: one["kind"] for one in rebuilt(second)["change"]["packages"]}
    assert kinds == {"hello": "removed", "ripgrep": "added"}

    difference = daemon.call("DiffGenerations")
    assert (difference["older"], difference["newer"], len(difference["commits"])) == (1, 2, 2)
    assert {one["name"] for one in difference["change"]["packages"]} == {"hello", "ripgrep"}

    head = site.git("rev-parse", "HEAD")
    back = daemon.done("Rollback", to_generation=1)
    assert machine.running == machine.system(1)
    assert machine.current.endswith("-1-link")
    assert site.git("rev-parse", "HEAD~1") == head, "one commit"
    assert site.committed("hosts/laptop/glix.toml") == site.committed("hosts/laptop/glix.toml", known["commit"])
    assert site.read("hosts/laptop/glix.toml") == site.committed("hosts/laptop/glix.toml")
    assert site.committed("flake.lock") == site.committed("flake.lock", known["commit"])
    assert rebuilt(back)["generation"] == 1
    assert site.git("log", "-1", "--format=%s") == f"glix rollback laptop: generation 1 ({known['commit'][:7]})"
    again = daemon.done("Rebuild")
    assert rebuilt(again)["change"]["packages"] == [], "what is built from the manifest is what runs"
    assert machine.installed() == {"hello"}

    with pytest.raises(Exception, match="UnknownGeneration"):
        daemon.call("DiffGenerations", older=7)


def test_a_rollback_to_a_generation_is_not_undone_by_the_next_rollback(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    for name in ("hello", "git", "tmux"):
        daemon.done("Add", refs=[name], apply=True)
    daemon.done("Rollback", to_generation=2)
    assert machine.installed() == {"hello", "git"}
    daemon.done("Rollback")
    assert [one["name"] for one in daemon.call("List")["packages"]] == ["hello"]


def test_going_back_where_the_manifest_is_the_same_needs_no_commit(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    daemon.done("Add", refs=["hello"], apply=True)
    daemon.done("Add", refs=["git"], apply=True)
    daemon.done("Rollback")
    head = site.git("rev-parse", "HEAD")
    back = daemon.done("Rollback", to_generation=1)
    assert machine.running == machine.system(1)
    assert "commit" not in back
    assert site.git("rev-parse", "HEAD") == head


def test_a_rollback_names_the_files_that_it_does_not_restore(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    daemon.done("Add", refs=["hello"], apply=True)
    daemon.done("Add", refs=["git"], apply=True)
    assert daemon.done("Rollback", to_generation=1, dry_run=True)["warnings"] == []
    configure(site, daemon, 'boot.kernelVersion = "6.12";')
    outside = site.read("flake.nix").replace("{\n", "{\n  # mine\n", 1)
    site.commit({"flake.nix": outside, "README.md": "mine\n", "modules/mine.nix": "{ }\n"})
    daemon.done("Init", host="desktop", user="alice", system="x86_64-linux")
    for how in ({"dry_run": True}, {}):
        [warning] = daemon.done("Rollback", to_generation=1, **how)["warnings"]
        assert warning.startswith(
            "Not restored, since only the manifest and the lock are: flake.nix, hosts/laptop/default.nix, modules/mine.nix."
        )
    assert "kernelVersion" in site.read("hosts/laptop/default.nix")
    assert machine.running == machine.system(1)


def test_a_rollback_for_the_next_boot_leaves_what_runs(site: Site, machine: Machine, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"], apply=True)
    daemon.done("Add", refs=["git"], apply=True)
    done = daemon.done("Rollback", to_generation=1, boot=True)
    assert rebuilt(done)["action"] == "boot"
    assert machine.running == machine.system(2)
    assert machine.boots == machine.system(1)
    assert [one["name"] for one in daemon.call("List")["packages"]] == ["hello"]


# -- generations ---------------------------------------------------------------------------------------------------


def test_generations_are_listed_with_commits_and_one_made_by_hand_says_so(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    configure(site, daemon, 'boot.kernelVersion = "6.12";')
    first = daemon.done("Add", refs=["hello"], apply=True)
    machine.boot()
    by_hand = daemon.done("Add", refs=["git"])
    built = rebuilt(daemon.done("Rebuild", action="build"))["path"]
    machine.set_by_hand(built)
    plain = site.nix.root / "plain"
    plain.mkdir(exist_ok=True)
    (plain / "nixos-version").write_text("26.05")
    added = site.nix.run("nix-store", "--add", str(plain))
    machine.set_by_hand(added.stdout.strip())
    listed = {one["number"]: one for one in daemon.call("ListGenerations", sizes=True)["generations"]}
    assert list(listed) == [3, 2, 1]
    assert listed[1]["commit"] == first["commit"]
    assert listed[1]["transaction"] == first["id"]
    assert listed[1]["subject"].startswith("glix add laptop: hello")
    assert (listed[1]["version"], listed[1]["kernel"]) == ("26.05.mini", "6.12")
    assert listed[1]["size"] > 0
    assert [one["number"] for one in listed.values() if one["current"]] == [3]
    assert [one["number"] for one in listed.values() if one["active"]] == [1]
    assert [one["number"] for one in listed.values() if one["booted"]] == [1]
    assert listed[2]["commit"] == by_hand["commit"], "the system itself says what it was built from"
    assert "transaction" not in listed[2]
    assert "commit" not in listed[3]
    table = site.glixctl("generations").stdout
    assert "no commit" in table.splitlines()[1]
    assert by_hand["commit"][:7] in table.splitlines()[2]
    error = daemon.failed("Rollback", to_generation=3)
    assert error["name"] == "Conflict"
    assert "--switch-generation 3" in error["details"]["command"]


def test_garbage_takes_the_tags_of_generations_that_are_gone(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    for name in ("hello", "git"):
        daemon.done("Add", refs=[name], apply=True)
    assert site.git("tag", "--list").split() == ["glix/gen/laptop/1", "glix/gen/laptop/2"]
    done = site.nix.run("nix-env", "--profile", str(machine.profile), "--delete-generations", "1")
    assert done.returncode == 0, done.stderr
    collected = daemon.done("CollectGarbage", dry_run=True)
    assert collected["outcome"]["garbage"]["tags"] == ["refs/tags/glix/gen/laptop/1"]


# -- actions -------------------------------------------------------------------------------------------------------


def test_boot_and_test_do_what_nixos_rebuild_does(site: Site, machine: Machine, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"], apply=True)
    daemon.done("Add", refs=["git"])
    tested = daemon.done("Rebuild", action="test")
    assert "generation" not in rebuilt(tested)
    assert machine.running == rebuilt(tested)["path"]
    assert machine.boots == machine.system(1)
    assert machine.current.endswith("-1-link")
    booted = daemon.done("Rebuild", action="boot")
    assert rebuilt(booted)["generation"] == 2
    assert machine.boots == machine.system(2)
    assert tag(site, 2)["commit"] == site.git("rev-parse", "HEAD")


@pytest.mark.parametrize("how", [{"action": "dry-activate"}, {"dry_run": True}])
def test_a_dry_activation_says_which_units_would_change_and_changes_nothing(
    site: Site, machine: Machine, daemon: RunningDaemon, how: dict[str, Any]
) -> None:
    configure(site, daemon, 'systemd.services = { web = "one"; old = "x"; };')
    daemon.done("Rebuild")
    before = (machine.running, machine.current, machine.boots)
    configure(site, daemon, 'systemd.services = { web = "two"; new = "y"; }; boot.kernelVersion = "6.13";')
    done = daemon.done("Rebuild", **how)
    assert rebuilt(done)["units"] == {
        "stopped": ["old"],
        "restarted": ["web"],
        "started": ["new"],
        "reloaded": [],
        "failed": [],
    }
    assert (machine.running, machine.current, machine.boots) == before
    assert not rebuilt(done)["activated"]


def test_a_new_kernel_needs_a_reboot_and_says_so(site: Site, machine: Machine, daemon: RunningDaemon) -> None:
    configure(site, daemon, 'boot.kernelVersion = "6.12";')
    daemon.done("Rebuild")
    machine.boot()
    configure(site, daemon, 'boot.kernelVersion = "6.13";')
    told = site.glixctl("rebuild")
    assert told.returncode == Exit.REBOOT_NEEDED
    assert "only a reboot makes effective: kernel" in told.stdout
    assert "A reboot is needed" in told.stderr
    assert machine.running == machine.system(2)


# -- failures ------------------------------------------------------------------------------------------------------


def test_failed_units_are_a_success_with_a_warning_and_a_code_of_their_own(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    configure(site, daemon, 'system.failedUnits = [ "web.service" "db.service" ]; system.switchStatus = 4;')
    told = site.glixctl("rebuild", "--json")
    assert told.returncode == Exit.UNITS_FAILED
    transaction = json.loads(told.stdout)
    assert transaction["state"] == "succeeded"
    assert rebuilt(transaction)["units"]["failed"] == ["web.service", "db.service"]
    assert any("web.service, db.service failed" in text for text in transaction["warnings"])
    assert machine.running == machine.system(1)
    assert tag(site, 1)["commit"] == site.git("rev-parse", "HEAD")


def test_an_activation_that_wants_a_reboot_ends_with_its_code(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    configure(site, daemon, "system.switchStatus = 100;")
    assert site.glixctl("rebuild").returncode == Exit.REBOOT_NEEDED


def test_a_failed_activation_is_told_and_not_tagged(site: Site, machine: Machine, daemon: RunningDaemon) -> None:
    daemon.done("Rebuild")
    configure(site, daemon, 'system.extraActivation = "echo no luck >&2; false";')
    error = daemon.failed("Rebuild")
    assert error["name"] == "ActivationFailed"
    assert "no luck" in "\n".join(error["details"]["log"])
    assert site.git("tag", "--list").split() == ["glix/gen/laptop/1"]
    assert site.glixctl("rebuild").returncode == Exit.FAILED


def test_a_failed_activation_puts_the_generation_before_back_when_asked(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    daemon.done("Rebuild")
    configure(site, daemon, 'system.extraActivation = "false";')
    error = daemon.failed("Rebuild", rollback_on_failure=True)
    assert error["details"]["restored"] == 1
    assert machine.running == machine.boots == machine.system(1)
    assert machine.current.endswith("-1-link")


def test_a_rollback_whose_activation_fails_commits_nothing_and_leaves_the_machine(
    site: Site, machine: Machine, daemon: RunningDaemon
) -> None:
    guard = site.root / "broken"
    configure(site, daemon, f'system.extraActivation = "! test -e {guard}";')
    daemon.done("Rebuild")
    configure(site, daemon, "")
    daemon.done("Rebuild")
    guard.touch()
    trace = site.trace()
    error = daemon.failed("Rollback", to_generation=1)
    assert error["name"] == "ActivationFailed"
    assert error["details"]["restored"] == 2
    assert machine.running == machine.system(2)
    assert machine.current.endswith("-2-link")
    changed = {path for path, digest in site.trace().items() if trace.get(path) != digest}
    assert all(path.startswith(".git/") for path in changed)
    assert site.git("status", "--porcelain") == ""


# -- stopping ------------------------------------------------------------------------------------------------------


def waiting(site: Site) -> tuple[Path, str]:
    """A pipe, and settings that let an activation wait until somebody writes to it."""
    gate = site.root / "gate"
    os.mkfifo(gate)
    return gate, f'system.extraActivation = "read word < {gate}";'


def two_generations(site: Site, daemon: RunningDaemon, gate: Path, text: str) -> None:
    """A generation with hello, whose activation waits at the gate, and after it one with git that does not."""
    configure(site, daemon, text)
    opened = threading.Thread(target=gate.write_text, args=("go\n",))
    opened.start()
    daemon.done("Add", refs=["hello"], apply=True)
    opened.join()
    configure(site, daemon, "")
    daemon.done("Add", refs=["git"], apply=True)


def test_an_activation_can_not_be_cancelled_and_says_why(site: Site, machine: Machine, daemon: RunningDaemon) -> None:
    gate, text = waiting(site)
    configure(site, daemon, text)
    with daemon.connect() as client:
        transaction = client.call("Rebuild")["transaction"]
        client.reach(transaction, "activating")
        with pytest.raises(Exception, match="half a switch is worse"):
            client.call("Cancel", transaction=transaction)
        gate.write_text("go\n")
        assert client.wait(transaction)["state"] == "succeeded"
    assert machine.running == machine.system(1)


def test_the_client_interrupted_in_a_build_leaves_everything_as_it_was(unbuilt_site: Site) -> None:
    site = unbuilt_site
    with switchable(site) as machine, RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["slowpkg"])
        trace = site.trace()
        with daemon.connect() as watcher:
            child = subprocess.Popen(
                glixctl_command("rebuild", "switch"),
                env=site.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running: list[Answer] = []
            while not running:
                running = watcher.call("ListTransactions", states=["running"])["transactions"]
            watcher.call("Watch", transaction=running[0]["id"])
            watcher.progress("current")
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
            assert child.returncode == Exit.INTERRUPTED
            assert "is cancelled and nothing was changed" in said
        assert site.trace() == trace
        assert machine.running is None


def test_a_daemon_that_is_stopped_in_an_activation_learns_its_end_when_it_is_back(site: Site, machine: Machine) -> None:
    gate, text = waiting(site)
    with RunningDaemon(site) as daemon:
        configure(site, daemon, text)
        with daemon.connect() as client:
            transaction = client.call("Rebuild")["transaction"]
            client.reach(transaction, "activating")
            assert daemon.stop() == 0, "it does not wait for the switch, which may be waiting for it"
        gate.write_text("go\n")
        daemon.start()
        ended = daemon.call("Wait", transaction=transaction, timeout=60)
        assert ended["state"] == "succeeded"
        head = site.git("rev-parse", "--short=7", "HEAD")
        assert ended["outcome"]["summary"] == f"switched laptop to {head} (generation 1)"
        assert (rebuilt(ended)["activated"], rebuilt(ended)["generation"]) == (True, 1)
    assert tag(site, 1)["Glix-Transaction"] == transaction


@pytest.mark.parametrize("phase", ["running", "activating"])
def test_a_daemon_that_is_killed_leaves_a_state_that_its_successor_explains(
    site: Site, machine: Machine, phase: str
) -> None:
    gate, text = waiting(site)
    with RunningDaemon(site) as daemon:
        configure(site, daemon, text)
        daemon.done("Add", refs=["slowpkg"])
        with daemon.connect() as client:
            transaction = client.call("Rebuild")["transaction"]
            client.reach(transaction, phase)
            daemon.kill()
        if phase == "activating":
            writer = threading.Thread(target=gate.write_text, args=("go\n",))
            writer.start()
            writer.join()
        daemon.start()
        ended = daemon.call("Wait", transaction=transaction, timeout=60)
        if phase == "running":
            assert (ended["state"], ended["error"]["name"]) == ("failed", "Interrupted")
            assert machine.running is None
            writer = threading.Thread(target=gate.write_text, args=("go\n",))
            writer.start()
            daemon.done("Rebuild")
            writer.join()
        else:
            assert ended["state"] == "succeeded"
    assert machine.running == machine.system(1)
    assert tag(site, 1)["commit"] == site.git("rev-parse", "HEAD")


def test_a_rollback_whose_daemon_is_killed_while_it_activates_is_finished_by_the_next(
    site: Site, machine: Machine
) -> None:
    gate, text = waiting(site)
    with RunningDaemon(site) as daemon:
        two_generations(site, daemon, gate, text)
        head = site.git("rev-parse", "HEAD")
        with daemon.connect() as client:
            transaction = client.call("Rollback", to_generation=1)["transaction"]
            client.reach(transaction, "activating")
            daemon.kill()
        assert site.git("rev-parse", "HEAD") == head, "nothing is committed before the system runs"
        gate.write_text("go\n")
        daemon.start()
        ended = daemon.call("Wait", transaction=transaction, timeout=60)
        assert ended["state"] == "succeeded", ended
        assert ended["commit"] == site.git("rev-parse", "HEAD")
        assert ended["outcome"]["rebuild"]["commit"] == site.git("rev-parse", "glix/gen/laptop/1^{commit}")
        assert site.git("rev-parse", "HEAD~1") == head
        assert machine.running == machine.system(1)
        assert [one["name"] for one in daemon.call("List")["packages"]] == ["hello"]
        assert site.read("hosts/laptop/glix.toml") == site.committed("hosts/laptop/glix.toml")


@pytest.mark.parametrize("committed", [False, True], ids=["and prunes", "commits, and prunes"])
def test_a_rollback_is_committed_whatever_somebody_does_in_the_repository_while_it_activates(
    site: Site, machine: Machine, daemon: RunningDaemon, committed: bool
) -> None:
    gate, text = waiting(site)
    two_generations(site, daemon, gate, text)
    with daemon.connect() as client:
        transaction = client.call("Rollback", to_generation=1)["transaction"]
        client.reach(transaction, "activating")
        if committed:
            site.commit({"notes.txt": "mine\n"})
        site.git("prune", "--expire=now")
        head = site.git("rev-parse", "HEAD")
        gate.write_text("go\n")
        assert client.wait(transaction)["state"] == "succeeded"
    assert site.git("rev-parse", "HEAD~1") == head
    assert site.git("fsck", "--strict", "--no-dangling") == ""
    assert machine.running == machine.system(1)
    assert [one["name"] for one in daemon.call("List")["packages"]] == ["hello"]
    assert site.read("hosts/laptop/glix.toml") == site.committed("hosts/laptop/glix.toml")
    assert committed is (site.root.joinpath(site.repository, "notes.txt").exists())


def test_a_commit_that_comes_while_a_build_runs_is_built_before_anything_is_activated(
    unbuilt_site: Site,
) -> None:
    site = unbuilt_site
    with switchable(site) as machine, RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["slowpkg"])
        with daemon.connect() as client:
            transaction = client.call("Rebuild")["transaction"]
            client.progress("current")
            daemon.done("Add", refs=["git"])
            done = client.wait(transaction)
        assert done["state"] == "succeeded", done
        assert rebuilt(done)["commit"] == site.git("rev-parse", "HEAD") == tag(site, 1)["commit"]
        assert machine.installed() == {"slowpkg", "git"}
