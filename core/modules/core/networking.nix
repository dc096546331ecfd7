# SPDX-License-Identifier: GPL-3.0-or-later
{ lib, ... }:
{
  networking.networkmanager.enable = lib.mkDefault true;
  networking.firewall.enable = lib.mkDefault true;
}
