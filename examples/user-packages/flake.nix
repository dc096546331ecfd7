# SPDX-License-Identifier: GPL-3.0-or-later
# A repository of package manifests with two machines, as glixctl writes and keeps it.
{
  description = "My machines";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

    glixos-core = {
      url = "github:glixos/glixd";
      inputs.nixpkgs.follows = "nixpkgs";
    };

    home-manager = {
      url = "github:nix-community/home-manager";
      inputs.nixpkgs.follows = "nixpkgs";
    };

    # >>> glix-managed inputs >>>
    "greeting" = { url = "github:glixos/glixd?dir=examples/pkg-greeting"; inputs.nixpkgs.follows = "nixpkgs"; };
    "pkg-hello" = { url = "github:glixos/glixd?dir=examples/pkg-hello"; inputs.nixpkgs.follows = "nixpkgs"; };
    # <<< glix-managed inputs <<<
  };

  # A host is hosts/<host>/default.nix, which is yours, and the packages of hosts/<host>/glix.toml.
  outputs = inputs: inputs.glixos-core.lib.mkFlake {
    inherit inputs;
    hosts = mkHost: {
      # >>> glix-managed hosts >>>
      "laptop" = mkHost "laptop" "x86_64-linux";
      "pi" = mkHost "pi" "aarch64-linux";
      # <<< glix-managed hosts <<<
    };
  };
}
