# The machine @HOST@: hardware, users and services. This file is yours; glixd never writes it again.
@ARGUMENTS@:
{
  # On the machine itself, write its hardware down beside this file and let git know it:
  #   nixos-generate-config --show-hardware-config > hardware-configuration.nix && git add hardware-configuration.nix
  imports = @PROFILE@lib.optional (builtins.pathExists ./hardware-configuration.nix) ./hardware-configuration.nix;

  # Placeholders, so that the configuration evaluates before the hardware is known: the machine boots with UEFI from a
  # disk labelled "nixos". Whatever hardware-configuration.nix says about "/" replaces the second one.
  boot.loader.systemd-boot.enable = lib.mkDefault true;
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };

  # No password is set here: until there is one, nobody can log in with it. Either run `passwd` as root, or keep the hash
  # in a file on the machine, outside this repository, where everyone who can read the repository cannot read it:
  #   mkpasswd > /etc/passwords/NAME        (then chmod 600; the file must exist before the first boot)
  #   users.users.NAME.hashedPasswordFile = "/etc/passwords/NAME";
  users.users.@USER@ = {
    isNormalUser = true;
    extraGroups = [ "wheel" "networkmanager" ];
  };

  # The release this machine was first installed with. It keeps stored data readable: leave it as it is on upgrades.
  system.stateVersion = @STATE_VERSION@;
}
