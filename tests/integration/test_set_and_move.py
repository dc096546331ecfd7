# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing what is there: keys of a package, and where packages go."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Answer, RpcError, RunningDaemon, Site, Template, new_site
from tests.support.fake_github import FakeGitHub
from tests.support.hermetic import git, make_git_flake
from tests.support.repositories import EXAMPLES, Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()
GREETING = (EXAMPLES / "pkg-greeting/flake.nix").read_text()


def entry(site: Site, name: str) -> Answer:
    """The table of a package as it is committed."""
    table: Answer = tomllib.loads(site.committed(MANIFEST))["packages"][name]
    return table


def refused(daemon: RunningDaemon, operation: str, **parameters: object) -> Answer:
    """The error of a mutation that must fail and leave no trace."""
    trace = daemon.site.trace()
    error = daemon.failed(operation, **parameters)
    assert daemon.site.trace() == trace
    return error


def changed(daemon: RunningDaemon, name: str, **changes: str) -> Answer:
    """Set keys in one commit of its own; the table afterwards."""
    before = len(daemon.site.commits())
    daemon.done("Set", name=name, changes={key.replace("__", "."): value for key, value in changes.items()})
    assert len(daemon.site.commits()) == before + 1
    return entry(daemon.site, name)


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGitHub]:
    """A GitHub with a tool of two versions."""
    with FakeGitHub(tmp_path_factory.mktemp("github")) as server:
        server.add_repository("owner", "tool", {"flake.nix": HELLO}, tag="v1.0")
        server.add_repository("owner", "tool", {"flake.nix": HELLO + "# two\n"})
        yield server


@pytest.fixture
def online(tmp_path: Path, template: Template, github: FakeGitHub) -> Iterator[RunningDaemon]:
    """A daemon whose way to GitHub leads to the fake one, with the tool installed."""
    environment = github.environment()
    with new_site(tmp_path / "online", template.nix, template, environment) as site, RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["github:owner/tool"])
        yield daemon


# -- keys ----------------------------------------------------------------------------------------------------------


def test_every_key_is_set_and_cleared_again(site: Site, daemon: RunningDaemon, sources: Sources) -> None:
    hello = HELLO.replace("github:NixOS/nixpkgs/nixos-unstable", sources.nixpkgs)
    site.commit({"pkgs/x/flake.nix": hello, "pkgs/y/flake.nix": hello})
    daemon.done("Add", refs=["path:./pkgs/x"])
    first = site.committed(MANIFEST)
    assert changed(daemon, "x", enabled="false")["enabled"] is False
    assert changed(daemon, "x", enabled="")["enabled"] is True
    assert changed(daemon, "x", scope="home", user="alice")["user"] == "alice"
    assert site.evaluated()["homes"] == {"alice": ["pkg-hello"]}
    assert "user" not in changed(daemon, "x", user="")
    assert changed(daemon, "x", scope="system")["scope"] == "system"
    assert "scope" not in changed(daemon, "x", scope="")
    assert changed(daemon, "x", follows="false")["follows"] is False
    assert 'x" = { url = "path:./pkgs/x"; };' in site.committed("flake.nix")
    assert changed(daemon, "x", follows="true", scope="system")["follows"] is True
    assert changed(daemon, "x", flake="path:./pkgs/y")["flake"] == "path:./pkgs/y"
    assert 'x" = { url = "path:./pkgs/y"; inputs.nixpkgs.follows = "nixpkgs"; };' in site.committed("flake.nix")
    assert changed(daemon, "x", flake="nixpkgs#hello")["flake"] == "nixpkgs#hello"
    assert '"x"' not in site.committed("flake.nix")
    assert site.evaluated()["system"] == ["hello"]
    assert set(entry(site, "x")) == {*tomllib.loads(first)["packages"]["x"], "enabled", "follows"}


def test_several_keys_are_one_commit_whose_message_has_no_value_of_the_configuration(
    site: Site, daemon: RunningDaemon
) -> None:
    daemon.done("Add", refs=["hello"])
    table = changed(daemon, "hello", scope="home", user="bob", config__token="s3cret", config__colour="red")
    assert table == {
        "flake": "nixpkgs#hello",
        "scope": "home",
        "user": "bob",
        "config": {"colour": "red", "token": "s3cret"},
    }
    message = site.git("log", "-1", "--format=%B")
    assert message.splitlines()[0] == "glix set laptop: hello (nixpkgs#hello, home of bob)"
    assert "s3cret" not in message
    assert "s3cret" not in json.dumps(daemon.call("ListTransactions")["transactions"][0]["outcome"]["summary"])


def test_configuration_is_added_changed_and_cleared_and_the_host_reads_it(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"pkgs/greeting/flake.nix": GREETING})
    daemon.done("Add", refs=["path:./pkgs/greeting"])
    changed(daemon, "greeting", config__message="Good ${evening}")
    assert site.evaluated()["etc"]["greeting"] == "Good ${evening}"
    table = changed(daemon, "greeting", config__message='"quoted" \\ é\nand a second line', config__other="x=y")
    assert site.evaluated()["etc"]["greeting"] == '"quoted" \\ é\nand a second line'
    assert table["config"]["other"] == "x=y"
    assert set(changed(daemon, "greeting", config__message="")["config"]) == {"other"}
    assert "config" not in changed(daemon, "greeting", config__other="")
    assert site.evaluated()["etc"]["greeting"] == "Hello"


def test_comments_and_unknown_keys_around_a_change_stay(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello", "git"])
    text = site.committed(MANIFEST)
    text = text.replace("[packages.hello]\n", "# above\n[packages.hello] # beside\n# inside\nfuture = 1 # unknown\n")
    site.commit({MANIFEST: text})
    changed(daemon, "hello", enabled="false", config__a="b")
    after = site.committed(MANIFEST)
    for comment in ("# above\n", "# beside\n", "# inside\n", "future = 1 # unknown\n"):
        assert comment in after
    assert after.split("[packages.git]")[1] == text.split("[packages.git]")[1]
    changed(daemon, "hello", enabled="true", config__a="")
    assert site.committed(MANIFEST).replace("enabled = true\n", "") == text


def test_pin_goes_into_the_url_of_the_input_and_out_again(online: RunningDaemon, github: FakeGitHub) -> None:
    repository = github.repository("owner", "tool")
    first, newest = git(repository, "rev-parse", "v1.0"), git(repository, "rev-parse", "main")
    site = online.site
    assert site.lock_nodes()["tool"]["locked"]["rev"] == newest
    changed(online, "tool", pin="v1.0")
    assert site.lock_nodes()["tool"]["original"]["ref"] == "v1.0"
    assert site.lock_nodes()["tool"]["locked"]["rev"] == first
    changed(online, "tool", pin=newest)
    assert site.lock_nodes()["tool"]["original"]["rev"] == newest
    changed(online, "tool", pin="main")
    assert site.lock_nodes()["tool"]["original"]["ref"] == "main"
    assert "pin" not in changed(online, "tool", pin="")
    assert "ref" not in site.lock_nodes()["tool"]["original"]


def test_pin_that_is_not_there_fails_to_lock_and_leaves_no_trace(online: RunningDaemon) -> None:
    error = refused(online, "Set", name="tool", changes={"pin": "v9.9", "enabled": "false"})
    assert error["name"] == "LockFailed"
    assert "tool" in error["message"] + error["hint"]


def test_pin_beside_a_revision_in_the_reference_is_refused(online: RunningDaemon) -> None:
    error = refused(online, "Set", name="tool", changes={"flake": "github:owner/tool/v1.0", "pin": "main"})
    assert error["name"] == "BadReference"
    assert changed(online, "tool", flake="github:owner/tool/v1.0")["flake"] == "github:owner/tool/v1.0"
    assert refused(online, "Set", name="tool", changes={"pin": "main"})["name"] == "BadReference"


def test_pin_of_a_folder_is_refused(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    daemon.done("Add", refs=["path:./pkgs/x"])
    assert refused(daemon, "Set", name="x", changes={"pin": "v1.0"})["name"] == "BadReference"


def test_local_path_needs_consent_whichever_way_it_comes(site: Site, daemon: RunningDaemon, tmp_path: Path) -> None:
    make_git_flake(tmp_path / "local", {"flake.nix": HELLO})
    daemon.done("Add", refs=["hello"])
    for reference in (f"path:{tmp_path}/local", f"git+file://{tmp_path}/local", f"{tmp_path}/local"):
        error = refused(daemon, "Set", name="hello", changes={"flake": reference})
        assert error["name"] in ("LocalPathRefused", "BadReference"), reference
    consented = {"flake": f"path:{tmp_path}/local"}
    daemon.done("Set", name="hello", changes=consented, allow_local=True)
    assert site.evaluated()["system"] == ["pkg-hello"]
    daemon.done("Set", name="hello", changes={"config.a": "b"})  # what was consented to stays so


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "alice"},
        {"scope": "everywhere"},
        {"enabled": "yes"},
        {"follows": "1"},
        {"flake": ""},
        {"user": "Not A User", "scope": "home"},
        {"colour": "red"},
        {"name": "other"},
        {"input": "nixpkgs"},
        {"config.": "x"},
        {"config.a": "\x1b[31m"},
        {"scope": "home", "colour": "red"},
    ],
)
def test_what_makes_no_sense_is_refused_whole(daemon: RunningDaemon, changes: dict[str, str]) -> None:
    daemon.done("Add", refs=["hello"])
    with daemon.connect() as client:
        trace = daemon.site.trace()
        try:
            name = client.run("Set", name="hello", changes=changes)["error"]["name"]
        except RpcError as error:
            name = error.name
    assert name == "InvalidArgument"
    assert daemon.site.trace() == trace


def test_package_that_is_not_there_is_refused_with_the_closest(daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"])
    for operation, more in (("Set", {"name": "helo", "changes": {"scope": "home"}}), ("Move", {"names": ["helo"]})):
        error = refused(daemon, operation, **more)
        assert error["name"] == "NotInstalled"
        assert "hello" in error["hint"]


def test_what_is_so_already_is_no_commit(site: Site) -> None:
    assert site.glixctl("add", "hello").returncode == Exit.DONE
    head = site.git("rev-parse", "HEAD")
    for words in (
        ("set", "hello", "scope=system"),
        ("set", "hello", "enabled=true", "config.none="),
        ("move", "hello", "--scope", "system"),
    ):
        done = site.glixctl(*words)
        assert (done.returncode, done.stderr) == (Exit.NOTHING_TO_DO, ""), words
        assert done.stdout == "nothing to do on laptop\n"
    assert site.git("rev-parse", "HEAD") == head


def test_set_that_keeps_an_input_shared_leaves_the_other_host_alone(online: RunningDaemon) -> None:
    online.done("Init", host="pi", user="bob", system="aarch64-linux")
    online.done("Add", refs=["github:owner/tool"], host="pi")
    online.done("Set", name="tool", changes={"pin": "v1.0"}, host="pi")
    site = online.site
    own = tomllib.loads(site.committed("hosts/pi/glix.toml"))["packages"]["tool"]["input"]
    assert own.startswith("tool-")
    nodes = site.lock_nodes()
    assert nodes["tool"]["locked"]["rev"] != nodes[own]["locked"]["rev"]
    online.done("Set", name="tool", changes={"pin": ""}, host="pi")
    assert own not in site.lock_nodes()
    assert "input" not in tomllib.loads(site.committed("hosts/pi/glix.toml"))["packages"]["tool"]


# -- where packages go ---------------------------------------------------------------------------------------------


def test_packages_move_between_the_system_and_homes(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello", "git", "tmux"])
    lock = site.committed("flake.lock")
    moved = daemon.done("Move", names=["hello", "git"], scope="home")
    assert [(one["action"], one["name"], one["user"]) for one in moved["outcome"]["changes"]] == [
        ("moved", "hello", "alice"),
        ("moved", "git", "alice"),
    ]
    assert site.commits()[-1] == "glix move laptop: hello, git"
    assert (site.evaluated()["system"], site.evaluated()["homes"]) == (["tmux"], {"alice": ["git", "hello"]})
    daemon.done("Move", names=["git"], user="bob")
    assert site.commits()[-1] == "glix move laptop: git (nixpkgs#git, home of bob)"
    assert (entry(site, "git")["scope"], entry(site, "git")["user"]) == ("home", "bob")
    daemon.done("Move", names=["git", "hello", "tmux"])
    assert site.evaluated()["system"] == ["git", "hello", "tmux"]
    assert "user" not in entry(site, "git")
    assert site.committed("flake.lock") == lock


def test_move_of_several_is_all_or_nothing(site: Site, daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["hello"])
    assert refused(daemon, "Move", names=["hello", "nosuch"], scope="home")["name"] == "NotInstalled"
