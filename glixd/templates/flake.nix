# The machines of this repository and the packages on them.
#
# glixd writes between the `glix-managed` lines, from the manifests hosts/<host>/glix.toml, and nowhere else in this file.
# Everything outside those lines is yours: add inputs, pin them, rename this flake.
{
  description = "My machines";

  inputs = {
    nixpkgs.url = @NIXPKGS_URL@;

    glixos-core = {
      url = @CORE_URL@;
      inputs.nixpkgs.follows = "nixpkgs";
    };
@HOME_MANAGER_BLOCK@
    # >>> glix-managed inputs >>>
    # <<< glix-managed inputs <<<
  };

  # A host is hosts/<host>/default.nix, which is yours, and the packages of hosts/<host>/glix.toml.
  outputs = inputs: inputs.glixos-core.lib.mkFlake {
    inherit inputs;
    hosts = mkHost: {
      # >>> glix-managed hosts >>>
      # <<< glix-managed hosts <<<
    };
  };
}
