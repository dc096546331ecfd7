# SPDX-License-Identifier: GPL-3.0-or-later
"""The outputs that engines for fleets take: the same hosts as nixos-rebuild builds, for colmena and for deploy-rs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.hermetic import HermeticNix, commit_all, git_url, make_git_flake
from tests.support.repositories import Sources, generated_flake, generated_host

pytestmark = pytest.mark.nix

HELLO = '\n[packages.hello]\nflake = "nixpkgs#hello"\n'
HOSTS = {"laptop": "x86_64-linux", "pi": "aarch64-linux"}

# As colmena does: each node is evaluated with the options of colmena, what `meta` says of it, and its own module.
NODES = """
flake: let
  hive = flake.colmena;
  options = { lib, ... }: { options.deployment.targetHost = lib.mkOption { type = lib.types.str; }; };
  node = name: (flake.inputs.nixpkgs.lib.nixosSystem {
    specialArgs = hive.meta.nodeSpecialArgs.${name};
    modules = [ options hive.${name} ];
  }).config;
  told = config: {
    target = config.deployment.targetHost;
    name = config.networking.hostName;
    platform = config.nixpkgs.hostPlatform;
    packages = map (p: p.pname) config.environment.systemPackages;
  };
in builtins.listToAttrs (map (name: { inherit name; value = told (node name); })
  (builtins.filter (name: name != "meta") (builtins.attrNames hive)))
"""


def repository(nix: HermeticNix, folder: Path, sources: Sources, inputs: dict[str, str]) -> Path:
    """A repository with two hosts of different platforms."""
    files = {"flake.nix": generated_flake(sources, inputs=inputs, hosts=HOSTS)}
    for host, system in HOSTS.items():
        files |= generated_host(host, system, packages=HELLO)
    make_git_flake(folder, files)
    nix.lock(folder)
    commit_all(folder, "Lock")
    return folder


def evaluated(nix: HermeticNix, folder: Path, function: str) -> Any:
    return nix.eval_json(f'({function}) (builtins.getFlake "{git_url(folder)}")')


def test_colmena_gets_every_host_as_nixos_rebuild_builds_it(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    folder = repository(nix, tmp_path / "machines", sources, {})
    assert evaluated(nix, folder, NODES) == {
        host: {"target": host, "name": host, "platform": system, "packages": ["hello"]}
        for host, system in HOSTS.items()
    }
    systems = evaluated(
        nix, folder, "flake: builtins.mapAttrs (_: p: p.stdenv.hostPlatform.system) flake.colmena.meta.nodeNixpkgs"
    )
    assert systems == HOSTS
    assert evaluated(nix, folder, "flake: flake ? deploy") is False


def test_a_host_says_itself_how_colmena_reaches_it(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    folder = repository(nix, tmp_path / "machines", sources, {})
    default = folder / "hosts" / "pi" / "default.nix"
    default.write_text('{ deployment.targetHost = "pi.lan"; }\n')
    commit_all(folder)
    assert evaluated(nix, folder, NODES)["pi"]["target"] == "pi.lan"
    plain = evaluated(nix, folder, "flake: flake.nixosConfigurations.pi.config.networking.hostName")
    assert plain == "pi", "nixos-rebuild has no such option, and needs none"


def test_deploy_rs_gets_a_node_for_every_host(nix: HermeticNix, sources: Sources, tmp_path: Path) -> None:
    stand_in = """{ outputs = _: { lib = builtins.listToAttrs (map (name: {
      inherit name; value.activate.nixos = host: "activate ${host.config.networking.hostName}";
    }) [ "x86_64-linux" "aarch64-linux" ]); }; }"""
    url = make_git_flake(tmp_path / "deploy-rs", {"flake.nix": stand_in})
    folder = repository(nix, tmp_path / "machines", sources, {"deploy-rs": url})
    nodes = evaluated(nix, folder, "flake: flake.deploy.nodes")
    assert nodes == {
        host: {"hostname": host, "profiles": {"system": {"user": "root", "path": f"activate {host}"}}} for host in HOSTS
    }
    assert json.dumps(nodes)
