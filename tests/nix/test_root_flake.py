# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's own flake, with the package set fixture in the place of nixpkgs, and the modules it exports."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import VERSION
from tests.nix.conftest import nix_path
from tests.support.hermetic import MINI_NIXPKGS, PROJECT, HermeticNix, copy_git_flake, quoted

pytestmark = pytest.mark.nix

OVERRIDE = ("--override-input", "nixpkgs", f"path:{quoted(MINI_NIXPKGS)}", "--no-write-lock-file")
SYSTEMS = {"x86_64-linux", "aarch64-linux"}
MODULES = sorted(path.parent.name for path in PROJECT.glob("core/modules/*/default.nix"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The flake of the project, as a committed repository without caches and environments."""
    folder = tmp_path_factory.mktemp("project") / "repository"
    return copy_git_flake(PROJECT, folder, ("flake.nix", "core", "examples", "glixd", "nixos-module", "polkit"))


@pytest.fixture(scope="module")
def shown(nix: HermeticNix, project: str) -> Any:
    """What `nix flake show` says of it."""
    result = nix.nix("flake", "show", "--json", *OVERRIDE, project)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_flake_exports_the_library_modules_package_overlay_and_demonstration(shown: Any) -> None:
    assert {"lib", "overlays", "templates"} <= set(shown)
    assert set(shown["nixosModules"]) == {"default", "glixd", "glixos", *MODULES}
    assert {name: set(shown[name]) for name in ("apps", "checks", "packages")} == dict.fromkeys(
        ("apps", "checks", "packages"), SYSTEMS
    )
    assert set(shown["packages"]["x86_64-linux"]) == {"default", "glixd"}
    assert shown["apps"]["aarch64-linux"]["up"] == {"type": "app"}


def test_package_has_the_version_of_the_protocol(shown: Any) -> None:
    assert shown["packages"]["x86_64-linux"]["default"]["name"] == f"glixd-{VERSION}"


def test_flake_check_passes(nix: HermeticNix, project: str) -> None:
    checked = nix.nix("flake", "check", *OVERRIDE, project)
    assert checked.returncode == 0, checked.stderr


def test_demonstration_is_a_program(nix: HermeticNix, project: str) -> None:
    program = nix.nix("eval", "--raw", *OVERRIDE, f"{project}#apps.x86_64-linux.up.program")
    assert Path(program.stdout).name.endswith("-glix-up")


def test_package_depends_on_what_the_project_file_asks_for() -> None:
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    packaged = (PROJECT / "nixos-module" / "package.nix").read_text()
    for requirement in asked:
        name = re.split(r"[^A-Za-z0-9-]", requirement)[0]
        assert name in packaged, f"{name} is not among the dependencies in package.nix"


def test_core_is_no_flake_of_its_own() -> None:
    assert not list((PROJECT / "core").rglob("flake.nix"))


def test_core_reads_nothing_outside_itself() -> None:
    for path in (PROJECT / "core").rglob("*.nix"):
        assert "<nixpkgs>" not in path.read_text()


EVALUATE = """
let
  lib = import (MINI + "/lib.nix");
  defined = module: removeAttrs (lib.evalModules { modules = [ module ]; }).config [ "_module" ];
  isLeaf = value: !builtins.isAttrs value;
  overridden = builtins.mapAttrs (_: value: if isLeaf value then "mine" else overridden value);
  leaves = value: if isLeaf value then [ value ] else builtins.concatMap leaves (builtins.attrValues value);
in module: rec {
  values = leaves (defined module);
  replaced = leaves (defined { imports = [ module (overridden (defined module)) ]; });
}
"""


@pytest.mark.parametrize("name", MODULES)
def test_every_value_of_a_module_is_a_default_that_a_plain_definition_replaces(nix: HermeticNix, name: str) -> None:
    expression = EVALUATE.replace("MINI", nix_path(MINI_NIXPKGS))
    leaves = nix.eval_json(f"({expression}) {nix_path(PROJECT / 'core/modules' / name)}")
    assert len(leaves["values"]) >= 5
    assert leaves["replaced"] == ["mine"] * len(leaves["values"])


def test_module_that_takes_config_evaluates_on_a_host_without_a_manifest(nix: HermeticNix) -> None:
    module = '({ glixConfig, ... }: { said = glixConfig.message or "none"; })'
    expression = f"""
      let lib = import {nix_path(MINI_NIXPKGS / "lib.nix")};
      in (lib.evalModules {{ modules = [ {nix_path(PROJECT / "core/modules")} {module} ]; }}).config.said
    """
    assert nix.eval_json(expression) == "none"
