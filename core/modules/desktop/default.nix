# SPDX-License-Identifier: GPL-3.0-or-later
# A graphical machine: GNOME, sound, printing, Bluetooth and fonts. Every value is a default.
{ lib, options, ... }:
let
  # GNOME and its display manager left services.xserver in NixOS 25.11.
  gnome =
    if lib.hasAttrByPath [ "services" "desktopManager" "gnome" ] options then {
      desktopManager.gnome.enable = lib.mkDefault true;
      displayManager.gdm.enable = lib.mkDefault true;
    } else {
      xserver.desktopManager.gnome.enable = lib.mkDefault true;
      xserver.displayManager.gdm.enable = lib.mkDefault true;
    };
in
{
  services = lib.mkMerge [
    gnome
    {
      xserver.enable = lib.mkDefault true;
      pipewire.enable = lib.mkDefault true;
      pipewire.alsa.enable = lib.mkDefault true;
      pipewire.pulse.enable = lib.mkDefault true;
      printing.enable = lib.mkDefault true;
    }
  ];
  security.rtkit.enable = lib.mkDefault true;
  hardware.bluetooth.enable = lib.mkDefault true;
  fonts.enableDefaultPackages = lib.mkDefault true;
}
