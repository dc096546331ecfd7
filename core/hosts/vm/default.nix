# SPDX-License-Identifier: GPL-3.0-or-later
# A machine to try things on: `nix build .#nixosConfigurations.vm.config.system.build.vm`. Log in as root, without a password.
{ lib, modulesPath, ... }:
let
  qemu = "${modulesPath}/virtualisation/qemu-vm.nix";
in
{
  imports = lib.optional (builtins.pathExists qemu) qemu;

  networking.hostName = "glix-vm";
  users.users.root.initialHashedPassword = "";
  fileSystems."/" = lib.mkDefault { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.grub.enable = lib.mkDefault false;
  system.stateVersion = "26.05";
}
