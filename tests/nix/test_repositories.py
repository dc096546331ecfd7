# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole repositories: locked, committed and evaluated as nixos-rebuild would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.hermetic import HermeticNix, commit_all, git, git_url, make_git_flake, quoted, write_files
from tests.support.repositories import (
    EXAMPLES,
    GLIX_STYLE,
    Sources,
    generated_flake,
    generated_host,
    localised_copy,
)

pytestmark = pytest.mark.nix

SUMMARY = """c: let names = ps: builtins.sort builtins.lessThan (map (p: p.pname or p.name) ps); in {
  system = names c.environment.systemPackages;
  homes = builtins.mapAttrs (_: names) c.system.homePackages;
  etc = builtins.mapAttrs (_: file: file.text) c.environment.etc;
  files = c.system.homeFiles;
  platform = c.nixpkgs.hostPlatform;
  name = c.networking.hostName;
  revision = c.system.configurationRevision;
  inherit (c) warnings;
}"""
FIREFOX = '\n[packages.firefox]\nflake = "nixpkgs#firefox"\n'


def lock_and_commit(nix: HermeticNix, folder: Path) -> dict[str, Any]:
    """Lock the repository, commit everything, and return the nodes of the lock."""
    nix.lock(folder)
    commit_all(folder, "Lock")
    nodes: dict[str, Any] = json.loads((folder / "flake.lock").read_text())["nodes"]
    return nodes


def summary(nix: HermeticNix, folder: Path, host: str = "laptop") -> Any:
    return nix.eval_installable(f"{git_url(folder)}#nixosConfigurations.{host}.config", apply=SUMMARY)


def generated(
    folder: Path, sources: Sources, packages: str, *, inputs: dict[str, str] | None = None, home_manager: bool = True
) -> Path:
    """Write a repository with the host laptop as `init` and later additions leave it."""
    flake = generated_flake(sources, inputs=inputs or {}, hosts={"laptop": "x86_64-linux"}, home_manager=home_manager)
    make_git_flake(folder, {"flake.nix": flake, **generated_host("laptop", "x86_64-linux", packages=packages)})
    return folder


def test_generated_repository_has_firefox_among_the_packages_of_the_system(
    nix: HermeticNix, sources: Sources, tmp_path: Path
) -> None:
    repository = generated(tmp_path / "repository", sources, FIREFOX)
    nodes = lock_and_commit(nix, repository)
    host = summary(nix, repository)
    assert host["system"] == ["firefox"]
    assert set(nodes) == {"root", "nixpkgs", "glixos-core", "home-manager"}


def test_generated_host_knows_its_name_platform_and_commit(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = generated(tmp_path / "repository", sources, "")
    lock_and_commit(nix, repository)
    host = summary(nix, repository)
    commit = git(repository, "rev-parse", "HEAD")
    assert (host["name"], host["platform"], host["revision"]) == ("laptop", "x86_64-linux", commit)
    assert host["etc"]["glixos-revision"] == f"{commit}\n"


def test_uncommitted_host_says_so(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = generated(tmp_path / "repository", sources, "")
    lock_and_commit(nix, repository)
    write_files(repository, {"hosts/laptop/note.txt": "dirty"})
    git(repository, "add", "hosts/laptop/note.txt")
    revision = "nixosConfigurations.laptop.config.environment.etc.glixos-revision.text"
    assert nix.eval_installable(f"{repository}#{revision}") == "uncommitted\n"


def test_copy_without_git_says_which_commit_it_is(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = tmp_path / "copy"
    files = {"flake.nix": generated_flake(sources, inputs={}, hosts={"laptop": "x86_64-linux"})}
    write_files(repository, files | generated_host("laptop", "x86_64-linux") | {".glixd-revision": "0123abc\n"})
    revision = "nixosConfigurations.laptop.config.environment.etc.glixos-revision.text"
    assert nix.eval_installable(f"path:{quoted(repository)}#{revision}") == "0123abc\n"


def test_generated_host_evaluates_without_any_package(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = generated(tmp_path / "repository", sources, "", home_manager=False)
    lock_and_commit(nix, repository)
    host = summary(nix, repository)
    assert (host["system"], host["homes"], host["warnings"]) == ([], {}, [])


def test_generated_host_builds(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = generated(tmp_path / "repository", sources, '\n[packages.hello]\nflake = "nixpkgs#hello"\n')
    lock_and_commit(nix, repository)
    system = nix.build(f"{git_url(repository)}#nixosConfigurations.laptop.config.system.build.toplevel")
    assert (system / "sw/bin/hello").exists()
    assert (system / "configuration-revision").read_text() == git(repository, "rev-parse", "HEAD")


def test_generated_host_takes_its_hardware_configuration_when_there_is_one(
    nix: HermeticNix, sources: Sources, tmp_path: Path
) -> None:
    repository = generated(tmp_path / "repository", sources, "")
    hardware = '{ fileSystems."/" = { device = "/dev/mapper/root"; fsType = "btrfs"; }; }'
    write_files(repository, {"hosts/laptop/hardware-configuration.nix": hardware})
    lock_and_commit(nix, repository)
    root = nix.eval_installable(f'{git_url(repository)}#nixosConfigurations.laptop.config.fileSystems."/"')
    assert root == {"device": "/dev/mapper/root", "fsType": "btrfs"}


def test_relative_path_input_becomes_a_package(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    packages = '\n[packages.greeting]\nflake = "path:./pkgs/greeting"\n[packages.greeting.config]\nmessage = "hi"\n'
    repository = generated(tmp_path / "repository", sources, packages, inputs={"greeting": "path:./pkgs/greeting"})
    write_files(repository, {"pkgs/greeting/flake.nix": (EXAMPLES / "pkg-greeting/flake.nix").read_text()})
    commit_all(repository)
    nodes = lock_and_commit(nix, repository)
    host = summary(nix, repository)
    assert (host["system"], host["etc"]["greeting"]) == (["pkg-greeting"], "hi")
    assert nodes["greeting"]["inputs"]["nixpkgs"] == ["nixpkgs"]


def test_home_state_version_is_that_of_the_manifest(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    home = '\n[packages.hello]\nflake = "nixpkgs#hello"\nscope = "home"\n'
    repository = generated(tmp_path / "repository", sources, home)
    manifest = repository / "hosts/laptop/glix.toml"
    manifest.write_text(manifest.read_text().replace('state_version = "25.05"', 'state_version = "23.11"'))
    commit_all(repository)
    lock_and_commit(nix, repository)
    users = f"{git_url(repository)}#nixosConfigurations.laptop.config.home-manager.users"
    assert nix.eval_installable(users, apply="u: u.alice.home.stateVersion") == "23.11"
    generation = nix.build(f"{users}.alice.home.activationPackage")
    assert (generation / "home-path/bin/hello").exists()


def test_home_packages_without_home_manager_are_refused_with_the_remedy(
    nix: HermeticNix, sources: Sources, tmp_path: Path
) -> None:
    home = '\n[packages.hello]\nflake = "nixpkgs#hello"\nscope = "home"\n'
    repository = generated(tmp_path / "repository", sources, home, home_manager=False)
    lock_and_commit(nix, repository)
    toplevel = f"{git_url(repository)}#nixosConfigurations.laptop.config.system.build.toplevel.drvPath"
    refused = nix.nix("eval", toplevel)
    assert refused.returncode != 0
    assert (
        "glix: the manifest has packages for the homes of alice, and the flake has no input 'home-manager'"
        in refused.stderr
    )
    assert "home-manager.inputs.nixpkgs.follows" in refused.stderr


def test_user_who_is_not_declared_is_warned_of_and_named(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    home = '\n[packages.hello]\nflake = "nixpkgs#hello"\nscope = "home"\nuser = "bob"\n'
    repository = generated(tmp_path / "repository", sources, home)
    lock_and_commit(nix, repository)
    config = f"{git_url(repository)}#nixosConfigurations.laptop.config"
    (warning,) = nix.eval_installable(f"{config}.warnings")
    assert "the home of 'bob', who is not in users.users" in warning
    refused = nix.nix("eval", f"{config}.system.build.toplevel.drvPath")
    assert "the home of 'bob', who is not in users.users" in refused.stderr


@pytest.mark.parametrize("missing", ["glix.toml", "default.nix"])
def test_file_of_a_host_that_git_does_not_know_is_refused_with_the_remedy(
    nix: HermeticNix, sources: Sources, tmp_path: Path, missing: str
) -> None:
    repository = generated(tmp_path / "repository", sources, "")
    git(repository, "rm", "--cached", "--quiet", f"hosts/laptop/{missing}")
    nix.lock(repository)
    git(repository, "add", "flake.lock")
    packages = f"{repository}#nixosConfigurations.laptop.config.environment.systemPackages"
    refused = nix.nix("eval", "--json", packages)
    assert f"hosts/laptop/{missing}" in refused.stderr
    assert "git add" in refused.stderr


def test_same_name_with_different_urls_on_two_hosts(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    inputs = {"tool": sources.hello, "tool-0a1b2c3d": sources.greeting}
    flake = generated_flake(
        sources, inputs=inputs, hosts={"laptop": "x86_64-linux", "pi": "aarch64-linux"}, home_manager=False
    )
    laptop = '\n[packages.tool]\nflake = "github:a/tool"\n'
    pi = '\n[packages.tool]\nflake = "github:b/tool"\ninput = "tool-0a1b2c3d"\n'
    files = {
        "flake.nix": flake,
        **generated_host("laptop", "x86_64-linux", packages=laptop),
        **generated_host("pi", "aarch64-linux", packages=pi),
    }
    make_git_flake(tmp_path / "repository", files)
    lock_and_commit(nix, tmp_path / "repository")
    hosts = {host: summary(nix, tmp_path / "repository", host) for host in ("laptop", "pi")}
    assert {name: (host["platform"], host["system"]) for name, host in hosts.items()} == {
        "laptop": ("x86_64-linux", ["pkg-hello"]),
        "pi": ("aarch64-linux", ["pkg-greeting"]),
    }


def test_glix_style_repository_works_unchanged(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    localised_copy(GLIX_STYLE, repository, sources)
    commit_all(repository)
    lock_and_commit(nix, repository)
    host = summary(nix, repository)
    assert host["system"] == ["git", "glixd", "pkg-hello", "tmux"]  # the client comes with the module, as with glix
    assert host["homes"] == {"alice": ["pkg-greeting"]}
    assert host["files"] == {"alice": {".config/greeting": "Hello from glix"}}


def test_glix_style_repository_takes_short_names(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    localised_copy(GLIX_STYLE, repository, sources)
    with (repository / "hosts/laptop/glix.toml").open("a") as manifest:
        manifest.write(FIREFOX)
    commit_all(repository)
    lock_and_commit(nix, repository)
    assert "firefox" in summary(nix, repository)["system"]


def test_reference_deployment_evaluates_on_both_its_platforms(
    nix: HermeticNix, sources: Sources, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    localised_copy(EXAMPLES / "user-packages", repository, sources)
    commit_all(repository)
    lock_and_commit(nix, repository)
    laptop, pi = (summary(nix, repository, host) for host in ("laptop", "pi"))
    assert laptop["platform"] == "x86_64-linux"
    assert laptop["system"] == ["firefox", "git", "tmux"]
    assert laptop["homes"] == {"alice": ["pkg-greeting", "ripgrep"]}
    assert laptop["files"] == {"alice": {".config/greeting": "Good morning"}}
    assert pi["platform"] == "aarch64-linux"
    assert pi["system"] == ["git", "pkg-greeting", "pkg-hello", "tmux"]
    assert pi["etc"]["greeting"] == "Good evening"


@pytest.mark.parametrize(("example", "says"), [("hello", "Hello from a flake of its own."), ("greeting", "Hello")])
def test_example_package_runs_by_itself(
    nix: HermeticNix, sources: Sources, tmp_path: Path, example: str, says: str
) -> None:
    flake = f'{{ inputs.it = {{ url = "{getattr(sources, example)}"; inputs.nixpkgs.follows = "nixpkgs"; }};'
    flake += f' inputs.nixpkgs.url = "{sources.nixpkgs}"; outputs = {{ it, ... }}: {{ inherit (it) packages; }}; }}'
    make_git_flake(tmp_path / "wrapper", {"flake.nix": flake})
    lock_and_commit(nix, tmp_path / "wrapper")
    package = nix.build(f"{git_url(tmp_path / 'wrapper')}#packages.x86_64-linux.default")
    assert nix.run(str(package / "bin" / f"pkg-{example}")).stdout == f"{says}\n"
