# SPDX-License-Identifier: GPL-3.0-or-later
# The outputs of a repository of package manifests; its flake.nix holds nothing but inputs and the list of hosts:
#
#   outputs = inputs: inputs.glixos-core.lib.mkFlake {
#     inherit inputs;
#     hosts = mkHost: { laptop = mkHost "laptop" "x86_64-linux"; };
#   };
#
# A host is made of the core modules, hosts/<name>/default.nix and the packages of hosts/<name>/glix.toml. Its modules may
# take the arguments `inputs` and `hostName`.
#
# With `core_modules = false` in the settings of its manifest a host is what its own files say and nothing else: none of the
# core's defaults, and no name. So is a machine that was taken over as it was.
{ lib, importManifest }:
{ inputs, hosts }:
let
  inherit (inputs) self nixpkgs;
  # A copy of a commit without its git, as glixd keeps one in /etc/glixos, says which commit it is.
  exported = "${self}/.glixd-revision";
  revision = self.rev or (if builtins.pathExists exported then lib.head (lib.splitString "\n" (builtins.readFile exported)) else null);

  # What a host is made of; every engine that builds hosts gets the same.
  partsOf = hostName: system:
    let
      folder = "${self}/hosts/${hostName}";
      manifest = importManifest { manifestPath = "${folder}/glix.toml"; inherit inputs; };
    in
    {
      inherit system;
      specialArgs = { inherit inputs hostName; };
      modules = (if manifest.manifest.settings.core_modules or true then defaults hostName else [ noDefaults ]) ++ [
        (hostModule folder hostName)
        (identity hostName system)
        (homes manifest)
        { warnings = manifest.warnings; }
      ] ++ manifest.systemModules;
    };

  mkHost = hostName: system: nixpkgs.lib.nixosSystem {
    inherit (partsOf hostName system) specialArgs;
    modules = [ reachable ] ++ (partsOf hostName system).modules;
  };

  # Lets the files of a host say how colmena reaches it, also where it is not colmena that builds it.
  reachable = { lib, ... }: {
    options.deployment = lib.mkOption {
      type = lib.types.attrsOf lib.types.anything;
      default = { };
      description = "How colmena reaches and treats this host, such as deployment.targetHost.";
    };
  };

  nixosConfigurations = hosts mkHost;
  parts = hosts partsOf;

  # The hive of colmena: `colmena apply --on pi` builds and activates the hosts of this repository. A host is reached by its
  # name, unless its own files say otherwise with `deployment.targetHost`.
  colmena = {
    meta = {
      nixpkgs = nixpkgs.legacyPackages.${(builtins.head (builtins.attrValues parts)).system};
      nodeNixpkgs = lib.mapAttrs (_: host: nixpkgs.legacyPackages.${host.system}) parts;
      nodeSpecialArgs = lib.mapAttrs (_: host: host.specialArgs) parts;
    };
  } // lib.mapAttrs
    (hostName: host: {
      imports = host.modules;
      deployment.targetHost = lib.mkDefault hostName;
    })
    parts;

  # The nodes of deploy-rs, where the flake has it among its inputs: `deploy .#pi`.
  deploy.nodes = lib.mapAttrs
    (hostName: host: {
      hostname = hostName;
      profiles.system = {
        user = "root";
        path = inputs.deploy-rs.lib.${host.system}.activate.nixos nixosConfigurations.${hostName};
      };
    })
    parts;

  hostModule = folder: hostName:
    if builtins.pathExists "${folder}/default.nix" then folder + "/default.nix"
    else throw "glix: there is no hosts/${hostName}/default.nix. A flake sees only files that git knows: run 'git add hosts/${hostName}', or write the host's files with 'glixctl init --host ${hostName}'.";

  defaults = hostName: [ ../modules ({ lib, ... }: { networking.hostName = lib.mkDefault hostName; }) ];
  noDefaults = { lib, ... }: { _module.args.glixConfig = lib.mkDefault { }; };

  # Which commit the host was built from, and its platform, which gives way to a hardware configuration's.
  identity = hostName: system: { lib, ... }: {
    nixpkgs.hostPlatform = lib.mkOverride 1250 system;
    system.configurationRevision = lib.mkDefault revision;
    environment.etc."glixos-revision".text = "${if revision == null then "uncommitted" else revision}\n";
    environment.etc."glixos-release".text = ''
      HOST=${hostName}
      REVISION=${if revision == null then "uncommitted" else revision}
      LAST_CHANGE=${self.lastModifiedDate or "unknown"}
    '';
  };

  homes = manifest:
    if inputs ? home-manager then withHomeManager manifest
    else if manifest.homeModulesByUser == { } then { }
    else withoutHomeManager manifest;

  withHomeManager = manifest: { config, lib, ... }:
    let
      stateVersion = manifest.manifest.settings.state_version or config.system.stateVersion;
      strangers = lib.filter (user: !(config.users.users ? ${user})) (lib.attrNames manifest.homeModulesByUser);
      missing = user: "glix: the manifest has packages for the home of '${user}', who is not in users.users. Declare the user in the host's default.nix, or move the packages with 'glixctl set NAME user=…'.";
    in
    {
      imports = [ inputs.home-manager.nixosModules.home-manager ];
      warnings = map missing strangers;
      home-manager = {
        useGlobalPkgs = lib.mkDefault true;
        useUserPackages = lib.mkDefault false;
        users = lib.mapAttrs
          (user: modules: {
            imports = if lib.elem user strangers then throw (missing user) else modules;
            home.stateVersion = lib.mkDefault stateVersion;
          })
          manifest.homeModulesByUser;
      };
    };

  withoutHomeManager = manifest: {
    assertions = [{
      assertion = false;
      message = "glix: the manifest has packages for the homes of ${lib.concatStringsSep ", " (lib.attrNames manifest.homeModulesByUser)}, and the flake has no input 'home-manager'. Add home-manager.url and home-manager.inputs.nixpkgs.follows = \"nixpkgs\" to the inputs in flake.nix, or move the packages with 'glixctl set NAME scope=system'.";
    }];
  };
in
{
  inherit nixosConfigurations colmena;
} // (if inputs ? deploy-rs then { inherit deploy; } else { })
