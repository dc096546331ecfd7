# SPDX-License-Identifier: GPL-3.0-or-later
"""Search in the locked nixpkgs, the index behind it, and consent to what nixpkgs refuses, with a real daemon and nix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from glixd.backends.process import LOWEST_PRIORITY, Processes
from tests.support.daemon import PATIENCE, RpcError, RunningDaemon, Site
from tests.support.hermetic import MINI_NIXPKGS, git, make_git_flake

pytestmark = pytest.mark.integration

MANIFEST = "hosts/laptop/glix.toml"
NO_INDEX = {"GLIXD_INDEX": "false"}
AT_ONCE = {"GLIXD_INDEX_DELAY": "0"}


def names(daemon: RunningDaemon, query: str, **more: Any) -> list[str]:
    return [match["name"] for match in daemon.call("Search", query=query, **more)["matches"]]


def indexed(daemon: RunningDaemon) -> dict[str, Any]:
    status: dict[str, Any] = daemon.call("RefreshIndex", timeout=PATIENCE)
    assert status["state"] == "ready", status
    return status


# -- search ------------------------------------------------------------------------------------------------------


def test_search_knows_versions_descriptions_and_marks(daemon: RunningDaemon) -> None:
    status = indexed(daemon)
    assert status["packages"] > 20
    assert status["left"] == 0
    (firefox,) = daemon.call("Search", query="firefox")["matches"]
    assert firefox == {
        "name": "firefox",
        "flake": "nixpkgs#firefox",
        "source": "nixpkgs",
        "version": "140.0",
        "description": "Web browser",
        "unfree": False,
        "insecure": False,
        "broken": False,
        "installed": False,
    }
    marks = {
        match["name"]: [mark for mark in ("unfree", "insecure", "broken") if match[mark]]
        for match in daemon.call("Search", query="package")["matches"]
    }
    assert marks["unfreepkg"] == ["unfree"]
    assert marks["insecurepkg"] == ["insecure"]
    assert marks["brokenpkg"] == ["broken"]


def test_search_finds_packages_in_sets_and_leaves_out_what_is_none(daemon: RunningDaemon) -> None:
    indexed(daemon)
    assert names(daemon, "requests") == ["python3Packages.requests"]
    assert names(daemon, "http library") == ["python3Packages.requests"]
    for nothing in ("oldalias", "uncatchable", "writeText", "buildPythonApplication", "stdenv"):
        assert names(daemon, nothing) == []


def test_pages_of_a_search_make_a_whole(daemon: RunningDaemon) -> None:
    indexed(daemon)
    whole = names(daemon, "python", limit=1000)
    found: list[str] = []
    following: int | None = 0
    while following is not None:
        page = daemon.call("Search", query="python", limit=3, offset=following)
        found += [match["name"] for match in page["matches"]]
        following = page.get("next")
    assert found == whole
    assert len(whole) == len(set(whole)) > 3


def test_what_a_host_has_is_marked(daemon: RunningDaemon) -> None:
    indexed(daemon)
    daemon.done("Add", refs=["firefox"], name="browser")
    daemon.done("Add", refs=["nixpkgs#ripgrep"])
    for query, installed in (("firefox", True), ("ripgrep", True), ("hello", False)):
        assert [match["installed"] for match in daemon.call("Search", query=query)["matches"]] == [installed]


def test_before_there_is_an_index_names_are_searched_and_it_is_said(site: Site) -> None:
    with RunningDaemon(site, extra=NO_INDEX) as daemon:
        answer = daemon.call("Search", query="fire")
        assert [match["name"] for match in answer["matches"]] == ["firefox"]
        assert answer["index"] == "absent"
        done = site.glixctl("search", "fire")
        assert "firefox" in done.stdout
        assert "no index" in done.stderr


def test_the_index_is_built_in_the_background_and_survives_the_daemon(site: Site) -> None:
    with RunningDaemon(site, extra=AT_ONCE) as daemon:
        indexed(daemon)
    (index,) = (site.state / "index").iterdir()
    before = index.stat()
    with RunningDaemon(site, extra=NO_INDEX) as daemon:
        assert daemon.call("Search", query="firefox")["index"] == "ready"
    assert index.stat().st_mtime_ns == before.st_mtime_ns


def test_another_lock_gets_another_index_and_the_old_one_goes(site: Site, tmp_path: Path) -> None:
    with RunningDaemon(site) as daemon:
        before = indexed(daemon)
        shutil.copytree(MINI_NIXPKGS, tmp_path / "nixpkgs")
        packages = tmp_path / "nixpkgs" / "pkgs.nix"
        text = packages.read_text().replace('firefox = mk "firefox" "140.0"', 'firefox = mk "firefox" "141.0"')
        packages.chmod(0o644)
        packages.write_text(text)
        url = make_git_flake(tmp_path / "nixpkgs")
        flake = site.repository / "flake.nix"
        old = next(line for line in flake.read_text().splitlines() if "nixpkgs.url" in line)
        flake.write_text(flake.read_text().replace(old, f'    nixpkgs.url = "{url}";'))
        daemon.done("Add", refs=["hello"])
        after = indexed(daemon)
        assert after["revision"] != before["revision"]
        (firefox,) = daemon.call("Search", query="firefox")["matches"]
        assert firefox["version"] == "141.0"
    assert len(list((site.state / "index").iterdir())) == 1
    assert git(site.repository, "status", "--short", "--untracked-files=no") == ""


def test_a_damaged_index_is_built_again(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        indexed(daemon)
    (index,) = (site.state / "index").iterdir()
    index.write_bytes(b"damaged" * 4096)
    with RunningDaemon(site) as daemon:
        indexed(daemon)
        assert names(daemon, "firefox") == ["firefox"]


@pytest.mark.parametrize("query", ["", "  ", "a" * 257, "fire\nfox", "\x1b[31m"])
def test_a_query_is_one_line_of_text(daemon: RunningDaemon, query: str) -> None:
    with pytest.raises(RpcError) as refused:
        daemon.call("Search", query=query)
    assert refused.value.name == "InvalidArgument"


def test_a_stop_does_not_wait_for_the_index(site: Site) -> None:
    with RunningDaemon(site, extra=AT_ONCE) as daemon:
        daemon.call("Search", query="firefox")
        assert daemon.stop() == 0
    assert not [path for path in (site.state / "index").glob("*.db*") if path.suffix == ".db-journal"]


def test_glixctl_search_prints_a_table_and_waits_for_the_index_when_asked(daemon: RunningDaemon) -> None:
    done = daemon.site.glixctl("search", "unfree", "--refresh", "--limit", "1")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split() == ["NAME", "VERSION", "MARKS", "DESCRIPTION"]
    assert row.split()[:3] == ["unfreepkg", "1.0", "unfree"]
    assert "--offset 1" in done.stderr
    assert daemon.site.glixctl("search", "nosuchthing").returncode == 4
    assert json.loads(daemon.site.glixctl("search", "firefox", "--json").stdout)["index"] == "ready"


def test_unknown_names_get_suggestions_from_the_index(daemon: RunningDaemon) -> None:
    indexed(daemon)
    error = daemon.run("Add", refs=["firefx"])["error"]
    assert (error["name"], error["details"]["closest"]) == ("UnknownPackage", ["firefox"])


def test_a_search_that_finds_nothing_suggests_what_is_spelt_alike(daemon: RunningDaemon) -> None:
    indexed(daemon)
    assert daemon.call("Search", query="fierfox") == {"matches": [], "index": "ready", "near": ["firefox"]}
    for query, offset in (("firefox", 0), ("firefox", 5), ("web brwoser", 0), ("§", 0), ("zzzzzzzz", 0)):
        assert daemon.call("Search", query=query, offset=offset)["near"] == []
    done = daemon.site.glixctl("search", "fierfox")
    assert (done.returncode, done.stderr) == (4, "glixctl: nothing fits; did you mean firefox?\n")
    assert json.loads(daemon.site.glixctl("search", "fierfox", "--json").stdout)["near"] == ["firefox"]


def test_without_an_index_it_suggests_names_that_nixpkgs_has(site: Site) -> None:
    with RunningDaemon(site, extra=NO_INDEX) as daemon:
        assert daemon.call("Search", query="fierfox")["near"] == ["firefox"]


def test_a_name_that_is_given_twice_is_called_so(daemon: RunningDaemon) -> None:
    error = daemon.failed("Add", refs=["firefox", "firefox"])
    assert error["message"] == "refs: firefox is named twice"
    error = daemon.failed("Add", refs=["firefox", "nixpkgs#firefox"])
    assert error["message"] == "refs: nixpkgs#firefox is named twice"
    assert "firefox is named twice" in daemon.site.glixctl("add", "firefox", "firefox").stderr


def test_work_for_the_background_yields_and_has_little_memory() -> None:
    words = ["sh", "-c", "read line; ulimit -v; nice"]
    done = Processes({"PATH": "/usr/bin:/bin"}).run(words, stdin=b"now\n", memory=512 * 1024 * 1024)
    assert done.stdout.split() == [b"524288", str(LOWEST_PRIORITY).encode()]


# -- consent -----------------------------------------------------------------------------------------------------

REFUSED = {"unfreepkg": "unfree", "insecurepkg": "insecure", "brokenpkg": "broken"}


@pytest.mark.parametrize("index", [True, False])
def test_what_nixpkgs_refuses_needs_a_consent_that_the_error_names(site: Site, index: bool) -> None:
    with RunningDaemon(site, extra=NO_INDEX) as daemon:
        if index:
            indexed(daemon)
        before = site.commits()
        for name, kind in REFUSED.items():
            error = daemon.run("Add", refs=["hello", name])["error"]
            assert error["name"] == "ConsentNeeded"
            assert error["details"] == {"packages": [name], "options": [f"allow_{kind}"]}
            assert f"--allow-{kind}" in error["hint"]
        assert site.commits() == before


def test_a_consent_is_recorded_shown_and_evaluates(daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=list(REFUSED), allow_unfree=True, allow_insecure=True, allow_broken=True)
    text = daemon.site.read("hosts/laptop/glix.toml")
    for name, kind in REFUSED.items():
        assert f'allow_{kind} = ["{name}"]' in text
        assert daemon.call("Show", name=name)["consents"] == [kind]
    assert "consents:" in daemon.site.glixctl("show", "unfreepkg").stdout
    assert daemon.health()["state"] == "ok"


def test_a_consent_goes_with_its_package(daemon: RunningDaemon) -> None:
    before = daemon.site.read("hosts/laptop/glix.toml")
    daemon.done("Add", refs=["unfreepkg"], allow_unfree=True)
    daemon.done("Remove", names=["unfreepkg"])
    assert daemon.site.read("hosts/laptop/glix.toml") == before
    assert daemon.run("Add", refs=["unfreepkg"])["error"]["name"] == "ConsentNeeded"


def test_a_consent_that_is_not_needed_is_not_recorded(daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["firefox"], allow_unfree=True, allow_insecure=True, allow_broken=True)
    assert "allow_" not in daemon.site.read("hosts/laptop/glix.toml")


def test_where_the_host_allows_it_nobody_is_asked(daemon: RunningDaemon) -> None:
    module = daemon.site.repository / "hosts" / "laptop" / "default.nix"
    module.write_text(module.read_text().replace("imports =", "nixpkgs.config.allowUnfree = true;\n  imports =", 1))
    daemon.site.git("commit", "--quiet", "--all", "--message", "Allow unfree packages")
    daemon.done("Add", refs=["unfreepkg"])
    assert "allow_" not in daemon.site.read("hosts/laptop/glix.toml")
    assert daemon.run("Add", refs=["brokenpkg"])["error"]["name"] == "ConsentNeeded"


def test_a_package_that_becomes_or_is_switched_to_what_nixpkgs_refuses_needs_a_consent(daemon: RunningDaemon) -> None:
    site = daemon.site
    indexed(daemon)
    daemon.done("Add", refs=["hello"])
    refused = daemon.failed("Set", name="hello", changes={"flake": "nixpkgs#unfreepkg"})
    assert (refused["name"], refused["details"]["options"]) == ("ConsentNeeded", ["allow_unfree"])
    daemon.done("Set", name="hello", changes={"flake": "nixpkgs#unfreepkg"}, allow_unfree=True)
    assert daemon.call("Show", name="hello")["consents"] == ["unfree"]
    assert daemon.health()["state"] == "ok"
    daemon.done("Disable", names=["hello"])
    daemon.done("Enable", names=["hello"])
    daemon.done("Set", name="hello", changes={"flake": "nixpkgs#git"})
    assert not daemon.call("Show", name="hello")["consents"]
    site.commit({MANIFEST: site.read(MANIFEST) + '\n[packages.old]\nflake = "nixpkgs#insecurepkg"\nenabled = false\n'})
    refused = daemon.failed("Enable", names=["old"])
    assert (refused["name"], refused["details"]["packages"]) == ("ConsentNeeded", ["old"])
    assert "--allow-insecure" in site.glixctl("enable", "old").stderr
    assert site.glixctl("enable", "old", "--allow-insecure").returncode == 0
    assert daemon.call("Show", name="old")["consents"] == ["insecure"]
    assert daemon.health()["state"] == "ok"


def test_enabling_records_the_consent_that_was_lacking_and_no_other(site: Site) -> None:
    site.commit(
        {MANIFEST: site.read(MANIFEST) + '\n[packages.unfreepkg]\nflake = "nixpkgs#unfreepkg"\nenabled = false\n'}
    )
    with RunningDaemon(site, extra=NO_INDEX) as daemon:
        refused = daemon.failed("Enable", names=["unfreepkg"], allow_broken=True)
        assert (refused["name"], refused["details"]["options"]) == ("ConsentNeeded", ["allow_unfree"])
        assert "allow_" not in site.read(MANIFEST)
        daemon.done("Enable", names=["unfreepkg"], allow_unfree=True, allow_broken=True)
        assert daemon.call("Show", name="unfreepkg")["consents"] == ["unfree"]


def test_a_consent_holds_for_the_package_wherever_it_moves(daemon: RunningDaemon) -> None:
    daemon.done("Add", refs=["unfreepkg"], allow_unfree=True)
    for scope in ("home", "system"):
        daemon.done("Move", names=["unfreepkg"], scope=scope)
        assert daemon.call("Show", name="unfreepkg")["consents"] == ["unfree"]
        assert daemon.health()["state"] == "ok", scope


def test_a_free_package_that_needs_a_refused_one_is_added_and_shows_in_the_health(daemon: RunningDaemon) -> None:
    module = daemon.site.read("hosts/laptop/default.nix")
    overlay = (
        "nixpkgs.overlays = [ (_: prev: { free = prev.hello // { inherit (prev.unfreepkg) drvPath outPath; }; }) ];"
    )
    daemon.site.commit({"hosts/laptop/default.nix": module.replace("imports =", f"{overlay}\n  imports =", 1)})
    daemon.done("Add", refs=["free"])
    health = daemon.health()
    assert health["state"] == "failed"
    assert "unfreepkg-1.0" in health["message"]
    assert health["message"].endswith(": glixctl enable NAME --allow-unfree")
    consented = daemon.site.glixctl("enable", "free", "--allow-unfree")
    assert consented.returncode == 0, consented.stderr
    assert daemon.call("Show", name="free")["consents"] == ["unfree"]
    assert daemon.health()["state"] == "ok"
    assert daemon.site.glixctl("enable", "free", "--allow-unfree").returncode == 7
    daemon.done("Remove", names=["free"])
    daemon.done("Add", refs=["free"], allow_unfree=True)
    assert daemon.call("Show", name="free")["consents"] == ["unfree"]
    assert daemon.health()["state"] == "ok"


def test_an_environment_variable_consents_to_nothing(site: Site) -> None:
    variables = {"NIXPKGS_ALLOW_UNFREE": "1", "NIXPKGS_ALLOW_BROKEN": "1", "NIXPKGS_ALLOW_INSECURE": "1"}
    with RunningDaemon(site, extra=variables) as daemon:
        for name in REFUSED:
            assert daemon.run("Add", refs=[name])["error"]["name"] == "ConsentNeeded"


def test_glixctl_says_which_flag_consents_and_takes_it(daemon: RunningDaemon) -> None:
    refused = daemon.site.glixctl("add", "unfreepkg")
    assert refused.returncode == 5
    assert "--allow-unfree" in refused.stderr
    assert daemon.site.glixctl("add", "unfreepkg", "--allow-unfree").returncode == 0
