# SPDX-License-Identifier: GPL-3.0-or-later
# Which users there are, and their passwords, is for the host's own files to say.
{ lib, ... }:
{
  users.mutableUsers = lib.mkDefault true;
  security.sudo.wheelNeedsPassword = lib.mkDefault true;
}
