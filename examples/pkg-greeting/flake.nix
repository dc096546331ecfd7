# SPDX-License-Identifier: GPL-3.0-or-later
# A flake with a module for systems and one for homes, configured from the manifest:
#
#   glixctl add --scope home 'github:glixos/glixd?dir=examples/pkg-greeting'
#   glixctl set pkg-greeting config.message='Good morning'
{
  description = "A package that greets with a message of one's own";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      forSystems = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ];
      greeting = pkgs: message: pkgs.writeShellScriptBin "pkg-greeting" "echo ${nixpkgs.lib.escapeShellArg message}\n";
    in
    {
      packages = forSystems (system: { default = greeting nixpkgs.legacyPackages.${system} "Hello"; });

      # glixConfig is the table [packages.<name>.config] of the manifest: strings, by the names that this module chose.
      homeModules.default = { pkgs, glixConfig, ... }:
        let message = glixConfig.message or "Hello"; in
        {
          home.packages = [ (greeting pkgs message) ];
          home.file.".config/greeting".text = message;
        };

      nixosModules.default = { pkgs, glixConfig, ... }:
        let message = glixConfig.message or "Hello"; in
        {
          environment.systemPackages = [ (greeting pkgs message) ];
          environment.etc."greeting".text = message;
        };
    };
}
