# SPDX-License-Identifier: GPL-3.0-or-later
{ lib, ... }:
{
  nix.settings.experimental-features = lib.mkDefault [ "nix-command" "flakes" ];
  nix.settings.auto-optimise-store = lib.mkDefault true;
  # Channels and flakes side by side give one name two meanings.
  nix.channel.enable = lib.mkDefault false;
}
