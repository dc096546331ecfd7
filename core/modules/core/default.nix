# SPDX-License-Identifier: GPL-3.0-or-later
# Sane beginnings for any machine. Every value is a default: a plain definition in the host's files replaces it.
{
  imports = [
    ./boot.nix
    ./locale.nix
    ./networking.nix
    ./nix.nix
    ./users.nix
  ];
}
