# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be done is refused with one sentence that names the package, the file and the remedy."""

from __future__ import annotations

import pytest

from tests.nix.conftest import World

pytestmark = pytest.mark.nix


def package(name: str, *fields: str) -> str:
    return "\n".join(["schema = 1", f"[packages.{name}]", *fields])


def test_attribute_that_the_hosts_nixpkgs_lacks(world: World) -> None:
    sentence = world.error(package("browser", 'flake = "nixpkgs#web.nosuch"'))
    assert sentence.startswith("package 'browser' in ")
    assert "hosts/laptop/glix.toml: the nixpkgs of this host has no attribute web.nosuch." in sentence
    assert "glixctl remove browser" in sentence


@pytest.mark.parametrize("attribute", ["lib", "python3Packages", "writeText"])
def test_attribute_that_is_no_package(world: World, attribute: str) -> None:
    sentence = world.error(package("x", f'flake = "nixpkgs#{attribute}"'))
    assert f"{attribute} of nixpkgs is not a package" in sentence
    assert "glixctl remove x" in sentence


def test_input_that_the_flake_lacks(world: World) -> None:
    sentence = world.error(package("tool", 'flake = "github:a/tool"'))
    assert "the flake has no input 'tool' for github:a/tool" in sentence
    assert "glixctl regen" in sentence


def test_input_that_the_flake_lacks_by_its_assigned_name(world: World) -> None:
    world.flake("tool", "{ }")
    sentence = world.error(package("tool", 'flake = "github:b/tool#cli"', 'input = "tool-0a1b2c3d"'))
    assert "no input 'tool-0a1b2c3d'" in sentence


def test_attribute_that_the_input_lacks(world: World) -> None:
    world.flake("tool", "{ packages.x86_64-linux = { }; }")
    sentence = world.error(package("tool", 'flake = "github:a/tool#cli"'))
    assert "packages.x86_64-linux.cli, legacyPackages.x86_64-linux.cli, cli" in sentence
    assert "glixctl remove tool" in sentence


def test_flake_without_anything_to_install(world: World) -> None:
    world.flake("tool", "{ }")
    sentence = world.error(package("tool", 'flake = "github:a/tool"'))
    assert "github:a/tool has none of nixosModules.default, packages.x86_64-linux.default" in sentence
    assert "github:a/tool#ATTRIBUTE" in sentence


def test_flake_without_a_package_for_the_platform(world: World) -> None:
    world.flake("tool", '{ packages.x86_64-linux.default = package "tool" "x86_64-linux"; }')
    sentence = world.error(package("tool", 'flake = "github:a/tool"'), '{ system = "aarch64-linux"; }')
    assert "packages.aarch64-linux.default" in sentence


@pytest.mark.parametrize(
    ("scope", "module", "other"), [("home", "nixosModules", "system"), ("system", "homeModules", "home")]
)
def test_flake_that_only_fits_the_other_scope(world: World, scope: str, module: str, other: str) -> None:
    world.flake("tool", f"{{ {module}.default = {{ }}; }}")
    sentence = world.error(package("tool", 'flake = "github:a/tool"', f'scope = "{scope}"', 'user = "alice"'))
    assert f"glixctl set tool scope={other}" in sentence


def test_named_module_for_the_other_scope(world: World) -> None:
    world.flake("tool", "{ nixosModules.x = { }; }")
    sentence = world.error(
        package("tool", 'flake = "github:a/tool#nixosModules.x"', 'scope = "home"', 'user = "alice"')
    )
    assert "glixctl set tool scope=system" in sentence


def test_named_module_that_the_input_lacks(world: World) -> None:
    world.flake("tool", "{ }")
    assert "has no attribute nixosModules.x" in world.error(package("tool", 'flake = "github:a/tool#nixosModules.x"'))


def test_home_package_without_a_user(world: World) -> None:
    sentence = world.error(package("hello", 'flake = "nixpkgs#hello"', 'scope = "home"'))
    assert "nothing says whose" in sentence
    assert "glixctl set hello user=NAME" in sentence
    assert "primary_user" in sentence


def test_scope_that_is_none(world: World) -> None:
    assert 'has the scope "house"' in world.error(package("hello", 'flake = "nixpkgs#hello"', 'scope = "house"'))


def test_package_without_a_flake(world: World) -> None:
    assert "package 'hello'" in world.error(package("hello", "enabled = true"))


@pytest.mark.parametrize("schema", ["2", '"1"', "0"])
def test_schema_other_than_one(world: World, schema: str) -> None:
    sentence = world.error(f"schema = {schema}")
    assert f"hosts/laptop/glix.toml has schema {schema}" in sentence
    assert "glixctl update glixos-core" in sentence


def test_manifest_without_a_schema(world: World) -> None:
    assert "has schema null" in world.error("[packages]")


def test_missing_manifest_is_never_an_empty_one(world: World) -> None:
    sentence = world.refusal(world.expression())
    assert "there is no manifest at" in sentence
    assert "git add" in sentence
    assert "glixctl init" in sentence


def test_manifest_that_is_no_toml_is_named_in_the_trace(world: World) -> None:
    world.manifest("schema = \n")
    result = world.nix.nix("eval", "--impure", "--show-trace", "--json", "--expr", world.expression())
    assert "while reading the manifest" in result.stderr
    assert "hosts/laptop/glix.toml" in result.stderr
