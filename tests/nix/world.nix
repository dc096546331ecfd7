# SPDX-License-Identifier: GPL-3.0-or-later
# One host evaluated from one manifest, as plain data that a test can compare.
{ project }:
let
  fixture = name: inputs: let flake = (import (project + "/tests/fixtures/${name}/flake.nix")).outputs (inputs // { self = flake; }); in flake;
  nixpkgs = fixture "mini-nixpkgs" { };
  homeManager = fixture "mini-home-manager" { inherit nixpkgs; };
  core = import (project + "/core/lib") { inherit (nixpkgs) lib; };
  inherit (nixpkgs) lib;

  perSystem = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ];
  # Sorted: the order in which modules add to a list is the module system's own business.
  names = packages: builtins.sort builtins.lessThan (map (package: package.pname or package.name) packages);
in
rec {
  inherit nixpkgs core lib perSystem;

  # A package that evaluates, and says which system it is for.
  package = name: system: derivation { inherit name system; builder = "/bin/sh"; };

  manifestOf = arguments: core.importManifest ({ inputs = { }; } // arguments);

  hostOf = { system ? "x86_64-linux", modules ? [ ], users ? { alice = { }; }, ... }@arguments:
    let manifest = manifestOf (removeAttrs arguments [ "system" "modules" "users" ]); in
    nixpkgs.lib.nixosSystem {
      modules = [
        homeManager.nixosModules.home-manager
        {
          nixpkgs.hostPlatform = system;
          users.users = users;
          warnings = manifest.warnings;
          home-manager.users = lib.mapAttrs (_: modules: { imports = modules; home.stateVersion = "25.05"; }) manifest.homeModulesByUser;
        }
      ] ++ manifest.systemModules ++ modules;
    };

  # { system, homes, etc, files, warnings }: names of packages and texts of files.
  host = arguments:
    let inherit (hostOf arguments) config; in
    {
      system = names config.environment.systemPackages;
      homes = lib.mapAttrs (_: names) config.system.homePackages;
      etc = lib.mapAttrs (_: file: file.text) config.environment.etc;
      files = config.system.homeFiles;
      inherit (config) warnings;
    };
}
