# SPDX-License-Identifier: GPL-3.0-or-later
# The smallest flake that can be added: one package and no module.
#
#   glixctl add 'github:glixos/glixd?dir=examples/pkg-hello'
{
  description = "A package and nothing else";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      forSystems = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ];
    in
    {
      packages = forSystems (system: {
        default = nixpkgs.legacyPackages.${system}.writeShellScriptBin "pkg-hello" ''
          echo "Hello from a flake of its own."
        '';
      });
    };
}
