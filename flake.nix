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

      # The version is written once, in the module that both sides of the wire share.
      version = builtins.head (builtins.match ".*\nVERSION[^\n\"]*\"([^\"]+)\".*" (builtins.readFile ./glixd/protocol.py));
      commit = self.rev or self.dirtyRev or "unknown";

      packageFor = pkgs: pkgs.python3Packages.buildPythonApplication {
        pname = "glixd";
        inherit version;
        pyproject = true;
        src = self;
        postPatch = ''
          substituteInPlace glixd/protocol.py --replace-fail 'COMMIT: Final = "unknown"' 'COMMIT: Final = "${commit}"'
        '';
        build-system = [ pkgs.python3Packages.hatchling ];
        dependencies = with pkgs.python3Packages; [
          dbus-next
          pydantic
          rfc8785
          structlog
          (pkgs.python3Packages.systemd-python or systemd)
          tomlkit
        ];
        # The suite needs a bus, a git and a nix of its own; ./check runs it.
        doCheck = false;
        pythonImportsCheck = [ "glixd.protocol" "glixctl" ];
        meta = {
          description = "NixOS package daemon with D-Bus and JSON-RPC interfaces, and its command line client";
          license = lib.licenses.gpl3Plus or { spdxId = "GPL-3.0-or-later"; };
          platforms = systems;
          mainProgram = "glixctl";
        };
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
        glixos = { imports = [ ./core/modules ]; };
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
