# SPDX-License-Identifier: GPL-3.0-or-later
# glixd as a service of the system: `services.glixd.enable = true;` and nothing else is needed.
#
# The units are those of the package, which other distributions install too; what is said here comes on top of them.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.glixd;
  client = config.programs.glixctl;
  inherit (lib) mkIf mkMerge mkOption types;

  settings = {
    inherit (cfg) repository host;
    idle_exit = cfg.idleExit;
  } // lib.optionalAttrs cfg.autoUpdate.enable {
    auto_update = cfg.autoUpdate.action;
    auto_update_inputs = cfg.autoUpdate.inputs;
    auto_update_age = cfg.autoUpdate.age;
  } // cfg.settings;
  file = (pkgs.formats.toml { }).generate "glixd.toml" settings;

  ownRepository = cfg.repository != "/var/lib/glixd/repo";
  branch = settings.branch or "main";
  programs = { path = [ pkgs.git config.nix.package ]; };
  place = "--repository ${cfg.repository} --branch ${branch}";

  groups = lib.filter (lib.hasPrefix "@") config.nix.settings.trusted-users;
  own = lib.filter (name: lib.elem name [ "*" "glixd" "glixd-eval" ]) config.nix.settings.trusted-users;
  allowed = config.nix.settings.allowed-users;
in
{
  options = {
    services.glixd = {
      enable = mkOption {
        type = types.bool;
        default = false;
        description = "Whether users may install packages through glixd, as polkit allows them to.";
      };
      package = mkOption {
        type = types.package;
        default = pkgs.glixd;
        description = "The package with the programs and the units.";
      };
      repository = mkOption {
        type = types.str;
        default = "/var/lib/glixd/repo";
        description = "The folder of the repository. It belongs to the user glixd; /etc/glixos is a copy for everybody to read.";
      };
      host = mkOption {
        type = types.str;
        default = config.networking.hostName;
        description = "The host of the repository that this machine is.";
      };
      wheelPasswordless = mkOption {
        type = types.bool;
        default = false;
        description = "Whether members of wheel who sit at the machine install trusted packages without a password.";
      };
      idleExit = mkOption {
        type = types.int;
        default = 60;
        description = "Seconds without work after which the daemon ends, to be started by the next request; 0 means never.";
      };
      credentials = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = { access-tokens = "/run/secrets/forge-tokens"; "ssh-key.git.example.org" = "/run/secrets/deploy-key"; };
        description = "Files with what private sources need, by name: netrc, access-tokens, ssh-key.HOST, ssh-known-hosts. They are read by systemd and reach the evaluator alone; use strings, since a path would be copied into the store.";
      };
      settings = mkOption {
        type = types.attrsOf types.anything;
        default = { };
        example = { pending_per_uid = 4; registries = [{ url = "https://packages.example.org/registry.json"; trust = "trusted"; }]; };
        description = "More of /etc/glixd/config.toml; docs/reference/settings.md has every key.";
      };
      export = mkOption {
        type = types.bool;
        default = true;
        description = "Whether /etc/glixos is kept as a copy of the repository, for nixos-rebuild and for people to read.";
      };
      autoUpdate = {
        enable = mkOption {
          type = types.bool;
          default = false;
          description = "Whether inputs are updated at times by a timer, as root, with nobody watching. Only what builds is committed.";
        };
        dates = mkOption {
          type = types.str;
          default = "daily";
          example = "Sun 04:40";
          description = "When, as systemd.time(7) writes it.";
        };
        action = mkOption {
          type = types.enum [ "stage" "switch" ];
          default = "stage";
          description = "What is done with an update that was built: stage leaves the switch to a user, switch switches.";
        };
        inputs = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "nixpkgs" ];
          description = "The inputs that are updated; none means all.";
        };
        age = mkOption {
          type = types.int;
          default = 0;
          example = 7;
          description = "Days since the locked revision of an input was made, before which it is left alone.";
        };
      };
      userMode = mkOption {
        type = types.bool;
        default = false;
        description = "Whether each user has a socket for a daemon of their own too, with a repository in their home.";
      };
    };

    programs.glixctl = {
      enable = mkOption {
        type = types.bool;
        default = cfg.enable || config.glixos.glix.enable;
        description = "Whether glixctl is in the system's PATH.";
      };
      package = mkOption {
        type = types.package;
        default = config.glixos.glix.package;
        description = "The package with glixctl.";
      };
    };

    # As glix spelled them: the command line client, in every host that imports the module.
    glixos.glix = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether the command line client is installed; programs.glixctl.enable by the name that glix gave it.";
      };
      package = mkOption {
        type = types.package;
        default = cfg.package;
        description = "The package with the client; programs.glixctl.package by the name that glix gave it.";
      };
    };
  };

  config = mkMerge [
    (mkIf client.enable { environment.systemPackages = [ client.package ]; })

    (mkIf cfg.enable {
      assertions = [
        {
          assertion = groups == [ ];
          message = "nix.settings.trusted-users has ${toString groups}: whoever nix trusts can put anything into the store and so is root, whatever glixd and polkit say. Name the few users who are root anyway, or leave the setting alone.";
        }
        {
          assertion = own == [ ];
          message = "nix.settings.trusted-users has ${toString own}: glixd and its evaluator are kept apart from root, and nix would make them root.";
        }
        {
          assertion = lib.elem "*" allowed || lib.elem "glixd-eval" allowed;
          message = "nix.settings.allowed-users lacks glixd-eval, the user that evaluates and builds for glixd.";
        }
      ];

      environment.systemPackages = [ cfg.package ];
      environment.etc."glixd/config.toml".source = file;

      users.users.glixd = {
        isSystemUser = true;
        group = "glixd";
        home = "/var/lib/glixd";
        description = "NixOS package daemon";
      };
      users.users.glixd-eval = {
        isSystemUser = true;
        group = "glixd-eval";
        home = "/var/lib/glixd-eval";
        description = "NixOS package daemon, evaluator";
      };
      users.groups = { glixd = { }; glixd-eval = { }; };

      security.polkit.enable = true;
      services.dbus.packages = [ cfg.package ];

      # NixOS takes the units of a package, but not what their [Install] sections say.
      systemd.packages = [ cfg.package ];
      systemd.tmpfiles.packages = [ cfg.package ];
      systemd.sockets = lib.genAttrs [ "glixd" "glixd-eval" "glixd-activate" ] (_: { wantedBy = [ "sockets.target" ]; });
      systemd.services = {
        glixd = programs // { restartTriggers = [ file ]; };
        "glixd-eval@" = programs;
        "glixd-activate@" = {
          path = programs.path ++ [ pkgs.polkit ]; # pkcheck
          serviceConfig.ExecStart = [ "" "${cfg.package}/bin/glixd-activate --host ${cfg.host} ${place}" ];
        };
      };
    })

    (mkIf (cfg.enable && cfg.credentials != { }) {
      systemd.services."glixd-eval@".serviceConfig.LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.credentials;
    })

    (mkIf (cfg.enable && ownRepository) {
      systemd.services.glixd.serviceConfig.ReadWritePaths = [ cfg.repository ];
      systemd.tmpfiles.rules = [ "d ${cfg.repository} 0700 glixd glixd -" ];
    })

    (mkIf (cfg.enable && cfg.export) {
      systemd.sockets.glixd-export.wantedBy = [ "sockets.target" ];
      systemd.services.glixd-export = programs // { wantedBy = [ "multi-user.target" ]; };
    })

    (mkIf (cfg.enable && cfg.export && (ownRepository || branch != "main")) {
      # An empty value first: this takes the place of what the unit says.
      systemd.services.glixd-export.serviceConfig.ExecStart = [
        ""
        "${cfg.package}/bin/glixd-export ${place}"
      ];
    })

    (mkIf (cfg.enable && cfg.autoUpdate.enable) {
      # An empty value first: this takes the place of what the unit says.
      systemd.timers.glixd-update = {
        wantedBy = [ "timers.target" ];
        timerConfig.OnCalendar = [ "" cfg.autoUpdate.dates ];
      };
    })

    (mkIf (cfg.enable && cfg.wheelPasswordless) {
      environment.etc."polkit-1/rules.d/50-glixd-wheel.rules".source = ../polkit/50-glixd-wheel.rules;
    })

    (mkIf (cfg.enable && cfg.userMode) {
      systemd.user.sockets.glixd.wantedBy = [ "sockets.target" ];
    })
  ];
}
