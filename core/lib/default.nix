# SPDX-License-Identifier: GPL-3.0-or-later
# The functions a repository of package manifests calls; the flake exports this set as `lib`.
{ lib }:
let
  importManifest = import ./importManifest.nix { inherit lib; };
in
{
  inherit importManifest;

  # `profiles.desktop.modules`, and `profile "desktop"`: what core/profiles.toml says.
  inherit (import ./profiles.nix { inherit lib; }) profiles profile;

  # `mkFlake { inherit inputs; hosts = mkHost: { laptop = mkHost "laptop" "x86_64-linux"; }; }` -> flake outputs
  mkFlake = import ./mkFlake.nix { inherit lib importManifest; };

  # What this revision understands in a manifest. glixd reads the list at the locked revision and refuses a change
  # that needs more. Names are only ever added.
  manifestFeatures = [
    "host-attributes" # flake = "nixpkgs#firefox" is the host's own pkgs.firefox
    "attribute-paths" # flake = "ref#a.b" is that attribute of the input
    "module-attributes" # flake = "ref#nixosModules.x" (or homeModules.x) is that module
    "module-config" # [packages.x.config] reaches functions, paths, imports and functors as glixConfig
    "follows" # follows = false, which concerns flake.nix alone, is no obstacle
    "input-names" # input = "other-name" names the flake input of a package
    "home-users" # user, primary_user and the default user choose whose home a package goes to
    "state-version" # settings.state_version is the home.stateVersion of every home
    "consents" # settings.allow_unfree, allow_insecure and allow_broken name packages that may be so
    "bare-hosts" # settings.core_modules = false leaves the core's defaults out of a host
    "mk-flake" # lib.mkFlake builds the hosts
  ];
}
