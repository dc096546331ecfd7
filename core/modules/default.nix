# SPDX-License-Identifier: GPL-3.0-or-later
# The base of every host: exported as nixosModules.glixos and nixosModules.default.
{ lib, ... }:
{
  imports = [ ./core ];

  # A module written for glix evaluates without a manifest too.
  _module.args.glixConfig = lib.mkDefault { };
}
