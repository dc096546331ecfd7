# SPDX-License-Identifier: GPL-3.0-or-later
# No boot loader is chosen here: it depends on the machine.
{ lib, ... }:
{
  boot.loader.timeout = lib.mkDefault 3;
  boot.loader.systemd-boot.configurationLimit = lib.mkDefault 20;
  boot.loader.systemd-boot.editor = lib.mkDefault false;
  boot.tmp.cleanOnBoot = lib.mkDefault true;
}
