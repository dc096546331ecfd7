# SPDX-License-Identifier: GPL-3.0-or-later
"""The config table of a package reaches its module, whatever shape the module has."""

from __future__ import annotations

import pytest

from tests.nix.conftest import World

pytestmark = pytest.mark.nix

TAKES_CONFIG = "{ lib, glixConfig, ... }: { environment.etc.said.text = glixConfig.message; }"
TOML = 'schema = 1\n[packages.tool]\nflake = "github:a/tool"\n[packages.tool.config]\nmessage = "hi"'

INLINE_SHAPES = {
    "function": f"({TAKES_CONFIG})",
    "function-of-a-set": "(args: { environment.etc.said.text = args.glixConfig.message; })",
    "function-with-a-default": "({ glixConfig ? { }, ... }: { environment.etc.said.text = glixConfig.message; })",
    "imports": f"{{ imports = [ ({TAKES_CONFIG}) ]; }}",
    "nested-imports": f"{{ imports = [ {{ imports = [ ({TAKES_CONFIG}) ]; }} ]; }}",
    "imports-beside-config": f'{{ imports = [ ({TAKES_CONFIG}) ]; config.environment.etc.other.text = "x"; }}',
    "function-returning-imports": f"({{ ... }}: {{ imports = [ ({TAKES_CONFIG}) ]; }})",
    "functor": f"{{ __functor = self: {TAKES_CONFIG}; }}",
    "functor-with-arguments": (
        "{ __functor = self: args: { environment.etc.said.text = args.glixConfig.message; };"
        " __functionArgs = { lib = false; glixConfig = false; }; }"
    ),
    "conditional-config": (
        "({ lib, glixConfig, ... }: lib.mkIf (glixConfig ? message) { environment.etc.said.text = glixConfig.message; })"
    ),
}


@pytest.mark.parametrize("shape", INLINE_SHAPES)
def test_config_reaches_a_module_of_any_shape(world: World, shape: str) -> None:
    world.flake("tool", f"{{ nixosModules.default = {INLINE_SHAPES[shape]}; }}")
    assert world.host(TOML)["etc"]["said"] == "hi"


FILES = {
    "takes.nix": TAKES_CONFIG,
    "imports.nix": "{ imports = [ ./takes.nix ]; }",
    "nested.nix": "{ ... }: { imports = [ ./imports.nix ]; }",
    "folder/default.nix": "{ imports = [ ../takes.nix ]; }",
}


@pytest.mark.parametrize(
    "expression",
    [
        "{folder}/takes.nix",
        "{folder}/imports.nix",
        "{folder}/nested.nix",
        "{folder}/folder",
        "{{ imports = [ {folder}/nested.nix ]; }}",
        "({{ ... }}: {{ imports = [ {folder}/takes.nix ]; }})",
        '"{folder}/nested.nix"',
    ],
    ids=["path", "path-with-imports", "nested-paths", "folder", "imports-of-paths", "function-of-paths", "string"],
)
def test_config_reaches_modules_in_files(world: World, expression: str) -> None:
    for name, text in FILES.items():
        world.module(name, text)
    world.flake("tool", f"{{ nixosModules.default = {expression.format(folder=world.folder)}; }}")
    assert world.host(TOML)["etc"]["said"] == "hi"


def test_config_reaches_home_modules(world: World) -> None:
    world.flake("tool", "{ homeModules.default = { glixConfig, ... }: { home.file.said.text = glixConfig.message; }; }")
    home = TOML.replace('"github:a/tool"', '"github:a/tool"\nscope = "home"')
    assert world.host(home, '{ defaultUser = "alice"; }')["files"] == {"alice": {"said": "hi"}}


def test_module_gets_the_other_arguments_of_the_module_system_too(world: World) -> None:
    world.flake(
        "tool",
        "{ nixosModules.default = { config, lib, pkgs, options, colour, glixConfig, ... }: {"
        ' environment.etc.said.text = "${glixConfig.message} ${colour} ${pkgs.hello.pname} ${config.networking.hostName}";'
        " }; }",
    )
    colour = '{ modules = [ { _module.args.colour = "blue"; } ]; }'
    assert world.host(TOML, colour)["etc"]["said"] == "hi blue hello nixos"


def test_each_of_two_packages_gets_its_own_config(world: World) -> None:
    for name in ("one", "two"):
        module = f"{{ glixConfig, ... }}: {{ environment.etc.{name}.text = glixConfig.message; }}"
        world.flake(name, f"{{ nixosModules.default = {module}; }}")
    toml = "schema = 1\n" + "".join(
        f'[packages.{name}]\nflake = "github:a/{name}"\n[packages.{name}.config]\nmessage = "I am {name}"\n'
        for name in ("one", "two")
    )
    assert world.host(toml)["etc"] == {"one": "I am one", "two": "I am two"}


def test_one_file_serves_two_packages_with_a_config_each(world: World) -> None:
    file = world.module(
        "shared.nix", "{ glixConfig, ... }: { environment.etc.${glixConfig.name}.text = glixConfig.message; }"
    )
    for name in ("one", "two"):
        world.flake(name, f"{{ nixosModules.default = {file}; }}")
    toml = "schema = 1\n" + "".join(
        f'[packages.{name}]\nflake = "github:a/{name}"\n[packages.{name}.config]\nname = "{name}"\nmessage = "{name}!"\n'
        for name in ("one", "two")
    )
    assert world.host(toml)["etc"] == {"one": "one!", "two": "two!"}


def test_file_that_two_packages_import_and_that_takes_no_config_is_imported_once(world: World) -> None:
    file = world.module("common.nix", '{ environment.systemPackages = [ "/common" ]; }')
    for name in ("one", "two"):
        world.flake(name, f"{{ nixosModules.default.imports = [ {file} ]; }}")
    toml = "schema = 1\n" + "".join(
        f'[packages.{name}]\nflake = "github:a/{name}"\n[packages.{name}.config]\nname = "{name}"\n'
        for name in ("one", "two")
    )
    world.manifest(toml)
    expression = world.expression(function="(a: (hostOf a).config.environment.systemPackages)")
    assert world.nix.eval_json(expression) == ["/common"]


def test_module_without_config_gets_an_empty_table(world: World) -> None:
    world.flake(
        "tool",
        '{ nixosModules.default = { glixConfig, ... }: { environment.etc.said.text = glixConfig.message or "none"; }; }',
    )
    assert world.host('schema = 1\n[packages.tool]\nflake = "github:a/tool"')["etc"]["said"] == "none"


def test_module_that_knows_nothing_of_the_config_behaves_as_ever(world: World) -> None:
    file = world.module(
        "plain.nix",
        '{ config, lib, ... }: { options.plain.on = lib.mkEnableOption "it";'
        ' config = lib.mkIf config.plain.on { environment.etc.plain.text = "on"; }; }',
    )
    world.flake("tool", f"{{ nixosModules.default = {file}; }}")
    assert world.host(TOML)["etc"] == {}
    assert world.host(TOML, "{ modules = [ { plain.on = true; } ]; }")["etc"] == {"plain": "on"}


def test_error_in_a_module_file_names_the_file(world: World) -> None:
    file = world.module("faulty.nix", "{ glixConfig, ... }: { environment.etc.x.text = glixConfig.nosuch; }")
    world.flake("tool", f"{{ nixosModules.default = {file}; }}")
    world.manifest(TOML)
    assert "faulty.nix" in world.nix.eval_error(world.expression())
