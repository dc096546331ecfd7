# SPDX-License-Identifier: GPL-3.0-or-later
# The profiles of core/profiles.toml, each with its modules: `profiles.desktop.modules` is a list of paths.
{ lib }:
let
  file = builtins.fromTOML (builtins.readFile ../profiles.toml);
  folder = name: module:
    if builtins.pathExists (../modules + "/${module}/default.nix") then ../modules + "/${module}"
    else throw "glix: core/profiles.toml: the profile '${name}' names the module '${module}', and there is no core/modules/${module}.";
  profiles = lib.mapAttrs (name: profile: profile // { modules = map (folder name) profile.modules; }) file.profiles;
in
{
  inherit profiles;

  # `profile "desktop"`, or an error that lists what there is.
  profile = name: profiles.${name} or (throw "glix: there is no profile '${name}'. There are: ${lib.concatStringsSep ", " (builtins.attrNames profiles)}.");
}
