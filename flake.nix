# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "glixd: a NixOS package daemon, and the core that its repositories build on";

  # The only input. A repository of packages lets it follow its own nixpkgs.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forSystems = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      commit = self.rev or self.dirtyRev or "unknown";
      packageFor = pkgs: pkgs.callPackage ./nixos-module/package.nix { inherit commit; src = self; };

      # The daemon as a service; its package is built from the packages of the machine that it is for.
      service = { lib, pkgs, ... }: {
        imports = [ ./nixos-module ];
        services.glixd.package = lib.mkDefault (packageFor pkgs);
      };

      # `nix run .#up`: the demonstration, in the checkout one stands in, or else in a copy of this source.
      up = pkgs: pkgs.writeShellScript "glix-up" ''
        set -eu
        if [ -x ./demo ] && [ -f ./core/lib/importManifest.nix ]; then exec ./demo "$@"; fi
        copy=$(mktemp -d)
        trap 'rm -rf "$copy"' EXIT
        cp -R ${self}/. "$copy"
        chmod -R u+w "$copy"
        cd "$copy"
        ./demo "$@"
      '';
      # Evaluates a small host from its manifest; builds anywhere, even where nothing can be fetched.
      coreCheck = pkgs:
        let
          example = self.lib.mkFlake {
            inputs = { inherit nixpkgs; self.outPath = ./core/tests/repository; };
            hosts = mkHost: { machine = mkHost "machine" pkgs.stdenv.hostPlatform.system; };
          };
          names = map lib.getName example.nixosConfigurations.machine.config.environment.systemPackages;
        in
        assert lib.elem "hello" names; derivation {
          name = "glix-core-check";
          inherit (pkgs.stdenv.hostPlatform) system;
          builder = "/bin/sh";
          args = [ "-c" "echo ok > $out" ];
        };
    in
    {
      lib = import ./core/lib { inherit lib; };

      nixosModules = rec {
        glixos = { imports = [ ./core/modules glixd ]; };
        glixd = { key = "glixos/glixd"; imports = [ service ]; };
        core = { imports = [ ./core/modules/core ]; };
        desktop = { imports = [ ./core/modules/desktop ]; };
        default = glixos;
      };

      # A machine to try things on, in a virtual machine or a container.
      nixosConfigurations.vm = lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ self.nixosModules.glixos ./core/hosts/vm ] ++ (self.lib.profile "minimal").modules;
      };

      overlays.default = final: prev: { glixd = packageFor final; };

      packages = forSystems (pkgs: rec {
        glixd = packageFor pkgs;
        default = glixd;
      });

      apps = forSystems (pkgs: {
        up = { type = "app"; program = "${up pkgs}"; };
      });

      templates.default = {
        path = ./examples/user-packages;
        description = "A repository of package manifests with two hosts";
      };

      checks = forSystems (pkgs: {
        inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) glixd;
        core = coreCheck pkgs;
      });
    };
}
