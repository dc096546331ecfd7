# SPDX-License-Identifier: GPL-3.0-or-later
"""Undoing: one commit, as far back as asked, never forth, and never over what people or later changes did."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Answer, RpcError, RunningDaemon, Site
from tests.support.hermetic import make_git_flake
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
MANAGED = ("flake.nix", "flake.lock", MANIFEST)
HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()


def files(site: Site, revision: str = "HEAD") -> dict[str, str]:
    """The managed files of a commit."""
    return {path: site.committed(path, revision) for path in MANAGED}


def tree(site: Site, revision: str = "HEAD") -> str:
    """The name of everything that a commit holds."""
    return site.git("rev-parse", f"{revision}^{{tree}}")


def packages(site: Site, host: str = "laptop") -> dict[str, Any]:
    """The packages of a host as they are committed."""
    found: dict[str, Any] = tomllib.loads(site.committed(f"hosts/{host}/glix.toml")).get("packages", {})
    return found


def undone(daemon: RunningDaemon, **parameters: Any) -> Answer:
    """Roll back in one commit, which the work tree shows; the transaction."""
    site = daemon.site
    before, status = len(site.commits()), site.git("status", "--porcelain")
    done = daemon.done("Rollback", **parameters)
    assert len(site.commits()) == before + 1
    assert site.git("status", "--porcelain") == status
    return done


def refused(daemon: RunningDaemon, **parameters: Any) -> Answer:
    """The error of a rollback that must fail and leave no trace."""
    daemon.run("Regenerate", dry_run=True)  # whatever comes first takes note of what people committed
    trace = daemon.site.trace()
    error = daemon.failed("Rollback", **parameters)
    assert daemon.site.trace() == trace
    return error


def add(daemon: RunningDaemon, *names: str, **parameters: Any) -> str:
    """Add packages; the commit."""
    commit: str = daemon.done("Add", refs=list(names), **parameters)["commit"]
    return commit


# -- how far -------------------------------------------------------------------------------------------------------


def test_three_rollbacks_go_three_steps_back_and_never_forth(site: Site, daemon: RunningDaemon) -> None:
    trees = [tree(site)]
    for name in ("hello", "git", "tmux"):
        add(daemon, name)
        trees.append(tree(site))
    for earlier in reversed(trees[:-1]):
        undone(daemon)
        assert tree(site) == earlier
    error = refused(daemon)
    assert error["name"] == "NothingToUndo"
    add(daemon, "hello")
    undone(daemon)
    assert tree(site) == trees[0]


def test_several_steps_are_one_commit_that_names_what_it_undid(site: Site, daemon: RunningDaemon) -> None:
    before = tree(site)
    commits = [add(daemon, name) for name in ("hello", "git", "tmux")]
    subjects = site.commits()[-3:]
    done = undone(daemon, steps=3, reason="a mistake")
    assert tree(site) == before
    message = site.git("log", "-1", "--format=%B").splitlines()
    assert message[0] == f"glix rollback all-hosts: {', '.join(commit[:7] for commit in reversed(commits))}"
    assert message[2:5] == [
        f"undid {commit[:7]} ({subject})" for commit, subject in zip(reversed(commits), reversed(subjects), strict=True)
    ]
    assert [f"Glix-Undoes: {commit}" for commit in reversed(commits)] == [
        line for line in message if line.startswith("Glix-Undoes: ")
    ]
    assert "Glix-Reason: a mistake" in message
    assert [change["action"] for change in done["outcome"]["changes"]] == ["undid"] * 3


def test_everything_after_a_commit_is_undone_and_what_people_committed_there_is_not(
    site: Site, daemon: RunningDaemon
) -> None:
    first = add(daemon, "hello")
    expected = files(site)
    add(daemon, "git")
    site.commit({"shared/base.nix": "{ }\n"})
    add(daemon, "tmux")
    undone(daemon, to_commit=first[:8])
    assert files(site) == expected
    assert site.committed("shared/base.nix") == "{ }\n"
    assert refused(daemon, to_commit=first)["name"] == "NothingToUndo"


def test_rollback_of_a_host_steps_over_the_others(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    add(daemon, "hello", host="pi")
    add(daemon, "git")
    add(daemon, "tmux", host="pi")
    add(daemon, "firefox")
    undone(daemon, host="pi")
    assert site.commits()[-1].startswith("glix rollback pi: ")
    assert (set(packages(site, "pi")), set(packages(site))) == ({"hello"}, {"git", "firefox"})
    undone(daemon, host="pi")
    assert (set(packages(site, "pi")), set(packages(site))) == (set(), {"git", "firefox"})
    undone(daemon, steps=2)
    assert (set(packages(site, "pi")), set(packages(site))) == (set(), set())


def test_nothing_to_undo_is_said_and_is_no_commit(site: Site) -> None:
    assert site.glixctl("ping").returncode == Exit.DONE
    head = site.git("rev-parse", "HEAD")
    done = site.glixctl("rollback")
    assert done.returncode == Exit.NOTHING_TO_DO
    assert "nothing to undo" in done.stderr
    assert site.glixctl("rollback", "--to", head[:8]).returncode == Exit.NOTHING_TO_DO
    assert site.git("rev-parse", "HEAD") == head


def test_more_steps_than_there_are_is_refused_with_how_many_there_are(site: Site, daemon: RunningDaemon) -> None:
    add(daemon, "hello")
    error = refused(daemon, steps=2)
    assert error["name"] == "NothingToUndo"
    assert error["message"] == "Only 1 change of glixd can be undone, and 2 were asked for."


@pytest.mark.parametrize("target", ["0123456789", "HEAD", "main~1", "--all", ""])
def test_commit_that_is_none_of_the_branch_is_refused(daemon: RunningDaemon, target: str) -> None:
    with daemon.connect() as client:
        try:
            name = client.run("Rollback", to_commit=target)["error"]["name"]
        except RpcError as error:
            name = error.name
    assert name == "InvalidArgument"


def test_commit_of_another_branch_is_refused(site: Site, daemon: RunningDaemon) -> None:
    add(daemon, "hello")
    other = site.git("commit-tree", "-m", "Elsewhere", "-p", "HEAD", "HEAD^{tree}")
    assert refused(daemon, to_commit=other)["name"] == "InvalidArgument"
    with pytest.raises(RpcError, match="steps"):
        daemon.call("Rollback", to_commit=site.git("rev-parse", "HEAD"), steps=1)


def test_dry_run_says_what_would_go_and_changes_nothing(site: Site, daemon: RunningDaemon) -> None:
    add(daemon, "hello")
    add(daemon, "git")
    trace = site.trace()
    dry = site.glixctl("rollback", "--steps", "2", "--dry-run")
    assert dry.returncode == Exit.DONE, dry.stderr
    assert "-[packages.git]" in dry.stdout
    assert "-[packages.hello]" in dry.stdout
    assert site.trace() == trace


# -- what people did -----------------------------------------------------------------------------------------------


def test_commits_of_people_stay_and_are_stepped_over(site: Site, daemon: RunningDaemon) -> None:
    add(daemon, "hello")
    manifest = site.committed(MANIFEST)
    mine = manifest.replace("[packages.hello]", '[packages.mine]\nflake = "nixpkgs#git"\n\n[packages.hello]')
    site.commit({MANIFEST: mine, "hosts/laptop/default.nix": site.read("hosts/laptop/default.nix") + "# mine\n"})
    site.commit({"notes": "mine\n"})
    undone(daemon)
    assert set(packages(site)) == {"mine"}
    assert site.committed("hosts/laptop/default.nix").endswith("# mine\n")
    assert site.committed("notes") == "mine\n"
    assert refused(daemon)["name"] == "NothingToUndo"


def test_work_under_way_is_neither_committed_nor_lost(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"shared/base.nix": "{ }\n"})
    add(daemon, "hello")
    site.write({"shared/base.nix": "{ } # mine\n", "new": "mine\n", "staged": "mine\n"})
    site.git("add", "staged")
    undone(daemon)
    assert (site.read("shared/base.nix"), site.read("new")) == ("{ } # mine\n", "mine\n")
    assert site.git("diff", "--name-only", "HEAD~1", "HEAD") == MANIFEST


def test_edits_that_went_along_stay_and_only_the_request_is_undone(site: Site, daemon: RunningDaemon) -> None:
    add(daemon, "tmux")
    site.write({MANIFEST: site.read(MANIFEST) + '\n[packages.git]\nflake = "nixpkgs#git" # by hand\n'})
    site.write({"flake.nix": site.read("flake.nix").replace("My machines", "Our machines")})
    edited = site.read(MANIFEST)
    add(daemon, "hello")
    undone(daemon)
    assert site.committed(MANIFEST) == edited
    assert "Our machines" in site.committed("flake.nix")
    undone(daemon)
    assert set(packages(site)) == {"git"}


def test_edited_settings_that_went_along_stay_and_those_of_the_request_go(site: Site, daemon: RunningDaemon) -> None:
    site.write({MANIFEST: site.read(MANIFEST).replace("[settings]\n", "[settings]\nauto_apply = true # by hand\n")})
    daemon.done("SetHost", changes={"default_scope": "home"})
    undone(daemon)
    settings = tomllib.loads(site.committed(MANIFEST))["settings"]
    assert (settings["auto_apply"], settings.get("default_scope", "system")) == (True, "system")
    assert "auto_apply = true # by hand\n" in site.committed(MANIFEST)


def test_edits_of_another_host_that_went_along_stay(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    mine = site.read("hosts/pi/glix.toml") + '\n[packages.hello]\nflake = "nixpkgs#hello"\n'
    site.write({"hosts/pi/glix.toml": mine})
    add(daemon, "hello")
    undone(daemon)
    assert (set(packages(site)), site.committed("hosts/pi/glix.toml")) == (set(), mine)


def test_open_edit_is_taken_over_by_the_rollback_and_stays(site: Site, daemon: RunningDaemon) -> None:
    add(daemon, "hello")
    mine = site.read(MANIFEST).replace("[packages.hello]", '[packages.git]\nflake = "nixpkgs#git"\n\n[packages.hello]')
    site.write({MANIFEST: mine})
    daemon.done("Rollback")
    assert set(packages(site)) == {"git"}
    assert f"Glix-Adopted: {MANIFEST}" in site.git("log", "-1", "--format=%b").splitlines()


def test_adopted_edits_that_were_the_request_are_undone_whole(site: Site, daemon: RunningDaemon) -> None:
    before = files(site)
    site.write({MANIFEST: site.read(MANIFEST) + '\n[packages.git]\nflake = "nixpkgs#git"\n'})
    daemon.done("Adopt")
    undone(daemon)
    assert files(site) == before


# -- what was built upon -------------------------------------------------------------------------------------------


def test_package_that_a_person_changed_since_is_refused_with_the_reason(site: Site, daemon: RunningDaemon) -> None:
    commit = add(daemon, "hello")
    site.commit({MANIFEST: site.committed(MANIFEST).replace('"nixpkgs#hello"', '"nixpkgs#git"')})
    error = refused(daemon)
    assert error["name"] == "Conflict"
    assert error["details"] == {"commit": commit, "changed": "hello"}
    assert "glix add laptop: hello" in error["message"]


def test_file_that_a_person_changed_since_is_refused_with_its_path(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    site.commit({"hosts/pi/default.nix": "{ } # mine\n"})
    error = refused(daemon)
    assert (error["name"], error["details"]["changed"]) == ("Conflict", "hosts/pi/default.nix")


def test_change_of_a_host_on_which_another_one_builds_is_refused(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    add(daemon, "hello", host="pi")
    daemon.done("RenameHost", name="pi", to="attic")
    error = refused(daemon, host="attic", steps=2)
    assert error["name"] in ("Conflict", "NothingToUndo")
    undone(daemon, steps=3)
    assert [host["name"] for host in daemon.call("ListHosts")["hosts"]] == ["laptop"]


# -- each kind of change -------------------------------------------------------------------------------------------


def test_removal_is_undone_with_its_comments(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    add(daemon, "hello", "path:./pkgs/x", "git")
    text = site.committed(MANIFEST).replace("[packages.x]\n", "[packages.x] # beside\n# inside\n")
    site.commit({MANIFEST: text})
    before = files(site)
    daemon.done("Remove", names=["x"])
    undone(daemon)
    assert files(site) == before
    daemon.done("Remove", names=["x"])
    site.commit({MANIFEST: site.committed(MANIFEST).replace("# glix.toml", "# my glix.toml", 1) + "\n# the end\n"})
    undone(daemon)
    assert packages(site)["x"]["flake"] == "path:./pkgs/x"
    assert site.committed(MANIFEST).endswith("# the end\n")
    assert site.evaluated()["system"] == ["git", "hello", "pkg-hello"]


def test_changes_of_keys_scopes_and_settings_are_undone(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO, "pkgs/y/flake.nix": HELLO})
    add(daemon, "path:./pkgs/x", "hello")
    before = files(site)
    daemon.done("Set", name="x", changes={"flake": "path:./pkgs/y", "config.a": "b", "enabled": "false"})
    daemon.done("Move", names=["hello"], scope="home")
    daemon.done("SetHost", changes={"system": "aarch64-linux", "default_scope": "home"})
    daemon.done("Disable", names=["hello"])
    daemon.done("Apply", operations=[{"operation": "Add", "refs": ["git"]}, {"operation": "Remove", "names": ["x"]}])
    for _ in range(5):
        undone(daemon)
    assert files(site) == before


def test_update_is_undone_to_the_last_byte_of_the_lock(site: Site, daemon: RunningDaemon, tmp_path: Path) -> None:
    source = tmp_path / "moving"
    make_git_flake(source, {"flake.nix": "{ outputs = _: { }; }"})
    add(daemon, f"git+file://{source}?ref=main", allow_local=True)
    before = files(site)
    make_git_flake(source, {"README": "newer\n"})
    daemon.done("Update", inputs=["moving"])
    assert site.committed("flake.lock") != before["flake.lock"]
    add(daemon, "hello")
    undone(daemon, steps=2)
    assert files(site) == before


def test_update_on_which_another_one_builds_is_refused(site: Site, daemon: RunningDaemon, tmp_path: Path) -> None:
    source = tmp_path / "moving"
    make_git_flake(source, {"flake.nix": "{ outputs = _: { }; }"})
    add(daemon, f"git+file://{source}?ref=main", allow_local=True)
    make_git_flake(source, {"README": "newer\n"})
    commit = daemon.done("Update")["commit"]
    locked = site.lock_nodes()["moving"]["locked"]["rev"]
    site.commit({"flake.lock": site.committed("flake.lock").replace(locked, "0" * 40)})
    error = refused(daemon)
    assert (error["name"], error["details"]) == ("Conflict", {"commit": commit, "changed": "flake.lock"})


def test_added_host_is_undone_with_all_its_files(site: Site, daemon: RunningDaemon) -> None:
    before = tree(site)
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    undone(daemon)
    assert tree(site) == before
    assert not (site.repository / "hosts/pi").exists()


def test_removed_and_renamed_hosts_come_back_with_modes_and_links(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    site.commit({"hosts/pi/bin/run": "#!/bin/sh\n"})
    (site.repository / "hosts/pi/bin/run").chmod(0o755)
    (site.repository / "hosts/pi/link").symlink_to("default.nix")
    site.git("add", "--all")
    site.git("commit", "--quiet", "--message", "More")
    before = tree(site)
    daemon.done("RenameHost", name="pi", to="attic")
    undone(daemon)
    assert tree(site) == before
    daemon.done("RemoveHost", name="pi")
    undone(daemon)
    assert tree(site) == before
    assert os.readlink(site.repository / "hosts/pi/link") == "default.nix"
    assert os.access(site.repository / "hosts/pi/bin/run", os.X_OK)
    assert site.evaluated("pi")["system"] == []


def test_open_edit_of_a_file_that_would_go_is_refused(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    site.write({"hosts/pi/default.nix": "{ } # mine\n"})
    error = refused(daemon)
    assert (error["name"], error["details"]["path"]) == ("ManagedFileEdited", "hosts/pi/default.nix")


def test_edited_files_of_an_adoption_come_back_with_their_modes(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"run.sh": "#!/bin/sh\n", "notes": "one\n"})
    (site.repository / "run.sh").chmod(0o755)
    site.git("commit", "--quiet", "--all", "--message", "Run")
    before = tree(site)
    site.write({"run.sh": "#!/bin/sh\nexit\n", "notes": "two\n"})
    daemon.done("Adopt", everything=True)
    undone(daemon)
    assert tree(site) == before


def test_making_of_the_repository_is_never_undone(bare_site: Site, template: Any) -> None:
    template.copy_to(bare_site)
    with RunningDaemon(bare_site) as daemon:
        error = daemon.failed("Rollback")
    assert error["name"] == "NothingToUndo"
    assert "making of the repository" in error["message"]
