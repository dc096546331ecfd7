# SPDX-License-Identifier: GPL-3.0-or-later
{
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.systemd-boot.enable = true;
  system.stateVersion = "25.05";
}
