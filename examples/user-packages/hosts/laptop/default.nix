# SPDX-License-Identifier: GPL-3.0-or-later
{ inputs, ... }:
{
  imports = [
    ../../shared/base.nix
    inputs.glixos-core.nixosModules.desktop
  ];

  boot.loader.systemd-boot.enable = true;
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  system.stateVersion = "25.05";
}
