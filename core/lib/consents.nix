# SPDX-License-Identifier: GPL-3.0-or-later
# What a host consented to: `settings.allow_unfree = [ "steam" ]` lets the package steam, and what it needs, be unfree.
#
# A consent is for the packages it names and for nothing else of the host: they come from a second instance of the same
# nixpkgs, whose configuration is the host's own and the consent. There is one instance for each set of consents.
{ lib }:
{ settings, key }:
let
  # The configuration of nixpkgs that each consent stands for; every nixpkgs of the last ten years knows these.
  configs = {
    allow_broken = { allowBroken = true; };
    allow_insecure = { allowInsecurePredicate = _: true; };
    allow_unfree = { allowUnfree = true; };
  };
  names = builtins.attrNames configs;
  given = setting: settings.${setting} or [ ];

  consentsOf = name: lib.filter (setting: lib.elem name (given setting)) names;
  combination = lib.concatStringsSep " ";
  combinations = map consentsOf (lib.unique (lib.concatMap given names));

  argument = "glix-consents-${builtins.hashString "sha256" key}";

  platformOf = platform: platform.config or platform.system;
in
rec {
  # The same package set, with the configuration that these consents stand for.
  extend = consents: pkgs:
    let inherit (pkgs.stdenv) hostPlatform buildPlatform; in
    import pkgs.path {
      inherit (pkgs) overlays;
      localSystem = buildPlatform;
      crossSystem = if platformOf hostPlatform == platformOf buildPlatform then null else hostPlatform;
      config = lib.foldl' (config: setting: config // configs.${setting}) pkgs.config consents;
    };

  # A module that keeps the instances, so that packages with the same consents share one.
  modules = lib.optional (combinations != [ ]) ({ pkgs, ... }: {
    _module.args.${argument} = builtins.listToAttrs
      (map (consents: { name = combination consents; value = extend consents pkgs; }) combinations);
  });

  # The package set that the package `name` comes from, within a module with the arguments `config` and `pkgs`.
  packageSet = name: { config, pkgs, ... }:
    let consents = consentsOf name; in
    if consents == [ ] then pkgs else config._module.args.${argument}.${combination consents};

  inherit consentsOf;
}
