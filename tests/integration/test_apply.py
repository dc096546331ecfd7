# SPDX-License-Identifier: GPL-3.0-or-later
"""Several changes as one: one commit, in order, each on what the ones before it leave, or none of them."""

from __future__ import annotations

import subprocess
import tomllib
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RpcError, RunningDaemon, Site, glixctl_command
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()

CHANGES = """
[[operations]]
operation = "Remove"
names = ["tmux"]

[[operations]]
operation = "Add"
refs = ["hello", "path:./pkgs/x"]
scope = "home"

[[operations]]
operation = "Set"
name = "x"
changes = { scope = "system", "config.colour" = "red" }

[[operations]]
operation = "Disable"
names = ["hello"]

[[operations]]
operation = "Add"
refs = ["nixpkgs#git"]
name = "tmux"
"""


@pytest.fixture
def stocked(site: Site, daemon: RunningDaemon) -> Site:
    """A repository with a package, and a folder that can become one."""
    site.commit({"pkgs/x/flake.nix": HELLO})
    daemon.done("Add", refs=["tmux"])
    return site


def packages(site: Site, host: str = "laptop") -> dict[str, Any]:
    """The packages of a host as they are committed."""
    found: dict[str, Any] = tomllib.loads(site.committed(f"hosts/{host}/glix.toml")).get("packages", {})
    return found


def test_changes_of_a_file_are_one_commit_in_their_order(stocked: Site) -> None:
    (stocked.home / "changes.toml").write_text(CHANGES)
    before = len(stocked.commits())
    done = stocked.glixctl("apply", "-f", "changes.toml", "--reason", "a new desk")
    assert done.returncode == Exit.DONE, done.stderr
    assert len(stocked.commits()) == before + 1
    assert stocked.commits()[-1] == "glix apply laptop: tmux, hello, x"
    message = stocked.git("log", "-1", "--format=%b").splitlines()
    assert message[:6] == [
        "removed tmux (nixpkgs#tmux, system)",
        "added hello (nixpkgs#hello, home of alice, via nixpkgs)",
        "added x (path:./pkgs/x, home of alice, via uri)",
        "changed x (path:./pkgs/x, system)",
        "disabled hello (nixpkgs#hello, home of alice)",
        "added tmux (nixpkgs#git, system, via uri)",
    ]
    assert "Glix-Reason: a new desk" in message
    assert "red" not in "\n".join(message)
    found = packages(stocked)
    assert (found["hello"]["enabled"], found["tmux"]["flake"]) == (False, "nixpkgs#git")
    assert found["x"] == {"flake": "path:./pkgs/x", "scope": "system", "config": {"colour": "red"}}
    assert stocked.evaluated()["system"] == ["git", "pkg-hello"]


def test_changes_come_from_standard_input_too(stocked: Site) -> None:
    done = subprocess.run(
        glixctl_command("apply", "-f", "-"),
        env=stocked.environment(),
        input=CHANGES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.DONE, done.stderr
    assert set(packages(stocked)) == {"hello", "x", "tmux"}


def test_part_goes_to_its_own_host_and_the_others_to_that_of_the_batch(stocked: Site, daemon: RunningDaemon) -> None:
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    operations = [
        {"operation": "Add", "refs": ["hello"]},
        {"operation": "Add", "refs": ["git"], "host": "laptop"},
        {"operation": "SetHost", "changes": {"default_scope": "home"}},
        {"operation": "Add", "refs": ["firefox"]},
    ]
    before = len(stocked.commits())
    daemon.done("Apply", operations=operations, host="pi")
    assert len(stocked.commits()) == before + 1
    assert set(packages(stocked)) == {"tmux", "git"}
    pi = packages(stocked, "pi")
    assert {name: table["scope"] for name, table in pi.items()} == {"hello": "system", "firefox": "home"}


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ({"operation": "Remove", "names": ["nosuch"]}, "NotInstalled"),
        ({"operation": "Remove", "names": ["hello", "hello2"]}, "NotInstalled"),
        ({"operation": "Add", "refs": ["hello"]}, "AlreadyInstalled"),
        ({"operation": "Add", "refs": ["firefoks"]}, "UnknownPackage"),
        ({"operation": "Add", "refs": ["path:/abs"]}, "LocalPathRefused"),
        ({"operation": "Add", "refs": ["git"], "host": "pi"}, "UnknownHost"),
        ({"operation": "Set", "name": "hello", "changes": {"user": "alice"}}, "InvalidArgument"),
        ({"operation": "SetHost", "changes": {"primary_user": ""}}, "InvalidArgument"),
        ({"operation": "Set", "name": "hello", "changes": {"colour": "red"}}, "InvalidArgument"),
        ({"operation": "Enable"}, "InvalidArgument"),
        ({"operation": "Enable", "names": ["hello"], "colour": "red"}, "InvalidArgument"),
        ({"operation": "Enable", "names": ["hello"], "dry_run": True}, "InvalidArgument"),
        ({"operation": "Update"}, "InvalidArgument"),
        ({"operation": "Apply", "operations": []}, "InvalidArgument"),
        ({"names": ["hello"]}, "InvalidArgument"),
    ],
)
def test_one_bad_part_changes_nothing_and_the_error_names_it(
    stocked: Site, daemon: RunningDaemon, part: dict[str, Any], error: str
) -> None:
    operations = [
        {"operation": "Add", "refs": ["hello"]},
        {"operation": "Add", "refs": ["git"], "scope": "home"},
        part,
        {"operation": "Remove", "names": ["hello"]},
    ]
    trace = stocked.trace()
    try:
        found = daemon.failed("Apply", operations=operations)
        name, message, details = found["name"], found["message"], found["details"]
    except RpcError as refused:
        name, message, details = refused.name, refused.message, refused.details
    assert stocked.trace() == trace
    assert name == error
    assert message.startswith("operations.3: ")
    assert details["part"] == 3


def test_batch_that_undoes_itself_is_no_commit(stocked: Site, daemon: RunningDaemon) -> None:
    head = stocked.git("rev-parse", "HEAD")
    operations = [{"operation": "Disable", "names": ["tmux"]}, {"operation": "Enable", "names": ["tmux"]}]
    before = packages(stocked)
    daemon.run("Apply", operations=operations)
    assert packages(stocked)["tmux"].get("enabled", True) == before["tmux"].get("enabled", True)
    so_already = [
        {"operation": "Enable", "names": ["tmux"]},
        {"operation": "Set", "name": "tmux", "changes": {"pin": ""}},
    ]
    head = stocked.git("rev-parse", "HEAD")
    assert daemon.done("Apply", operations=so_already)["outcome"]["changed"] is False
    assert stocked.git("rev-parse", "HEAD") == head


@pytest.mark.parametrize("text", ["", "operations = 7\n", "[[operations]\n", "operations = []\n"])
def test_file_that_holds_no_changes_is_refused_by_the_client(stocked: Site, text: str) -> None:
    (stocked.home / "changes.toml").write_text(text)
    done = stocked.glixctl("apply", "-f", "changes.toml")
    assert done.returncode == Exit.USAGE
    assert "changes.toml" in done.stderr
    assert stocked.glixctl("apply", "-f", "nosuch.toml").returncode == Exit.USAGE
