# SPDX-License-Identifier: GPL-3.0-or-later
# The programs, with the units, policies and manuals that go with them.
#
# Versions come from nixpkgs; the bus library alone has to be the exact release that glixd was hardened for.
{ lib, python3Packages, src, commit ? "unknown" }:
let
  # The version is written once, in the module that both sides of the wire share.
  version = builtins.head (builtins.match ".*\nVERSION[^\n\"]*\"([^\"]+)\".*" (builtins.readFile ../glixd/protocol.py));
in
python3Packages.buildPythonApplication {
  pname = "glixd";
  inherit version src;
  pyproject = true;
  postPatch = ''
    substituteInPlace glixd/protocol.py --replace-fail 'COMMIT: Final = "unknown"' 'COMMIT: Final = "${commit}"'
  '';
  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [
    dbus-next
    pydantic
    rfc8785
    structlog
    (python3Packages.systemd-python or systemd)
    tomlkit
  ];
  postInstall = ''
    sh nixos-module/install-files "$out" "$out/bin"
  '';
  # The suite needs a bus, a git and a nix of its own; ./check runs it.
  doCheck = false;
  pythonImportsCheck = [ "glixd.protocol" "glixctl" ];
  meta = {
    description = "NixOS package daemon with D-Bus and JSON-RPC interfaces, and its command line client";
    license = lib.licenses.gpl3Plus or { spdxId = "GPL-3.0-or-later"; };
    platforms = [ "x86_64-linux" "aarch64-linux" ];
    mainProgram = "glixctl";
  };
}
