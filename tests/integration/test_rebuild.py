# SPDX-License-Identifier: GPL-3.0-or-later
"""Building a commit with a real nix, where this daemon may not switch: what is told, what fails, and stopping it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site

pytestmark = [pytest.mark.integration, pytest.mark.nix]


def test_a_commit_is_built_and_the_command_that_switches_is_told(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"])
    head = site.git("rev-parse", "HEAD")
    done = daemon.done("Rebuild")
    rebuilt = done["outcome"]["rebuild"]
    system = Path(rebuilt["path"])
    assert (system / "sw" / "bin" / "hello").exists()
    assert (rebuilt["action"], rebuilt["commit"], rebuilt["activated"]) == ("switch", head, False)
    profile = Path(site.nix.environment()["NIX_STATE_DIR"]) / "profiles" / "system"
    assert rebuilt["command"] == (
        f"sudo nix-env -p {profile} --set {system} && sudo {system}/bin/switch-to-configuration switch"
    )
    assert not profile.exists()
    names = [package["name"] for package in rebuilt["change"]["packages"]]
    assert "hello" in names
    assert rebuilt["change"]["size_after"] > 0
    assert "commit" not in done
    assert site.git("rev-parse", "HEAD") == head


def test_what_is_built_is_the_commit_and_edits_are_named_with_the_command_that_commits_them(
    site: Site, daemon: RunningDaemon
) -> None:
    daemon.done("Add", refs=["hello"])
    manifest = site.read("hosts/laptop/glix.toml")
    site.write({"hosts/laptop/glix.toml": manifest + '\n[packages.git]\nflake = "nixpkgs#git"\n'})
    site.write({"hosts/laptop/default.nix": site.read("hosts/laptop/default.nix") + "# edited\n"})
    done = daemon.done("Rebuild", action="build")
    programs = {path.name for path in (Path(done["outcome"]["rebuild"]["path"]) / "sw" / "bin").iterdir()}
    assert programs == {"hello"}
    assert done["warnings"] == [
        "Not built, since it is in no commit: hosts/laptop/glix.toml. Commit it with: glixctl adopt",
        "Not built, since it is in no commit: hosts/laptop/default.nix. Commit it with: glixctl adopt --all",
    ]


def test_a_dry_build_says_what_would_be_built_and_builds_nothing(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["ripgrep"], scope="system")
    store = site.nix.root / "store"
    before = {path.name for path in store.iterdir() if not path.name.endswith(".drv")}
    rebuilt = daemon.done("Rebuild", action="dry-build")["outcome"]["rebuild"]
    assert "path" not in rebuilt
    assert any(name.startswith("nixos-system-laptop-") for name in rebuilt["builds"])
    new = {path.name for path in store.iterdir() if not path.name.endswith(".drv")} - before
    assert not [name for name in new if "nixos-system" in name or "ripgrep" in name]


def test_progress_reaches_only_who_watches_and_its_share_never_falls(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["firefox", "cowsay", "ripgrep", "tmux"])
    with daemon.connect() as client, daemon.connect() as other:
        transaction = client.call("Rebuild", action="build")["transaction"]
        ended = client.wait(transaction)
        assert other.call("Ping")
    assert ended["state"] == "succeeded", ended
    events = [event for event in client.notified("Progress") if event["transaction"] == transaction]
    assert other.notified("Progress") == []
    shares = [event["percent"] for event in events if "percent" in event]
    assert shares == sorted(shares)
    assert {event["phase"] for event in events if "phase" in event} >= {"evaluating"}
    log = daemon.call("TransactionLog", transaction=transaction)
    assert log["ended"]
    assert any(line.startswith("nixos-system-laptop-") and "toplevel for laptop done" in line for line in log["lines"])
    assert daemon.call("TransactionLog", transaction=transaction, offset=log["next"]) == {"lines": [], "ended": True}


def test_a_failing_build_is_told_with_its_derivation_and_its_last_lines(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["broken"])
    error = daemon.failed("Rebuild", action="build")
    assert error["name"] == "BuildFailed"
    assert error["details"]["derivation"] == "broken-1.0"
    assert error["details"]["log"] == ["about to fail", "error: boom"]
    assert error["message"] == "broken-1.0 does not build:\n  about to fail\n  error: boom"
    done = site.glixctl("rebuild")
    assert done.returncode == Exit.FAILED
    assert "error: boom" in done.stderr
    shown = site.glixctl("transaction", "log")
    assert "broken-1.0> about to fail" in shown.stdout


def test_an_evaluation_that_fails_is_told_in_the_words_of_nix(site: Site, daemon: RunningDaemon) -> None:
    site.write({"hosts/laptop/default.nix": '{ ... }: { system.extraActivation = throw "nothing works"; }\n'})
    daemon.done("Adopt", everything=True)
    error = daemon.failed("Rebuild", action="build")
    assert error["name"] == "EvaluationFailed"
    assert "nothing works" in error["message"]
    assert error["message"].startswith("laptop does not evaluate: ")


def test_a_machine_of_another_kind_is_not_blamed_on_its_packages(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="alice", system="aarch64-linux")
    daemon.done("Add", host="pi", refs=["ripgrep"])
    head = site.git("rev-parse", "HEAD")
    error = daemon.failed("Rebuild", host="pi", action="build", keep_going_without=True)
    assert error["name"] == "UnsupportedHere"
    assert error["message"] == "pi can't be built here: that takes a machine of the system aarch64-linux."
    assert error["details"]["system"] == "aarch64-linux"
    assert site.git("rev-parse", "HEAD") == head, "no package is disabled for it"


def test_a_build_is_cancelled_and_leaves_nothing_running(unbuilt_site: Site) -> None:
    with RunningDaemon(unbuilt_site) as daemon:
        daemon.done("Add", refs=["slowpkg"])
        trace = unbuilt_site.trace()
        with daemon.connect() as client:
            transaction = client.call("Rebuild")["transaction"]
            client.progress("current")
            client.call("Cancel", transaction=transaction)
            ended = client.wait(transaction)
        assert ended["state"] == "cancelled"
        assert "nothing was changed" in ended["error"]["message"]
        assert unbuilt_site.trace() == trace
        builders = [
            pid
            for pid in os.listdir("/proc")
            if pid.isdigit() and str(unbuilt_site.nix.root) in _command(pid) and "slowpkg" in _command(pid)
        ]
        assert builders == []


def test_changes_are_committed_while_a_build_runs(unbuilt_site: Site) -> None:
    with RunningDaemon(unbuilt_site) as daemon:
        daemon.done("Add", refs=["slowpkg"])
        with daemon.connect() as client:
            transaction = client.call("Rebuild", action="build")["transaction"]
            client.progress("current")
            added = daemon.done("Add", refs=["git"])
            assert daemon.call("GetTransaction", transaction=transaction)["state"] == "running"
            client.call("Cancel", transaction=transaction)
            built = client.wait(transaction)
        assert built["rebuilding"] != added["commit"] == unbuilt_site.git("rev-parse", "HEAD")


def test_a_change_is_applied_after_its_commit_and_a_failed_rebuild_leaves_the_commit(
    site: Site, daemon: RunningDaemon
) -> None:
    done = daemon.done("Add", refs=["hello"], apply=True)
    assert done["outcome"]["rebuild"]["commit"] == done["commit"] == site.git("rev-parse", "HEAD")
    assert done["outcome"]["changes"][0]["name"] == "hello"
    assert done["action"] == "switch"
    failed = daemon.run("Add", refs=["broken"], apply=True)
    assert (failed["state"], failed["error"]["name"]) == ("failed", "BuildFailed")
    assert failed["commit"] == site.git("rev-parse", "HEAD")
    assert failed["outcome"]["changes"][0]["name"] == "broken"
    told = site.glixctl("add", "git", "--apply")
    assert told.returncode == Exit.FAILED, "broken is still there"
    assert "stays: the failure came after it" in told.stderr


def test_glixctl_tells_what_was_built(site: Site, daemon: RunningDaemon) -> None:
    assert site.glixctl("add", "hello").returncode == Exit.DONE
    done = site.glixctl("rebuild", "build")
    assert done.returncode == Exit.DONE, done.stderr
    assert done.stdout.startswith("built laptop at ")
    assert "  + hello 2.12\n" in done.stdout
    switched = site.glixctl("system", "switch")
    assert "This daemon does not switch the machine." in switched.stdout
    events = site.glixctl("rebuild", "dry-build", "--json")
    assert json.loads(events.stdout)["outcome"]["rebuild"]["action"] == "dry-build"
    assert all(json.loads(line)["transaction"] for line in events.stderr.splitlines())
    assert site.glixctl("generations").returncode == Exit.DONE
    refused = site.glixctl("rollback", "--to", "3")
    assert refused.returncode == Exit.NOT_FOUND
    assert "There is no generation 3." in refused.stderr


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace") + Path(f"/proc/{pid}/cmdline").read_text(
            errors="replace"
        )
    except OSError:
        return ""


BREAKING = """
[packages.uncatchable]
flake = "nixpkgs#uncatchable"

[packages.renamed]
flake = "nixpkgs#oldalias"
"""


def test_packages_that_break_the_evaluation_are_named_and_can_be_left_out(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello", "git", "ripgrep", "tmux"])
    site.write({"hosts/laptop/glix.toml": site.read("hosts/laptop/glix.toml") + BREAKING})
    daemon.done("Adopt")
    trace = site.trace()
    error = daemon.failed("Rebuild", action="build")
    assert error["name"] == "EvaluationFailed"
    assert error["details"]["packages"] == ["uncatchable", "renamed"]
    assert error["message"].startswith("laptop does not evaluate because of uncatchable, renamed: ")
    assert "--keep-going-without" in error["hint"]
    changed = {path for path, digest in site.trace().items() if trace.get(path) != digest}
    assert all(path.startswith((".git/objects/", ".git/glix/")) for path in changed), "only objects that nothing names"
    told = site.glixctl("rebuild", "build", "--keep-going-without")
    assert told.returncode == Exit.DONE, told.stderr
    assert "  disabled, since the host does not evaluate with it: uncatchable, renamed\n" in told.stdout
    assert site.commits()[-1] == "glix disable laptop: uncatchable, renamed"
    packages = {one["name"]: one["enabled"] for one in daemon.call("List", include_disabled=True)["packages"]}
    assert packages == {
        "hello": True,
        "git": True,
        "ripgrep": True,
        "tmux": True,
        "uncatchable": False,
        "renamed": False,
    }
    assert daemon.done("Rebuild", action="build")["outcome"]["rebuild"]["path"]


def test_an_evaluation_that_no_package_breaks_blames_none(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"])
    site.write({"hosts/laptop/default.nix": '{ ... }: { system.extraActivation = throw "hello is not to blame"; }\n'})
    daemon.done("Adopt", everything=True)
    head = site.git("rev-parse", "HEAD")
    error = daemon.failed("Rebuild", keep_going_without=True)
    assert "packages" not in error["details"]
    assert "hello is not to blame" in error["message"]
    assert site.git("rev-parse", "HEAD") == head


def test_another_machine_is_built_here_and_switched_by_the_command_that_is_told(
    site: Site, daemon: RunningDaemon
) -> None:
    daemon.done("Init", host="desktop", user="alice", system="x86_64-linux")
    rebuilt = daemon.done("Rebuild", host="desktop")["outcome"]["rebuild"]
    assert rebuilt["path"].endswith("-nixos-system-desktop-26.05.mini")
    assert not rebuilt["activated"]
    assert rebuilt["command"] == "glixctl rebuild switch --host desktop --target-host root@desktop"
