# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a machine over: a folder such as /etc/nixos becomes a host that is the very system which the folder describes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import HOST, SYSTEM, RpcError, RunningDaemon, Site
from tests.support.hermetic import quoted, write_files
from tests.support.repositories import Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HARDWARE = '{ lib, ... }: { nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux"; boot.kernelVersion = "6.12"; }\n'
CONFIGURATION = """# The machine of alice.
{ config, lib, pkgs, ... }:
{
  imports = [ ./hardware-configuration.nix ./parts/desk.nix ];
  networking.hostName = "nixos";
  users.users.alice.isNormalUser = true;
  environment.systemPackages = with pkgs; [ firefox (writeShellScriptBin "mine" "echo mine") ];
  environment.etc.motd.text = builtins.readFile ./parts/motd;
  system.stateVersion = "24.05";
}
"""
DESK = "{ lib, pkgs, ... }: { environment.systemPackages = lib.mkIf true [ pkgs.git pkgs.firefox ]; }\n"
FOLDER = {
    "configuration.nix": CONFIGURATION,
    "hardware-configuration.nix": HARDWARE,
    "parts/desk.nix": DESK,
    "parts/motd": "Welcome,\n\n\talice\n",
}
FLAKE = """{
  inputs.nixpkgs.url = "@NIXPKGS@";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.nixos = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./configuration.nix ({ pkgs, ... }: { environment.systemPackages = [ pkgs.ripgrep ]; }) ];
    };
  };
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like the one that nixos-generate-config writes, with two parts of a person."""
    write_files(tmp_path / "etc-nixos", FOLDER)
    return tmp_path / "etc-nixos"


def described(site: Site, nixpkgs: str, folder: Path) -> str:
    """The system that a folder describes, evaluated alone and by nix itself."""
    expression = (
        f'((builtins.getFlake "{nixpkgs}").lib.nixosSystem {{ system = "{SYSTEM}"; '
        f"modules = [ {folder}/configuration.nix ]; }}).config.system.build.toplevel.drvPath"
    )
    return _evaluated(site, "--impure", "--expr", expression)


def taken_over(site: Site, host: str) -> str:
    """The system of a host without the mark of the commit that every host of a repository has."""
    unmarked = (
        "{ lib, ... }: { system.configurationRevision = lib.mkForce null; "
        'environment.etc = lib.genAttrs [ "glixos-revision" "glixos-release" ] (_: { enable = lib.mkForce false; }); }'
    )
    url = f"git+file://{quoted(site.repository)}?rev={site.git('rev-parse', 'HEAD')}"
    apply = f"host: (host.extendModules {{ modules = [ ({unmarked}) ]; }}).config.system.build.toplevel.drvPath"
    return _evaluated(site, f"{url}#nixosConfigurations.{host}", "--apply", apply)


def _evaluated(site: Site, *words: str) -> str:
    done = subprocess.run(
        ["nix", "eval", "--raw", *words],
        env=site.nix.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(site: Site, host: str) -> dict[str, str]:
    listed = site.git("ls-tree", "-r", "--name-only", "HEAD", f"hosts/{host}/").splitlines()
    return {path.removeprefix(f"hosts/{host}/"): site.committed(path) for path in listed}


def test_folder_becomes_the_first_host_of_a_new_repository_and_the_same_system(
    bare_site: Site, sources: Sources, folder: Path
) -> None:
    words = ("init", "--import", str(folder), "--user", "alice", "--nixpkgs", sources.nixpkgs, "--core", sources.core)
    before = sorted(bare_site.home.rglob("glixos*"))
    dry = bare_site.glixctl(*words, "--home-manager", sources.home_manager, "--dry-run")
    assert dry.returncode == Exit.DONE, dry.stderr
    assert dry.stdout.endswith("the very system that the folder describes; nothing was changed\n")
    assert sorted(bare_site.home.rglob("glixos*")) == before
    done = bare_site.glixctl(*words, "--home-manager", sources.home_manager)
    assert done.returncode == Exit.DONE, done.stderr
    assert "the very system that the folder describes — commit " in done.stdout
    files = files_of(bare_site, HOST)
    assert {name: files[name] for name in FOLDER} == FOLDER
    assert files.keys() - FOLDER.keys() == {"default.nix", "glix.toml"}
    assert taken_over(bare_site, HOST) == described(bare_site, sources.nixpkgs, folder)
    assert "glixctl add firefox git" in done.stdout.splitlines()[-1]
    added = bare_site.glixctl("add", "ripgrep")
    assert added.returncode == Exit.DONE, added.stderr
    assert "ripgrep" in bare_site.evaluated()["system"]


def test_folder_becomes_another_host_beside_those_that_are_there(site: Site, sources: Sources, folder: Path) -> None:
    with RunningDaemon(site) as daemon:
        dry = daemon.done("Init", host="nixos", user="alice", system=SYSTEM, files=FOLDER, dry_run=True)
        taken = daemon.done("Init", host="nixos", user="alice", system=SYSTEM, files=FOLDER)
        assert {**taken["outcome"], "diff": None} == {**dry["outcome"], "diff": None}
        assert taken["outcome"]["offers"] == ["firefox", "git"]
        assert taken_over(site, "nixos") == described(site, sources.nixpkgs, folder)
        assert daemon.health("nixos") == {"state": "ok", "commit": taken["commit"]}
        again = daemon.failed("Init", host="nixos", user="alice", files=FOLDER)
        assert again["name"] == "Conflict"
        daemon.done("Rollback")
    assert not (site.repository / "hosts" / "nixos").exists()


def test_flake_becomes_a_host_with_the_modules_that_it_gives_to_its_machine(
    site: Site, sources: Sources, daemon: RunningDaemon
) -> None:
    files = {**FOLDER, "flake.nix": FLAKE.replace("@NIXPKGS@", sources.nixpkgs)}
    taken = daemon.done("Init", host="box", user="alice", system=SYSTEM, files=files)
    assert taken["outcome"]["offers"] == ["firefox", "git"]
    assert site.evaluated("box")["system"] == ["firefox", "firefox", "git", "mine", "ripgrep"]
    assert daemon.failed(
        "Init", host="x", user="alice", files={**files, "flake.nix": "{ outputs = { nothing }: { }; }\n"}
    )["name"] == ("EvaluationFailed")


def test_new_repository_takes_nixpkgs_from_where_the_flake_of_the_folder_has_it(
    bare_site: Site, sources: Sources, folder: Path
) -> None:
    write_files(folder, {"flake.nix": FLAKE.replace("@NIXPKGS@", sources.nixpkgs)})
    subprocess.run(["nix", "flake", "lock", f"path:{folder}"], env=bare_site.nix.environment(), check=True)
    done = bare_site.glixctl(
        *("init", "--import", str(folder), "--user", "alice", "--core", sources.core, "--home-manager", "none")
    )
    assert done.returncode == Exit.DONE, done.stderr
    assert f'nixpkgs.url = "{sources.nixpkgs}"' in bare_site.read("flake.nix")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"parts/desk.nix": "{ environment.etc.here.text = toString ./.; }\n"}, "Conflict"),
        ({"parts/desk.nix": '{ imports = [ "${<nixpkgs>}/x.nix" ]; }\n'}, "EvaluationFailed"),
        ({"parts/desk.nix": "{ imports = [ /etc/nixos/x.nix ]; }\n"}, "EvaluationFailed"),
        ({"parts/desk.nix": "{ hostName, ... }: { environment.etc.x.text = hostName; }\n"}, "EvaluationFailed"),
        ({"default.nix": "{ }\n"}, "Conflict"),
        ({"glix.toml": "schema = 1\n"}, "Conflict"),
    ],
)
def test_machine_that_would_be_another_one_is_refused_and_leaves_no_trace(
    site: Site, daemon: RunningDaemon, changes: dict[str, str], name: str
) -> None:
    head, edits = site.git("rev-parse", "HEAD"), site.git("status", "--porcelain")
    for dry_run in (True, False):
        parameters = {"host": "box", "user": "alice", "system": SYSTEM, "dry_run": dry_run}
        error = daemon.failed("Init", **parameters, files={**FOLDER, **changes})
        assert error["name"] == name
        assert error["message"]
    assert (site.git("rev-parse", "HEAD"), site.git("status", "--porcelain")) == (head, edits)


def test_refused_machine_leaves_no_new_repository(bare_site: Site, sources: Sources) -> None:
    files = {**FOLDER, "parts/desk.nix": "{ environment.etc.here.text = toString ./.; }\n"}
    with RunningDaemon(bare_site) as daemon:
        for dry_run in (True, False):
            error = daemon.failed("Init", **bare_site.init_parameters(sources), files=files, dry_run=dry_run)
            assert error["name"] == "Conflict"
    assert not bare_site.repository.exists()
    assert not list(bare_site.repository.parent.glob(".*glixd-*"))


@pytest.mark.parametrize(
    "files",
    [
        {"other.nix": "{ }"},
        {"../configuration.nix": "{ }"},
        {"/etc/configuration.nix": "{ }"},
        {"configuration.nix": "{ }", ".git/config": "x"},
        {"configuration.nix": "{ }", "-x": "x"},
        {"configuration.nix": "{ }", "a\nb": "x"},
        {"configuration.nix": "\x1b[31m"},
        {"configuration.nix": "{ }", "a": "x", "a/b": "x"},
        {"configuration.nix": "x" * 200_000},
        {"configuration.nix": "{ }", **{f"f{number}": "x" for number in range(256)}},
    ],
)
def test_files_that_can_be_no_folder_are_refused(daemon: RunningDaemon, files: dict[str, str]) -> None:
    try:
        error: Any = daemon.failed("Init", host="box", user="alice", files=files)
        assert list(files) == ["other.nix"], "only what is in the files is looked at later"
    except RpcError as refused:
        error = {"name": refused.name, "details": refused.details}
    assert error["name"] == "InvalidArgument"
    assert str(error["details"]["argument"]).startswith("files")


def test_client_reads_a_folder_within_limits_and_follows_no_link_out_of_it(site: Site, folder: Path) -> None:
    (folder / ".git").mkdir()
    write_files(folder, {".git/config": "x", "configuration.nix~": "old"})
    (folder / "inside.nix").symlink_to("parts/desk.nix")
    dry = site.glixctl("init", "--host", "box", "--user", "alice", "--import", str(folder), "--dry-run", "--json")
    diff = json.loads(dry.stdout)["outcome"]["diff"]
    assert "+++ b/hosts/box/inside.nix" in diff
    assert ".git/config" not in diff
    assert "configuration.nix~" not in diff
    (folder / "outside.nix").symlink_to(site.home)
    refused = site.glixctl("init", "--host", "box", "--import", str(folder))
    assert (refused.returncode, "outside.nix" in refused.stderr) == (Exit.USAGE, True)
    (folder / "outside.nix").unlink()
    (folder / "wallpaper.png").write_bytes(b"\x89PNG\xff")
    refused = site.glixctl("init", "--host", "box", "--import", str(folder))
    assert "--exclude wallpaper.png" in refused.stderr
    words = ("init", "--host", "box", "--user", "alice", "--import", str(folder), "--exclude", "*.png")
    done = site.glixctl(*words)
    assert done.returncode == Exit.DONE, done.stderr
    assert "configuration.nix~" in done.stderr
