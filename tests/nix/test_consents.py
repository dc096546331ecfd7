# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host consented to: packages that nixpkgs refuses, for those that are named and for nothing else."""

from __future__ import annotations

import pytest

from tests.nix.conftest import World

pytestmark = pytest.mark.nix

REFUSED = {"unfreepkg": "unfree", "insecurepkg": "insecure", "brokenpkg": "broken"}


def manifest(*packages: str, settings: str = "", fields: str = "") -> str:
    tables = "".join(f'[packages.{name}]\nflake = "nixpkgs#{name}"\n{fields}\n' for name in packages)
    return f"schema = 1\n[settings]\n{settings}\n{tables}"


def derivations(world: World, toml: str, arguments: str = "{ }", of: str = "c.environment.systemPackages") -> list[str]:
    """The names of the derivations that the packages of a host really are."""
    world.manifest(toml)
    expression = world.expression(arguments, "hostOf")
    paths = world.nix.eval_json(f"let c = ({expression}).config; in map (package: package.drvPath) ({of})")
    names = (path.rpartition("/")[2].partition("-")[2].removesuffix(".drv") for path in paths)
    return sorted(name.rpartition("-")[0] for name in names)


@pytest.mark.parametrize("name", REFUSED)
def test_what_nixpkgs_refuses_is_refused_without_consent(world: World, name: str) -> None:
    world.manifest(manifest(name))
    expression = f"map (p: p.drvPath) ({world.expression('{ }', 'hostOf')}).config.environment.systemPackages"
    assert "refusing to evaluate" in world.nix.eval_error(expression)


@pytest.mark.parametrize(("name", "kind"), REFUSED.items())
def test_a_consent_lets_the_named_package_be_so(world: World, name: str, kind: str) -> None:
    toml = manifest(name, "hello", settings=f'allow_{kind} = ["{name}"]')
    assert derivations(world, toml) == sorted([name, "hello"])


def test_a_consent_for_one_package_is_none_for_another(world: World) -> None:
    world.manifest(manifest("unfreepkg", "needsunfree", settings='allow_unfree = ["needsunfree"]'))
    expression = f"map (p: p.drvPath) ({world.expression('{ }', 'hostOf')}).config.environment.systemPackages"
    assert "unfreepkg-1.0" in world.nix.eval_error(expression)


def test_a_consent_covers_what_the_package_needs(world: World) -> None:
    toml = manifest("needsunfree", settings='allow_unfree = ["needsunfree"]')
    assert derivations(world, toml) == ["needsunfree"]


def test_a_consent_for_one_kind_is_none_for_another(world: World) -> None:
    world.manifest(manifest("unfreepkg", settings='allow_insecure = ["unfreepkg"]'))
    expression = f"map (p: p.drvPath) ({world.expression('{ }', 'hostOf')}).config.environment.systemPackages"
    assert "has an unfree license" in world.nix.eval_error(expression)


def test_packages_with_different_consents_stand_beside_each_other(world: World) -> None:
    settings = "\n".join(f'allow_{kind} = ["{name}"]' for name, kind in REFUSED.items())
    assert derivations(world, manifest(*REFUSED, settings=settings)) == sorted(REFUSED)


def test_a_consent_works_in_a_home(world: World) -> None:
    toml = manifest("unfreepkg", settings='allow_unfree = ["unfreepkg"]', fields='scope = "home"\nuser = "alice"')
    assert derivations(world, toml, of="c.system.homePackages.alice") == ["unfreepkg"]


def test_a_consent_works_for_another_nixpkgs(world: World) -> None:
    world.flake("unfreepkg", "nixpkgs")
    toml = manifest("unfreepkg", settings='allow_unfree = ["unfreepkg"]', fields='pin = "nixos-24.11"')
    assert derivations(world, toml) == ["unfreepkg"]


def test_overlays_and_configuration_of_the_host_stay(world: World) -> None:
    modules = """{ modules = [ {
        nixpkgs.overlays = [ (final: prev: { renamed = prev.unfreepkg; }) ];
        nixpkgs.config.permittedInsecurePackages = [ "insecurepkg-0.9" ];
    } ]; }"""
    toml = manifest("renamed", "insecurepkg", settings='allow_unfree = ["renamed"]')
    assert derivations(world, toml, modules) == ["insecurepkg", "unfreepkg"]


def test_a_consent_for_what_is_not_there_is_harmless(world: World) -> None:
    assert derivations(world, manifest("hello", settings='allow_unfree = ["gone"]')) == ["hello"]
