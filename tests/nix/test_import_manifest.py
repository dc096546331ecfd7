# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of each entry of a manifest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nix.conftest import World

pytestmark = pytest.mark.nix

GREETER = '{ packages = perSystem (system: { default = package "greeter-${system}" system; }); }'


def test_empty_manifest_gives_a_host_without_packages(world: World) -> None:
    assert world.host("schema = 1") == {"system": [], "homes": {}, "etc": {}, "files": {}, "warnings": []}


@pytest.mark.parametrize("flake", ["nixpkgs#firefox", "github:NixOS/nixpkgs#firefox", "GitHub:nixos/NIXPKGS#firefox"])
def test_short_name_is_an_attribute_of_the_hosts_own_nixpkgs(world: World, flake: str) -> None:
    assert world.host(f'schema = 1\n[packages.browser]\nflake = "{flake}"')["system"] == ["firefox"]


@pytest.mark.parametrize(
    ("attribute", "package"),
    [
        ("python3Packages.requests", "python3.13-requests"),
        ("_1password", "1password"),
        ("_7zz", "7zz"),
        ("7zip", "7zip"),
        (r"\"7zip\"", "7zip"),
        (r"python3Packages.\"dbus-next\"", "python3.13-dbus-next"),
    ],
)
def test_attribute_paths_are_read_as_nix_reads_them(world: World, attribute: str, package: str) -> None:
    assert world.host(f'schema = 1\n[packages.x]\nflake = "nixpkgs#{attribute}"')["system"] == [package]


def test_short_name_follows_the_overlays_of_the_host(world: World) -> None:
    overlay = "{ nixpkgs.overlays = [ (final: prev: { firefox = prev.hello; }) ]; }"
    toml = 'schema = 1\n[packages.firefox]\nflake = "nixpkgs#firefox"'
    assert world.host(toml, f"{{ modules = [ {overlay} ]; }}")["system"] == ["hello"]


def test_short_name_is_the_hosts_even_where_an_input_has_the_same_name(world: World) -> None:
    world.flake("hello", GREETER)
    assert world.host('schema = 1\n[packages.hello]\nflake = "nixpkgs#hello"')["system"] == ["hello"]


PINNED = '{ legacyPackages = perSystem (system: { firefox = package "own-firefox" system; }); }'


@pytest.mark.parametrize(
    "fields",
    [
        'flake = "nixpkgs#firefox"\npin = "nixos-24.11"',
        'flake = "github:NixOS/nixpkgs#firefox"\npin = "nixos-24.11"',
        'flake = "github:NixOS/nixpkgs/nixos-24.11#firefox"',
        'flake = "github:NixOS/nixpkgs#firefox"',
    ],
    ids=["pinned-short-name", "pinned-repository", "repository-with-a-branch", "repository-with-an-input"],
)
def test_nixpkgs_with_an_input_of_its_own_is_not_the_hosts(world: World, fields: str) -> None:
    world.flake("firefox", PINNED)
    assert world.host(f"schema = 1\n[packages.firefox]\n{fields}")["system"] == ["own-firefox"]


@pytest.mark.parametrize("flake", ["nixpkgs#hello", "github:NixOS/nixpkgs#hello"])
def test_input_field_without_such_an_input_keeps_a_short_name_the_hosts(world: World, flake: str) -> None:
    toml = f'schema = 1\n[packages.hello]\nflake = "{flake}"\ninput = "hello-0a1b2c3d"'
    assert world.host(toml)["system"] == ["hello"]


def test_repository_of_nixpkgs_is_the_hosts_where_only_a_static_input_has_the_name(world: World) -> None:
    world.flake("home-manager", GREETER)
    assert world.host('schema = 1\n[packages.home-manager]\nflake = "github:NixOS/nixpkgs#hello"')["system"] == [
        "hello"
    ]


@pytest.mark.parametrize(
    ("outputs", "fragment"),
    [
        ('{ packages = perSystem (s: { cli = package "cli" s; }); }', "cli"),
        ('{ legacyPackages = perSystem (s: { tools.cli = package "cli" s; }); }', "tools.cli"),
        ('{ tools.cli = package "cli" "x86_64-linux"; }', "tools.cli"),
        ('{ packages.x86_64-linux.cli = package "cli" "x86_64-linux"; }', "packages.x86_64-linux.cli"),
        (
            (
                '{ packages = perSystem (s: { cli = package "cli" s; });'
                ' legacyPackages = perSystem (s: { cli = package "legacy" s; }); cli = package "top" "x86_64-linux"; }'
            ),
            "cli",
        ),
    ],
    ids=["packages", "legacyPackages", "absolute", "absolute-with-system", "packages-first"],
)
def test_named_attribute_is_looked_up_in_packages_then_legacy_packages_then_at_the_top(
    world: World, outputs: str, fragment: str
) -> None:
    world.flake("tool", outputs)
    assert world.host(f'schema = 1\n[packages.tool]\nflake = "github:a/tool#{fragment}"')["system"] == ["cli"]


@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-linux"])
def test_package_is_that_of_the_hosts_platform(world: World, system: str) -> None:
    world.flake("greeter", GREETER)
    world.flake("tool", '{ legacyPackages = perSystem (s: { cli = package "cli-${s}" s; }); }')
    toml = (
        'schema = 1\n[packages.greeter]\nflake = "github:a/greeter"\n[packages.tool]\nflake = "github:a/tool#cli"\n'
        '[packages.zz]\nflake = "nixpkgs#hello"'
    )
    packages = world.host(toml, f'{{ system = "{system}"; }}')["system"]
    assert packages == [f"cli-{system}", f"greeter-{system}", "hello"]


def test_system_package_prefers_the_nixos_module_of_its_flake(world: World) -> None:
    world.flake("greeter", f'{GREETER} // {{ nixosModules.default = {{ environment.etc.greeted.text = "yes"; }}; }}')
    host = world.host('schema = 1\n[packages.greeter]\nflake = "github:a/greeter"')
    assert (host["system"], host["etc"]) == ([], {"greeted": "yes"})


@pytest.mark.parametrize("module_set", ["homeModules", "homeManagerModules"])
def test_home_package_prefers_the_home_module_of_its_flake(world: World, module_set: str) -> None:
    world.flake("greeter", f'{GREETER} // {{ {module_set}.default = {{ home.file.greeted.text = "yes"; }}; }}')
    host = world.host('schema = 1\n[packages.greeter]\nflake = "github:a/greeter"\nscope = "home"\nuser = "alice"')
    assert (host["homes"], host["files"]) == ({"alice": []}, {"alice": {"greeted": "yes"}})


def test_home_package_without_a_home_module_goes_to_the_packages_of_the_home(world: World) -> None:
    world.flake("greeter", f"{GREETER} // {{ nixosModules.default = {{ }}; }}")
    host = world.host('schema = 1\n[packages.greeter]\nflake = "github:a/greeter"\nscope = "home"\nuser = "alice"')
    assert (host["system"], host["homes"]) == ([], {"alice": ["greeter-x86_64-linux"]})


@pytest.mark.parametrize(
    ("scope", "attribute", "expected"),
    [
        ("system", "nixosModules.extra", {"etc": {"extra": "system"}, "files": {}}),
        ("home", "homeModules.extra", {"etc": {}, "files": {"alice": {"extra": "home"}}}),
    ],
)
def test_module_can_be_named_as_an_attribute(
    world: World, scope: str, attribute: str, expected: dict[str, Any]
) -> None:
    world.flake(
        "tool",
        "{ nixosModules.extra = { glixConfig, ... }: { environment.etc.extra.text = glixConfig.text; };"
        " homeModules.extra = { glixConfig, ... }: { home.file.extra.text = glixConfig.text; }; }",
    )
    toml = (
        f'schema = 1\n[packages.tool]\nflake = "github:a/tool#{attribute}"\nscope = "{scope}"\nuser = "alice"\n'
        f'[packages.tool.config]\ntext = "{scope}"'
    )
    host = world.host(toml)
    assert {name: host[name] for name in ("etc", "files")} == expected


def test_input_field_names_the_input_of_a_package(world: World) -> None:
    world.flake("greeter", '{ packages = perSystem (s: { default = package "first" s; }); }')
    world.flake("greeter-0a1b2c3d", '{ packages = perSystem (s: { default = package "second" s; }); }')
    toml = 'schema = 1\n[packages.greeter]\nflake = "github:other/greeter"\ninput = "greeter-0a1b2c3d"'
    assert world.host(toml)["system"] == ["second"]


def test_disabled_package_is_left_out_and_needs_no_input(world: World) -> None:
    toml = (
        'schema = 1\n[packages.off]\nflake = "github:a/off"\nenabled = false\n'
        '[packages.on]\nflake = "nixpkgs#hello"\nenabled = true\n[packages.unsaid]\nflake = "nixpkgs#cowsay"'
    )
    assert world.host(toml)["system"] == ["cowsay", "hello"]


def test_missing_scope_is_the_default_scope_of_the_settings(world: World) -> None:
    toml = (
        'schema = 1\n[settings]\ndefault_scope = "home"\nprimary_user = "alice"\n'
        '[packages.hello]\nflake = "nixpkgs#hello"\n[packages.cowsay]\nflake = "nixpkgs#cowsay"\nscope = "system"'
    )
    host = world.host(toml)
    assert (host["system"], host["homes"]) == (["cowsay"], {"alice": ["hello"]})


@pytest.mark.parametrize(
    ("package_user", "primary_user", "default_user", "expected"),
    [
        ("carol", "bob", "alice", "carol"),
        ("", "bob", "alice", "bob"),
        ("", "", "alice", "alice"),
    ],
)
def test_home_package_goes_to_its_user_else_the_primary_user_else_the_default_user(
    world: World, package_user: str, primary_user: str, default_user: str, expected: str
) -> None:
    toml = (
        f'schema = 1\n[settings]\nprimary_user = "{primary_user}"\n'
        f'[packages.hello]\nflake = "nixpkgs#hello"\nscope = "home"\nuser = "{package_user}"'
    )
    arguments = f'{{ defaultUser = "{default_user}"; users = {{ alice = {{ }}; bob = {{ }}; carol = {{ }}; }}; }}'
    assert world.host(toml, arguments)["homes"] == {expected: ["hello"]}


def test_packages_of_several_users_are_kept_apart(world: World) -> None:
    toml = "schema = 1\n" + "".join(
        f'[packages.{name}]\nflake = "nixpkgs#{name}"\nscope = "home"\nuser = "{user}"\n'
        for name, user in [("hello", "alice"), ("cowsay", "bob"), ("perl", "alice")]
    )
    host = world.host(toml, "{ users = { alice = { }; bob = { }; }; }")
    assert host["homes"] == {"alice": ["hello", "perl"], "bob": ["cowsay"]}


def test_unknown_keys_are_no_obstacle_and_stay_in_the_manifest(world: World) -> None:
    world.manifest(
        'schema = 1\nmood = "good"\n[settings]\ncolour = "blue"\n'
        '[packages.hello]\nflake = "nixpkgs#hello"\nfollows = false\nnote = "mine"'
    )
    expression = world.expression(function="(arguments: (manifestOf arguments).manifest)")
    manifest = world.nix.eval_json(expression)
    assert manifest["mood"] == "good"
    assert manifest["packages"]["hello"]["note"] == "mine"


def test_flat_list_of_home_modules_has_those_of_every_user(world: World) -> None:
    world.manifest(
        'schema = 1\n[packages.a]\nflake = "nixpkgs#hello"\nscope = "home"\nuser = "alice"\n'
        '[packages.b]\nflake = "nixpkgs#perl"\nscope = "home"\nuser = "bob"'
    )
    expression = world.expression(function="(a: builtins.length (manifestOf a).homeModules)")
    assert world.nix.eval_json(expression) == 2


def test_values_without_effect_are_warned_of(world: World) -> None:
    toml = (
        'schema = 1\n[packages.hello]\nflake = "nixpkgs#hello"\nuser = "alice"\n'
        '[packages.hello.config]\nmessage = "unheard"'
    )
    warnings = world.host(toml)["warnings"]
    assert [warning.rpartition(": ")[2].split(",")[0] for warning in warnings] == [
        "its config has no effect",
        "its user has no effect",
    ]


def test_manifest_features_name_what_a_change_may_need(world: World) -> None:
    features = world.nix.eval_json(world.expression(function="(_: core.manifestFeatures)"))
    assert {"host-attributes", "attribute-paths", "module-config", "input-names", "follows"} <= set(features)
