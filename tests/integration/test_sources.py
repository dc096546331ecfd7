# SPDX-License-Identifier: GPL-3.0-or-later
"""Where packages come from: every kind of reference, from the command line to the evaluated host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site, Template, new_site, registry
from tests.support.fake_github import FakeGitHub
from tests.support.hermetic import git, make_git_flake
from tests.support.repositories import EXAMPLES, Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
SYSTEMS = '[ "x86_64-linux" "aarch64-linux" ]'


def flake(outputs: str, nixpkgs: str = "github:NixOS/nixpkgs") -> dict[str, str]:
    """A flake with these outputs; `each f` maps over the systems, `script pkgs name` is a package."""
    return {
        "flake.nix": f"""{{
  inputs.nixpkgs.url = "{nixpkgs}";
  outputs = {{ self, nixpkgs }}: let
    each = f: nixpkgs.lib.genAttrs {SYSTEMS} (system: f nixpkgs.legacyPackages.${{system}});
    script = pkgs: name: pkgs.writeShellScriptBin name "echo ${{name}}";
  in {{ {outputs} }};
}}
"""
    }


def package(name: str, nixpkgs: str = "github:NixOS/nixpkgs") -> dict[str, str]:
    return flake(f'packages = each (pkgs: {{ default = script pkgs "{name}"; }});', nixpkgs)


HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()
GREETING = (EXAMPLES / "pkg-greeting/flake.nix").read_text()


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGitHub]:
    """A GitHub with a tool of three versions, and some modules."""
    with FakeGitHub(tmp_path_factory.mktemp("github")) as server:
        server.add_repository("owner", "tool", package("tool-one"), tag="v1.0")
        server.add_repository("owner", "tool", package("tool-two"))
        server.add_repository("other", "tool", package("other-tool"))
        server.add_repository("owner", "greeting", {"flake.nix": GREETING})
        server.add_repository(
            "owner", "deep", {"sub/flake.nix": package("in-a-folder")["flake.nix"], "README": "not here"}
        )
        yield server


@pytest.fixture
def online(tmp_path: Path, template: Template, github: FakeGitHub) -> Iterator[Site]:
    """A home with a repository, whose way to GitHub leads to the fake one."""
    with new_site(tmp_path / "online", template.nix, template, github.environment()) as made:
        yield made


def add(site: Site, *words: str) -> None:
    done = site.glixctl("add", *words)
    assert done.returncode == Exit.DONE, done.stderr


def refused(site: Site, status: int, *words: str) -> str:
    """Run a command that must be refused and leave no trace; what it says."""
    before = site.trace()
    done = site.glixctl(*words)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert site.trace() == before
    return done.stderr


# -- GitHub --------------------------------------------------------------------------------------------------------


def test_plain_github_reference_is_locked_at_its_newest_commit_and_follows_nixpkgs(
    online: Site, github: FakeGitHub
) -> None:
    add(online, "github:owner/tool")
    assert online.commits()[-1] == "glix add laptop: tool (github:owner/tool, system, via uri)"
    assert online.evaluated()["system"] == ["tool-two"]
    node = online.lock_nodes()["tool"]
    assert node["locked"]["rev"] == git(github.repository("owner", "tool"), "rev-parse", "main")
    assert node["inputs"] == {"nixpkgs": ["nixpkgs"]}
    assert "pin" not in online.committed(MANIFEST)


def test_tag_pin_stays_on_the_tag(online: Site, github: FakeGitHub) -> None:
    add(online, "github:owner/tool", "--pin", "v1.0")
    assert online.evaluated()["system"] == ["tool-one"]
    assert online.lock_nodes()["tool"]["locked"]["rev"] == git(github.repository("owner", "tool"), "rev-parse", "v1.0")
    assert 'pin = "v1.0"' in online.committed(MANIFEST)


def test_commit_pin_stays_on_the_commit(online: Site, github: FakeGitHub) -> None:
    commit = git(github.repository("owner", "tool"), "rev-parse", "v1.0")
    add(online, "github:owner/tool", "--pin", commit)
    assert online.evaluated()["system"] == ["tool-one"]
    assert online.lock_nodes()["tool"]["original"]["rev"] == commit


@pytest.mark.parametrize("pin", ["v9.9", "0123456789abcdef0123456789abcdef01234567"])
def test_pin_that_is_not_there_fails_and_leaves_no_trace(online: Site, pin: str) -> None:
    said = refused(online, Exit.FAILED, "add", "github:owner/tool", "--pin", pin)
    assert "could not be locked" in said
    (transaction,) = json.loads(online.glixctl("transaction", "list", "--json").stdout)["transactions"]
    assert (transaction["state"], transaction["error"]["name"]) == ("failed", "LockFailed")
    assert transaction.get("commit") is None


def test_repository_that_is_not_there_fails_and_leaves_no_trace(online: Site) -> None:
    assert "could not be locked" in refused(online, Exit.FAILED, "add", "github:owner/nothing")


def test_folder_of_a_github_repository_names_the_package(online: Site) -> None:
    add(online, "github:owner/deep?dir=sub")
    assert online.commits()[-1].startswith("glix add laptop: sub (")
    assert online.evaluated()["system"] == ["in-a-folder"]


def test_same_name_with_different_urls_on_two_hosts_is_two_inputs(online: Site) -> None:
    assert online.glixctl("init", "--host", "pi", "--user", "bob", "--system", "aarch64-linux").returncode == Exit.DONE
    add(online, "github:owner/tool")
    add(online, "--host", "pi", "github:other/tool")
    first, second = sorted(set(online.lock_nodes()) - {"root", "nixpkgs", "glixos-core", "home-manager"})
    assert first == "tool"
    assert second.startswith("tool-")
    assert len(second) == len("tool-") + 8
    assert f'input = "{second}"' in online.committed("hosts/pi/glix.toml")
    assert (online.evaluated("laptop")["system"], online.evaluated("pi")["system"]) == (["tool-two"], ["other-tool"])
    # The assigned names stay when the first one goes.
    assert online.glixctl("remove", "tool").returncode == Exit.DONE
    assert set(online.lock_nodes()) == {"root", "nixpkgs", "glixos-core", "home-manager", second}
    assert online.evaluated("pi")["system"] == ["other-tool"]


def test_same_reference_on_two_hosts_is_one_input(online: Site) -> None:
    assert online.glixctl("init", "--host", "pi", "--user", "bob", "--system", "aarch64-linux").returncode == Exit.DONE
    add(online, "github:owner/tool")
    lock = online.committed("flake.lock")
    add(online, "--host", "pi", "github:owner/tool")
    assert online.committed("flake.lock") == lock
    assert online.evaluated("pi")["system"] == ["tool-two"]
    assert online.glixctl("remove", "tool").returncode == Exit.DONE
    assert online.committed("flake.lock") == lock


def test_remove_takes_the_input_and_its_lock_away(online: Site) -> None:
    files = {path: online.committed(path) for path in ("flake.nix", "flake.lock", MANIFEST)}
    add(online, "github:owner/tool")
    assert online.glixctl("remove", "tool").returncode == Exit.DONE
    assert {path: online.committed(path) for path in files} == files


def test_disabled_package_keeps_its_input_so_that_enabling_never_locks(online: Site) -> None:
    add(online, "github:owner/tool")
    lock = online.committed("flake.lock")
    assert online.glixctl("disable", "tool").returncode == Exit.DONE
    assert online.committed("flake.lock") == lock
    assert online.evaluated()["system"] == []
    assert online.glixctl("enable", "tool").returncode == Exit.DONE
    assert online.committed("flake.lock") == lock
    assert online.evaluated()["system"] == ["tool-two"]


# -- folders of the repository -------------------------------------------------------------------------------------


def test_folder_of_the_repository_becomes_a_package(site: Site) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    add(site, "path:./pkgs/x")
    assert site.commits()[-1] == "glix add laptop: x (path:./pkgs/x, system, via uri)"
    assert site.evaluated()["system"] == ["pkg-hello"]


def test_folder_that_is_not_committed_is_refused_with_the_remedy(site: Site) -> None:
    site.write({"pkgs/x/flake.nix": HELLO})
    assert "git add pkgs/x" in refused(site, Exit.REFUSED, "add", "path:./pkgs/x")


def test_change_of_a_folder_is_locked_anew_by_the_next_mutation(site: Site) -> None:
    site.commit({"pkgs/x/flake.nix": package("before")["flake.nix"]})
    add(site, "path:./pkgs/x")
    assert site.evaluated()["system"] == ["before"]
    site.commit({"pkgs/x/flake.nix": package("after")["flake.nix"]})
    add(site, "firefox")
    assert site.evaluated()["system"] == ["after", "firefox"]


def test_absolute_path_needs_consent(site: Site, tmp_path: Path) -> None:
    make_git_flake(tmp_path / "local", {"flake.nix": HELLO})
    reference = f"path:{tmp_path}/local"
    assert "--allow-local" in refused(site, Exit.REFUSED, "add", reference)
    add(site, reference, "--allow-local")
    assert site.evaluated()["system"] == ["pkg-hello"]


# -- what a flake offers -------------------------------------------------------------------------------------------


def test_nixos_module_takes_its_configuration_from_the_manifest(site: Site) -> None:
    site.commit({"pkgs/greeting/flake.nix": GREETING})
    add(site, "path:./pkgs/greeting")
    assert site.evaluated()["etc"]["greeting"] == "Hello"
    configured = site.read(MANIFEST) + '\n[packages.greeting.config]\nmessage = "Good ${evening}"\n'
    site.write({MANIFEST: configured})
    add(site, "hello")
    assert f"Glix-Adopted: {MANIFEST}" in site.git("log", "-1", "--format=%b").splitlines()
    host = site.evaluated()
    assert host["etc"]["greeting"] == "Good ${evening}"
    assert host["system"] == ["hello", "pkg-greeting"]


def test_home_module_takes_its_configuration_from_the_manifest(online: Site) -> None:
    add(online, "github:owner/greeting", "--scope", "home")
    configured = online.read(MANIFEST) + '\n[packages.greeting.config]\nmessage = "Hi"\n'
    online.write({MANIFEST: configured})
    add(online, "hello")
    host = online.evaluated()
    assert host["homes"] == {"alice": ["pkg-greeting"]}
    assert host["files"] == {"alice": {".config/greeting": "Hi"}}
    assert host["system"] == ["hello"]


def test_values_of_the_configuration_never_stand_in_a_commit_message(site: Site) -> None:
    site.commit({"pkgs/greeting/flake.nix": GREETING})
    add(site, "path:./pkgs/greeting")
    site.write({MANIFEST: site.read(MANIFEST) + '\n[packages.greeting.config]\nmessage = "a secret"\n'})
    assert site.glixctl("disable", "greeting").returncode == Exit.DONE
    assert "a secret" in site.committed(MANIFEST)
    assert "a secret" not in site.git("log", "-1", "--format=%B")


def test_flake_with_only_a_package_goes_to_the_system_or_a_home(site: Site) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    add(site, "path:./pkgs/x")
    add(site, "path:./pkgs/x", "--name", "mine", "--user", "alice")
    host = site.evaluated()
    assert (host["system"], host["homes"]) == (["pkg-hello"], {"alice": ["pkg-hello"]})


def test_attribute_of_a_flake_is_that_package_and_no_part_of_the_input(site: Site) -> None:
    outputs = 'packages = each (pkgs: { default = script pkgs "no"; tools.one = script pkgs "one"; });'
    site.commit({"pkgs/x/flake.nix": flake(outputs)["flake.nix"]})
    add(site, "path:./pkgs/x#tools.one")
    assert site.commits()[-1] == "glix add laptop: one (path:./pkgs/x#tools.one, system, via uri)"
    assert '"path:./pkgs/x"' in site.committed("flake.nix")
    assert site.evaluated()["system"] == ["one"]


def test_opt_out_of_follows_keeps_the_inputs_own_nixpkgs(site: Site, sources: Sources) -> None:
    site.commit({"pkgs/x/flake.nix": package("own", sources.nixpkgs)["flake.nix"]})
    add(site, "path:./pkgs/x", "--no-follows")
    assert "follows = false" in site.committed(MANIFEST)
    node = site.lock_nodes()["x"]
    assert node["inputs"] == {"nixpkgs": "nixpkgs_2"}
    assert site.evaluated()["system"] == ["own"]


# -- short names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name", "flake_text", "found"),
    [
        ("7zip", "7zip", "nixpkgs#7zip", "7zip"),
        ("_1password", "_1password", "nixpkgs#_1password", "1password"),
        ("nixpkgs#hello", "hello", "nixpkgs#hello", "hello"),
        ("python3Packages.requests", "requests", "nixpkgs#python3Packages.requests", "python3.13-requests"),
        ("nixpkgs#python3Packages.requests", "requests", "nixpkgs#python3Packages.requests", "python3.13-requests"),
    ],
)
def test_name_of_the_hosts_nixpkgs_needs_no_input(
    daemon: RunningDaemon, site: Site, asked: str, name: str, flake_text: str, found: str
) -> None:
    lock = site.committed("flake.lock")
    (change,) = daemon.done("Add", refs=[asked])["outcome"]["changes"]
    assert (change["name"], change["flake"]) == (name, flake_text)
    assert site.evaluated()["system"] == [found]
    assert site.committed("flake.lock") == lock


@pytest.mark.parametrize("name", ["7zip", "_1password"])
def test_package_of_an_odd_name_may_have_an_input(site: Site, name: str) -> None:
    site.commit({f"pkgs/{name}/flake.nix": HELLO})
    add(site, f"path:./pkgs/{name}")
    assert site.glixctl("disable", name).returncode == Exit.DONE
    assert site.glixctl("enable", name).returncode == Exit.DONE
    assert site.evaluated()["system"] == ["pkg-hello"]
    assert site.glixctl("remove", name).returncode == Exit.DONE


def test_unknown_name_gets_the_closest_ones(site: Site) -> None:
    said = refused(site, Exit.NOT_FOUND, "add", "firefoks")
    assert "firefox" in said
    assert "Did you mean" in said


def test_unknown_attribute_of_nixpkgs_is_no_package(site: Site) -> None:
    refused(site, Exit.NOT_FOUND, "add", "nixpkgs#nosuchthing")
    refused(site, Exit.NOT_FOUND, "add", "nixpkgs#python3Packages")


def test_name_in_a_registry_means_its_flake(site: Site, tmp_path: Path) -> None:
    url = make_git_flake(tmp_path / "sitetool", package("from-the-registry"))
    with registry(site.nix, {"sitetool": url}):
        assert "--allow-local" in refused(site, Exit.REFUSED, "add", "sitetool")
        add(site, "sitetool", "--allow-local")
    assert site.evaluated()["system"] == ["from-the-registry"]
    assert "via nix-registry" in site.commits()[-1]


def test_name_that_a_registry_and_nixpkgs_know_is_ambiguous_and_both_are_offered(site: Site) -> None:
    with registry(site.nix, {"hello": "github:owner/hello"}):
        said = refused(site, Exit.REFUSED, "add", "hello")
        assert "glixctl add github:owner/hello" in said
        assert "glixctl add nixpkgs#hello" in said
        add(site, "nixpkgs#hello")
    assert site.evaluated()["system"] == ["hello"]
