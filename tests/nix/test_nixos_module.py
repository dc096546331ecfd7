# SPDX-License-Identifier: GPL-3.0-or-later
"""The NixOS module with each of its options, on stand-ins for the options of NixOS that it sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.nix.conftest import nix_path
from tests.support.hermetic import PROJECT, HermeticNix

pytestmark = pytest.mark.nix

MODULE = PROJECT / "nixos-module"
HOST = """
let
  nixpkgs = let flake = (import (PROJECT + "/tests/fixtures/mini-nixpkgs/flake.nix")).outputs { self = flake; }; in flake;
  inherit (nixpkgs.lib.nixosSystem {
    modules = [
      (PROJECT + "/nixos-module")
      ({ pkgs, ... }: {
        nixpkgs.hostPlatform = "x86_64-linux";
        networking.hostName = "laptop";
        services.glixd.package = pkgs.callPackage (PROJECT + "/nixos-module/package.nix") { src = ./.; };
      })
      MORE
    ];
  }) config;
  names = map (package: package.pname or package.name);
in
{
  failed = map (found: found.message) (builtins.filter (found: !found.assertion) config.assertions);
  packages = names config.environment.systemPackages;
  units = names config.systemd.packages;
  folders = names config.systemd.tmpfiles.packages;
  bus = names config.services.dbus.packages;
  polkit = config.security.polkit.enable;
  inherit (config.systemd) services sockets timers;
  userSockets = config.systemd.user.sockets;
  rules = config.systemd.tmpfiles.rules;
  users = builtins.mapAttrs (_: user: { inherit (user) isSystemUser isNormalUser group home; }) config.users.users;
  groups = builtins.attrNames config.users.groups;
  etc = builtins.mapAttrs (_: file: builtins.readFile file.source) config.environment.etc;
}
"""


class Host:
    """A host that imports the module."""

    def __init__(self, nix: HermeticNix) -> None:
        self._nix = nix

    def __call__(self, more: str) -> Any:
        """What becomes of it with more definitions."""
        return self._nix.eval_json(HOST.replace("PROJECT", nix_path(PROJECT)).replace("MORE", more))


@pytest.fixture
def host(nix: HermeticNix) -> Host:
    return Host(nix)


def enabled(more: str = "") -> str:
    return f"{{ services.glixd = {{ enable = true; {more} }}; }}"


def settings(of: Any) -> Any:
    """The values of the configuration file; the stand-in of the TOML writer writes JSON."""
    import json

    return json.loads(of["etc"]["glixd/config.toml"])


def test_a_host_that_imports_the_module_gets_the_client_as_from_glix_and_no_service(host: Host) -> None:
    of = host("{ }")
    assert of["packages"] == ["glixd"]
    assert [of[name] for name in ("units", "bus", "etc", "users", "groups", "sockets")] == [[], [], {}, {}, [], {}]


@pytest.mark.parametrize("name", ["programs.glixctl", "glixos.glix"])
def test_the_client_can_be_left_out_by_either_name(host: Host, name: str) -> None:
    assert host(f"{{ {name}.enable = false; }}")["packages"] == []


@pytest.mark.parametrize("name", ["programs.glixctl", "glixos.glix"])
def test_the_client_can_be_another_package_by_either_name(host: Host, name: str) -> None:
    assert host(f"({{ pkgs, ... }}: {{ {name}.package = pkgs.hello; }})")["packages"] == ["hello"]


def test_an_enabled_service_brings_units_policies_users_and_settings(host: Host) -> None:
    of = host(enabled())
    assert of["failed"] == []
    assert (of["units"], of["folders"], of["bus"], of["polkit"]) == (["glixd"], ["glixd"], ["glixd"], True)
    assert set(of["packages"]) == {"glixd"}
    assert {name: unit["wantedBy"] for name, unit in of["sockets"].items()} == {
        "glixd": ["sockets.target"],
        "glixd-eval": ["sockets.target"],
        "glixd-activate": ["sockets.target"],
        "glixd-export": ["sockets.target"],
    }
    assert of["services"]["glixd-export"]["wantedBy"] == ["multi-user.target"]
    for user in ("glixd", "glixd-eval"):
        assert of["users"][user] == {
            "isSystemUser": True,
            "isNormalUser": False,
            "group": user,
            "home": f"/var/lib/{user}",
        }
    assert of["groups"] == ["glixd", "glixd-eval"]
    assert settings(of) == {"host": "laptop", "idle_exit": 60, "repository": "/var/lib/glixd/repo"}
    assert of["userSockets"] == {}


def test_the_users_of_the_module_are_those_of_other_systems() -> None:
    written = (MODULE / "sysusers.d/glixd.conf").read_text()
    made = set(re.findall(r"users\.users\.([a-z-]+) =", (MODULE / "default.nix").read_text()))
    assert made == set(re.findall(r"^u\s+(\S+)", written, re.MULTILINE))


def test_every_enabled_unit_is_enabled_on_other_systems_too(host: Host) -> None:
    installer = (PROJECT / "scripts/install-system").read_text()
    lists = re.findall(r"^(?:sockets|units)=\((.*)\)$", installer, re.MULTILINE)
    assert len(lists) == 2
    of = host(enabled())
    services = {name for name, unit in of["services"].items() if unit.get("wantedBy")}
    wanted = {f"{name}.socket" for name in of["sockets"]} | {f"{name}.service" for name in services}
    assert wanted == {word for words in lists for word in words.split()} - {'"${sockets[@]}"'}


def test_settings_reach_the_file_and_go_before_the_options(host: Host) -> None:
    of = host(enabled('host = "other"; idleExit = 0; settings = { pending = 3; idle_exit = 7; };'))
    assert settings(of) == {"host": "other", "idle_exit": 7, "pending": 3, "repository": "/var/lib/glixd/repo"}


def test_the_daemon_is_restarted_when_its_settings_change(host: Host) -> None:
    one, other = (host(enabled(f"idleExit = {n};"))["services"]["glixd"]["restartTriggers"] for n in (1, 2))
    assert len(one) == 1
    assert one != other


def test_the_services_find_git_and_nix(host: Host) -> None:
    of = host("({ pkgs, ... }: { services.glixd.enable = true; nix.package = pkgs.hello; })")
    for unit, more in (("glixd", []), ("glixd-eval@", []), ("glixd-activate@", ["polkit"]), ("glixd-export", [])):
        found = [re.sub(r".*-([a-z]+)-[0-9.]+$", r"\1", path) for path in of["services"][unit]["path"]]
        assert found == ["git", "hello", *more]


def test_the_activator_knows_which_host_and_which_branch_it_is_for(host: Host) -> None:
    of = host(enabled('host = "other"; repository = "/srv/repo"; settings.branch = "stable";'))
    reset, command = of["services"]["glixd-activate@"]["serviceConfig"]["ExecStart"]
    assert reset == ""
    assert command.endswith("/bin/glixd-activate --host other --repository /srv/repo --branch stable")


def test_credentials_reach_the_evaluator_alone(host: Host) -> None:
    of = host(
        enabled('credentials = { "ssh-key.git.example.org" = "/run/secrets/key"; netrc = "/run/secrets/netrc"; };')
    )
    with_credentials = [name for name, unit in of["services"].items() if "LoadCredential" in str(unit)]
    assert with_credentials == ["glixd-eval@"]
    assert of["services"]["glixd-eval@"]["serviceConfig"]["LoadCredential"] == [
        "netrc:/run/secrets/netrc",
        "ssh-key.git.example.org:/run/secrets/key",
    ]


def test_another_repository_is_writable_and_exported(host: Host) -> None:
    of = host(enabled('repository = "/srv/repo"; settings.branch = "stable";'))
    assert settings(of)["repository"] == "/srv/repo"
    assert of["services"]["glixd"]["serviceConfig"]["ReadWritePaths"] == ["/srv/repo"]
    assert of["rules"] == ["d /srv/repo 0700 glixd glixd -"]
    reset, command = of["services"]["glixd-export"]["serviceConfig"]["ExecStart"]
    assert reset == ""
    assert command.endswith("/bin/glixd-export --repository /srv/repo --branch stable")


def test_the_copy_can_be_left_out(host: Host) -> None:
    of = host(enabled("export = false;"))
    assert "glixd-export" not in of["sockets"]
    assert "glixd-export" not in of["services"]


def test_nothing_is_updated_by_itself_until_somebody_says_so(host: Host) -> None:
    of = host(enabled())
    assert of["timers"] == {}
    assert "auto_update" not in settings(of)


def test_updates_come_when_and_as_the_options_say(host: Host) -> None:
    said = 'enable = true; dates = "Sun 04:40"; action = "switch"; inputs = [ "nixpkgs" ]; age = 7;'
    of = host(enabled(f"autoUpdate = {{ {said} }};"))
    assert of["timers"]["glixd-update"] == {
        "wantedBy": ["timers.target"],
        "timerConfig": {"OnCalendar": ["", "Sun 04:40"]},
    }
    chosen = {name: value for name, value in settings(of).items() if name.startswith("auto_update")}
    assert chosen == {"auto_update": "switch", "auto_update_inputs": ["nixpkgs"], "auto_update_age": 7}
    assert settings(host(enabled("autoUpdate.enable = true;")))["auto_update"] == "stage"


def test_the_rule_for_wheel_is_there_only_where_it_was_asked_for(host: Host) -> None:
    rule = "polkit-1/rules.d/50-glixd-wheel.rules"
    assert rule not in host(enabled())["etc"]
    assert (
        host(enabled("wheelPasswordless = true;"))["etc"][rule] == (PROJECT / "polkit/50-glixd-wheel.rules").read_text()
    )


def test_users_can_have_daemons_of_their_own(host: Host) -> None:
    assert host(enabled("userMode = true;"))["userSockets"] == {"glixd": {"wantedBy": ["sockets.target"]}}


@pytest.mark.parametrize("trusted", ["@wheel", "glixd", "glixd-eval", "*"])
def test_whom_nix_may_not_trust_is_refused(host: Host, trusted: str) -> None:
    more = f'nix.settings.trusted-users = [ "root" "{trusted}" ];'
    (message,) = host(f"{{ services.glixd.enable = true; {more} }}")["failed"]
    assert f"trusted-users has {trusted}:" in message
    assert host(f"{{ {more} }}")["failed"] == []


def test_an_evaluator_that_nix_would_turn_away_is_refused(host: Host) -> None:
    (message,) = host('{ services.glixd.enable = true; nix.settings.allowed-users = [ "root" ]; }')["failed"]
    assert "lacks glixd-eval" in message
    assert host('{ services.glixd.enable = true; nix.settings.allowed-users = [ "glixd-eval" ]; }')["failed"] == []


def test_every_option_is_exercised_here() -> None:
    module = (MODULE / "default.nix").read_text()
    options = re.findall(r"^ {6,8}(\w+) = mkOption", module, re.MULTILINE)
    assert len(options) >= 17
    tests = Path(__file__).read_text()
    assert [name for name in options if not re.search(rf"\b{name}\b", tests.replace("HOST", ""))] == []
