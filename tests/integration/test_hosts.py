# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of one repository: added, changed, renamed and taken out, each with everything that is its own."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Answer, RpcError, RunningDaemon, Site
from tests.support.hermetic import git, make_git_flake
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()
REGION = "# >>> glix-managed hosts >>>"


@pytest.fixture
def two(site: Site, daemon: RunningDaemon) -> Site:
    """A repository with the hosts laptop and pi."""
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    return site


def refused(daemon: RunningDaemon, operation: str, **parameters: Any) -> Answer:
    """The error of a mutation that must fail and leave no trace."""
    daemon.run("Regenerate", dry_run=True)  # whatever comes first takes note of what people committed
    trace = daemon.site.trace()
    error = daemon.failed(operation, **parameters)
    assert daemon.site.trace() == trace
    return error


def settings(site: Site, host: str) -> dict[str, Any]:
    """The settings of a host as they are committed."""
    found: dict[str, Any] = tomllib.loads(site.committed(f"hosts/{host}/glix.toml"))["settings"]
    return found


def tracked(site: Site, folder: str) -> dict[str, str]:
    """The files that git tracks below a folder, with their modes and objects."""
    lines = site.git("ls-tree", "-r", "HEAD", "--", folder).splitlines()
    return {line.split("\t")[1].removeprefix(folder): line.split("\t")[0] for line in lines}


def test_second_host_leaves_the_first_alone_and_both_evaluate(two: Site, daemon: RunningDaemon) -> None:
    assert two.git("diff", "--name-only", "HEAD~1").splitlines() == [
        "flake.nix",
        "hosts/pi/default.nix",
        "hosts/pi/glix.toml",
    ]
    assert two.commits()[-1] == "glix init pi: host (aarch64-linux, bob)"
    daemon.done("Add", refs=["hello"])
    daemon.done("Add", refs=["git"], host="pi")
    assert (two.evaluated("laptop")["system"], two.evaluated("pi")["system"]) == (["hello"], ["git"])
    assert refused(daemon, "Init", host="pi", user="bob")["name"] == "Conflict"


def test_hosts_are_listed_with_what_they_have(two: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello", "git"])
    daemon.done("Disable", names=["git"])
    for host in ("laptop", "pi"):
        daemon.health(host)
    lines = [line.split() for line in two.glixctl("host", "list").stdout.splitlines()]
    assert lines[1:] == [
        ["laptop", "x86_64-linux", "alice", "1/2", "ok"],
        ["pi", "aarch64-linux", "bob", "0/0", lines[2][-1]],
    ]
    told = json.loads(two.glixctl("host", "list", "--json").stdout)["hosts"]
    assert [(host["name"], host["packages"], host["enabled"]) for host in told] == [("laptop", 2, 1), ("pi", 0, 0)]


def test_settings_of_a_host_change_in_one_commit_and_empty_ones_go(two: Site) -> None:
    done = two.glixctl("host", "set", "pi", "system=x86_64-linux", "default_scope=home", "auto_apply=true")
    assert done.returncode == Exit.DONE, done.stderr
    assert two.commits()[-1] == (
        "glix set-host pi: auto_apply, default_scope, system (auto_apply=true, default_scope=home, system=x86_64-linux)"
    )
    found = settings(two, "pi")
    assert (found["system"], found["default_scope"], found["auto_apply"]) == ("x86_64-linux", "home", True)
    assert 'mkHost "pi" "x86_64-linux"' in two.committed("flake.nix")
    assert settings(two, "laptop")["system"] == "x86_64-linux"
    assert two.glixctl("host", "set", "pi", "auto_apply=", "default_scope=").returncode == Exit.DONE
    assert not {"auto_apply", "default_scope"} & settings(two, "pi").keys()
    assert two.glixctl("host", "set", "pi", "system=x86_64-linux").returncode == Exit.NOTHING_TO_DO


@pytest.mark.parametrize(
    "changes",
    [
        {"system": "not a system"},
        {"primary_user": "Not A User"},
        {"default_scope": "everywhere"},
        {"auto_apply": "yes"},
        {"allow_unfree": "firefox"},
        {"colour": "red"},
        {"system": "x86_64-linux", "colour": "red"},
    ],
)
def test_setting_that_makes_no_sense_is_refused(two: Site, daemon: RunningDaemon, changes: dict[str, str]) -> None:
    with pytest.raises(RpcError, match="changes") as error:
        daemon.call("SetHost", host="pi", changes=changes)
    assert error.value.name == "InvalidArgument"


def test_primary_user_stays_while_packages_need_one(two: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"], scope="home")
    error = refused(daemon, "SetHost", changes={"primary_user": ""})
    assert (error["name"], error["details"]["argument"]) == ("InvalidArgument", "user")
    daemon.done("Remove", names=["hello"])
    daemon.done("SetHost", changes={"primary_user": ""})
    assert "primary_user" not in settings(two, "laptop")


def test_renamed_host_takes_all_tracked_files_along_with_modes_and_links(two: Site, daemon: RunningDaemon) -> None:
    two.commit({"hosts/pi/hardware.nix": "{ }\n", "hosts/pi/bin/run": "#!/bin/sh\n", "hosts/pi/data/a b": "x\n"})
    (two.repository / "hosts/pi/bin/run").chmod(0o755)
    (two.repository / "hosts/pi/link.nix").symlink_to("hardware.nix")
    two.git("add", "--all")
    two.git("commit", "--quiet", "--message", "More")
    two.write({"hosts/pi/untracked": "mine\n"})
    daemon.done("Add", refs=["git"], host="pi")
    before = tracked(two, "hosts/pi")
    daemon.done("RenameHost", name="pi", to="attic")
    assert tracked(two, "hosts/attic") == before
    assert tracked(two, "hosts/pi") == {}
    assert two.git("status", "--porcelain") == "?? hosts/pi/"
    assert [path.name for path in (two.repository / "hosts/pi").rglob("*")] == ["untracked"]
    assert os.readlink(two.repository / "hosts/attic/link.nix") == "hardware.nix"
    assert os.access(two.repository / "hosts/attic/bin/run", os.X_OK)
    assert two.commits()[-1] == "glix rename-host pi: host (attic, host)"
    assert 'attic" = mkHost "attic" "aarch64-linux"' in two.committed("flake.nix")
    assert '"pi"' not in two.committed("flake.nix")
    assert two.evaluated("attic")["system"] == ["git"]
    assert two.git("log", "--follow", "--format=%s", "hosts/attic/hardware.nix").splitlines()[-1] == "By hand"
    assert daemon.call("Info")["published"]


def test_removed_host_takes_its_files_and_its_inputs_away_and_no_others(two: Site, daemon: RunningDaemon) -> None:
    two.commit({"pkgs/x/flake.nix": HELLO, "hosts/pi/hardware.nix": "{ }\n"})
    (two.repository / "hosts/pi/link").symlink_to("/nowhere")
    two.git("add", "--all")
    two.git("commit", "--quiet", "--message", "More")
    files = {path: two.committed(path) for path in ("flake.lock", "hosts/laptop/glix.toml", "hosts/laptop/default.nix")}
    daemon.done("Add", refs=["path:./pkgs/x"], host="pi")
    daemon.done("RemoveHost", name="pi")
    assert tracked(two, "hosts/pi") == {}
    assert not (two.repository / "hosts/pi").exists()
    assert {path: two.committed(path) for path in files} == files
    assert (two.git("status", "--porcelain"), daemon.call("Info")["published"]) == ("", True)
    assert [host["name"] for host in daemon.call("ListHosts")["hosts"]] == ["laptop"]
    with pytest.raises(RpcError) as unknown:
        daemon.call("List", host="pi")
    assert (unknown.value.name, unknown.value.details["known"]) == ("UnknownHost", ["laptop"])


def test_last_host_can_go_and_another_come(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("RemoveHost", name="laptop")
    assert daemon.call("ListHosts")["hosts"] == []
    assert daemon.failed("Add", refs=["hello"])["name"] == "UnknownHost"
    daemon.done("Init", user="alice", system="x86_64-linux")
    daemon.done("Add", refs=["hello"])
    assert site.evaluated()["system"] == ["hello"]


@pytest.mark.parametrize("edited", ["glix.toml", "default.nix", "hardware.nix"])
def test_open_edit_in_the_folder_of_a_host_forbids_moving_it(two: Site, daemon: RunningDaemon, edited: str) -> None:
    two.commit({"hosts/pi/hardware.nix": "{ }\n"})
    path = f"hosts/pi/{edited}"
    two.write({path: two.read(path) + "# mine\n"})
    for operation, more in (("RemoveHost", {}), ("RenameHost", {"to": "attic"})):
        error = refused(daemon, operation, name="pi", **more)
        assert (error["name"], error["details"]["path"]) == ("ManagedFileEdited", path)
        assert "adopt --all" in error["hint"]
    daemon.done("Adopt", everything=True)
    daemon.done("RenameHost", name="pi", to="attic")
    assert two.committed(f"hosts/attic/{edited}").endswith("# mine\n")


def test_host_is_never_renamed_onto_something(two: Site, daemon: RunningDaemon) -> None:
    two.commit({"hosts/common/default.nix": "{ }\n"})
    two.write({"hosts/draft/notes": "mine\n"})
    for name in ("laptop", "pi", "common", "draft"):
        assert refused(daemon, "RenameHost", name="pi", to=name)["name"] == "Conflict", name
    assert refused(daemon, "RenameHost", name="nosuch", to="x")["name"] == "UnknownHost"
    assert refused(daemon, "RemoveHost", name="common")["name"] == "UnknownHost"


def test_link_behind_a_link_out_of_the_repository_is_never_removed(
    two: Site, daemon: RunningDaemon, tmp_path: Path
) -> None:
    (two.repository / "hosts/pi/data").mkdir()
    (two.repository / "hosts/pi/data/link").symlink_to("/nowhere")
    two.git("add", "--all")
    two.git("commit", "--quiet", "--message", "More")
    (two.repository / "hosts/pi/data").rename(tmp_path / "outside")
    (two.repository / "hosts/pi/data").symlink_to(tmp_path / "outside")
    done = daemon.done("RemoveHost", name="pi")
    assert "is a link" in done["warnings"][0]
    assert os.readlink(tmp_path / "outside/link") == "/nowhere"


def test_folder_with_a_name_that_is_no_plain_text_is_not_moved(two: Site, daemon: RunningDaemon) -> None:
    (two.repository / "hosts/pi/two\nlines").write_text("x\n")
    two.git("add", "--all")
    two.git("commit", "--quiet", "--message", "Odd")
    assert refused(daemon, "RemoveHost", name="pi")["name"] == "Conflict"
    assert refused(daemon, "RenameHost", name="pi", to="attic")["name"] == "Conflict"


def test_same_package_name_with_other_urls_on_two_hosts(two: Site, daemon: RunningDaemon, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_git_flake(tmp_path / name / "tool", {"flake.nix": HELLO, "README": name})
    urls = [f"git+file://{tmp_path}/{name}/tool" for name in ("one", "two")]
    daemon.done("Add", refs=[urls[0]], allow_local=True)
    daemon.done("Add", refs=[urls[1]], host="pi", allow_local=True)
    inputs = [daemon.call("Show", name="tool", host=host)["input"] for host in ("laptop", "pi")]
    heads = [git(tmp_path / name / "tool", "rev-parse", "HEAD") for name in ("one", "two")]
    assert [two.lock_nodes()[name]["locked"]["rev"] for name in inputs] == heads
    assert (two.evaluated("laptop")["system"], two.evaluated("pi")["system"]) == (["pkg-hello"], ["pkg-hello"])
    daemon.done("RenameHost", name="laptop", to="desk")
    assert two.evaluated("desk")["system"] == ["pkg-hello"]
    daemon.done("RemoveHost", name="desk")
    assert two.lock_nodes().keys() & set(inputs) == {inputs[1]}
    assert two.evaluated("pi")["system"] == ["pkg-hello"]


def test_tables_of_several_hosts_show_each_with_its_own(two: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"])
    daemon.done("Add", refs=["git"], host="pi", scope="home")
    daemon.done("Disable", names=["git"], host="pi")
    lines = [line.split() for line in two.glixctl("list", "--all-hosts", "--all", "-q").stdout.splitlines()]
    assert lines == [
        ["HOST", "NAME", "SCOPE", "STATE", "USER", "FLAKE"],
        ["laptop", "hello", "system", "enabled", "nixpkgs#hello"],
        ["pi", "git", "home", "disabled", "bob", "nixpkgs#git"],
    ]
