# SPDX-License-Identifier: GPL-3.0-or-later
# What both machines have in common. glixd never writes in this folder.
{ pkgs, ... }:
{
  time.timeZone = "Europe/London";
  environment.systemPackages = [ pkgs.git pkgs.tmux ];

  users.users.alice = {
    isNormalUser = true;
    extraGroups = [ "wheel" "networkmanager" ];
    # A hash that only the machine itself holds; nothing in this repository is a password.
    hashedPasswordFile = "/etc/passwords/alice";
  };
}
