# SPDX-License-Identifier: GPL-3.0-or-later
# Turns the manifest of a host (glix.toml) and the inputs of a flake into lists of modules:
#
#   importManifest { manifestPath = ./hosts/laptop/glix.toml; inherit inputs; defaultUser = "alice"; }
#   -> { manifest, systemModules, homeModules, homeModulesByUser, warnings }
#
# Every refusal is one sentence that names the manifest and the package and says what to do:
#   glix: package 'firefox' in hosts/laptop/glix.toml: …
{ lib }:
let
  defaultLib = lib;

  # "/nix/store/…-source/hosts/laptop/glix.toml" -> "hosts/laptop/glix.toml"
  readablePath = path:
    let inStore = builtins.match "/[^/]+/(.*)" (lib.removePrefix builtins.storeDir (toString path)); in
    if lib.hasPrefix builtins.storeDir (toString path) && inStore != null
    then builtins.unsafeDiscardStringContext (builtins.head inStore)
    else toString path;
in
{ manifestPath
, inputs ? { }
, defaultUser ? null
, lib ? defaultLib
}:
let
  references = import ./reference.nix { inherit lib; };
  withConfig = import ./withConfig.nix { inherit lib; };
  consents = import ./consents.nix { inherit lib; } { inherit settings; key = file; };

  file = readablePath manifestPath;
  refuse = sentence: throw "glix: ${sentence}";

  manifest =
    if !builtins.pathExists manifestPath then
      refuse "there is no manifest at ${file}. A flake sees only files that git knows: run 'git add ${file}', or write the host's files with 'glixctl init'."
    else
      let
        content = builtins.addErrorContext "while reading the manifest ${file}" (builtins.fromTOML (builtins.readFile manifestPath));
        schema = content.schema or null;
      in
      if schema == 1 then content
      else refuse "the manifest ${file} has schema ${builtins.toJSON schema}, and this version of glixos-core reads schema 1 only. Update the core with 'glixctl update glixos-core', or restore the manifest.";

  settings = manifest.settings or { };
  defaultScope = if text "default_scope" settings != null then settings.default_scope else "system";

  # An empty string is as good as no value, as in manifests written by glix.
  text = name: set: let value = set.${name} or null; in if value == "" then null else value;

  # ---- packages, read once

  readPackage = name: entry:
    let
      inputName = if text "input" entry != null then entry.input else name;
      reference = references.parse (entry.flake or (refusePackage "has no 'flake' field. Add one, or run 'glixctl remove ${name}'."));
      refusePackage = sentence: refuse "package '${name}' in ${file}: ${sentence}";
      package = {
        inherit name inputName reference refusePackage;
        scope = if text "scope" entry != null then entry.scope else defaultScope;
        config = entry.config or { };
        flake = entry.flake;
        user = text "user" entry;
        isHostAttribute = references.isHostAttribute {
          inherit reference;
          hasPin = text "pin" entry != null;
          hasInput = inputs ? ${inputName} && !lib.elem inputName reservedInputs;
        };
      };
    in
    if lib.elem package.scope [ "system" "home" ] then package
    else refusePackage "has the scope ${builtins.toJSON package.scope}; it must be \"system\" or \"home\". Run 'glixctl set ${name} scope=system'.";

  # Inputs that the flake has for itself: never one that a package of the same name brought in.
  reservedInputs = [ "self" "nixpkgs" "home-manager" "glixos-core" ];

  packages = lib.mapAttrsToList readPackage
    (lib.filterAttrs (_: entry: entry.enabled or true) (manifest.packages or { }));
  ofScope = scope: lib.filter (package: package.scope == scope) packages;

  inputOf = package: inputs.${package.inputName} or (package.refusePackage
    "the flake has no input '${package.inputName}' for ${package.flake}. Run 'glixctl regen' to write the inputs anew.");

  # ---- a package becomes a module

  moduleOf = package:
    let source = sourceOf package; in
    if source ? module then locate (withConfig package.config source.module)
    else locate (installs package source.derivation);

  # Where nothing better is known, an error message names the manifest.
  locate = module: { _file = file; imports = [ module ]; };

  installs = package: find: { config, pkgs, ... }@arguments:
    let derivations = [ (find (consents.packageSet package.name arguments)) ]; in
    if package.scope == "home" then { home.packages = derivations; } else { environment.systemPackages = derivations; };

  # { module } or { derivation = pkgs: …; }
  sourceOf = package:
    if package.isHostAttribute then { derivation = hostAttribute package; }
    else if package.reference.path == [ ] then defaultOf package
    else if isModulePath package then { module = namedModule package; }
    else { derivation = namedAttribute package; };

  moduleSets = { system = [ "nixosModules" ]; home = [ "homeModules" "homeManagerModules" ]; };

  defaultOf = package:
    let
      input = inputOf package;
      modules = lib.concatMap (set: if input ? ${set}.default then [ input.${set}.default ] else [ ]) moduleSets.${package.scope};
      otherScope = if package.scope == "home" then "system" else "home";
      fitsOther = lib.any (set: input ? ${set}.default) moduleSets.${otherScope};
      lookedFor = system: lib.concatStringsSep ", " (map (set: "${set}.default") moduleSets.${package.scope} ++ [ "packages.${system}.default" ]);
      remedy =
        if fitsOther then "It has a module for the scope \"${otherScope}\": run 'glixctl set ${package.name} scope=${otherScope}'."
        else "Name an attribute with '${package.flake}#ATTRIBUTE', or run 'glixctl remove ${package.name}'.";
    in
    if modules != [ ] then { module = lib.head modules; }
    else {
      derivation = pkgs:
        let system = systemOf pkgs; in
        input.packages.${system}.default or (package.refusePackage "${package.flake} has none of ${lookedFor system}. ${remedy}");
    };

  isModulePath = package: lib.elem (lib.head package.reference.path) (moduleSets.system ++ moduleSets.home);

  namedModule = package:
    let
      inherit (package.reference) path;
      set = lib.head path;
      wanted = moduleSets.${package.scope};
    in
    if !lib.elem set wanted then
      package.refusePackage "${package.flake} is a module for another scope than \"${package.scope}\". Run 'glixctl set ${package.name} scope=${if package.scope == "home" then "system" else "home"}'."
    else
      lib.attrByPath path (package.refusePackage "${package.flake} has no attribute ${shownPath path}. ${removeHint package}") (inputOf package);

  hostAttribute = package: pkgs:
    derivationOr package (lib.attrByPath package.reference.path
      (package.refusePackage "the nixpkgs of this host has no attribute ${shownPath package.reference.path}. Update it with 'glixctl update nixpkgs', or run 'glixctl remove ${package.name}'.")
      pkgs);

  namedAttribute = package: pkgs:
    let
      input = inputOf package;
      system = systemOf pkgs;
      inherit (package.reference) path;
      candidates = [ ([ "packages" system ] ++ path) ([ "legacyPackages" system ] ++ path) path ];
      found = lib.filter (candidate: lib.hasAttrByPath candidate input) candidates;
      lookedFor = lib.concatStringsSep ", " (map shownPath candidates);
    in
    if found == [ ] then package.refusePackage "${package.flake} has none of ${lookedFor}. ${removeHint package}"
    else derivationOr package (lib.attrByPath path (lib.attrByPath (lib.head found) null input) (consentedSet package input system));

  # The package set of another nixpkgs, with the consents of the package; empty where there are none.
  consentedSet = package: input: system:
    let
      given = consents.consentsOf package.name;
      set = input.legacyPackages.${system} or { };
    in
    if given == [ ] || !(set ? path && set ? config) then { } else consents.extend given set;

  derivationOr = package: value:
    if lib.isDerivation value then value
    else package.refusePackage "${shownPath package.reference.path} of ${package.reference.source} is not a package. ${removeHint package}";

  removeHint = package: "Correct the attribute, or run 'glixctl remove ${package.name}'.";
  shownPath = lib.concatStringsSep ".";
  systemOf = pkgs: pkgs.stdenv.hostPlatform.system;

  # ---- homes

  userOf = package:
    let user = lib.findFirst (candidate: candidate != null) null [ package.user (text "primary_user" settings) defaultUser ]; in
    if user != null then user
    else package.refusePackage "it is a package for a home, and nothing says whose. Run 'glixctl set ${package.name} user=NAME', or set primary_user under [settings].";

  homePackages = map (package: { user = userOf package; module = moduleOf package; }) (ofScope "home");

  # ---- what works, though not as written

  warningsOf = package:
    let says = sentence: "glix: package '${package.name}' in ${file}: ${sentence}"; in
    lib.optional (package.config != { } && !(sourceOf package) ? module)
      (says "its config has no effect, because ${package.flake} has no module that could read it.")
    ++ lib.optional (package.user != null && package.scope == "system")
      (says "its user has no effect, because a package of scope \"system\" is installed for everyone.");
in
{
  inherit manifest;
  systemModules = consents.modules ++ map moduleOf (ofScope "system");
  homeModules = lib.optionals (homePackages != [ ]) consents.modules ++ map (home: home.module) homePackages;
  homeModulesByUser = builtins.mapAttrs (_: homes: consents.modules ++ map (home: home.module) homes)
    (lib.groupBy (home: home.user) homePackages);
  warnings = lib.concatMap warningsOf packages;
}
