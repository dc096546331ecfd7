# SPDX-License-Identifier: GPL-3.0-or-later
# Reads the `flake` field of a package: "nixpkgs#a.b" -> { source = "nixpkgs"; path = [ "a" "b" ]; }.
{ lib }:
let
  # The pieces of an attribute path; a piece in double quotes may hold dots: `a."b.c"` -> [ "a" "b.c" ].
  attributePath = fragment:
    let
      step = { done, piece }: token:
        if builtins.isString token then { inherit done; piece = piece + token; }
        else if builtins.head token != null then { inherit done; piece = piece + builtins.head token; }
        else { done = done ++ [ piece ]; piece = ""; };
      end = builtins.foldl' step { done = [ ]; piece = ""; } (builtins.split "\"([^\"]*)\"|\\." fragment);
    in
    if fragment == "" then [ ] else end.done ++ [ end.piece ];

  hostSources = [ "nixpkgs" "flake:nixpkgs" ];
  repositoryOfNixpkgs = "github:nixos/nixpkgs";
in
{
  parse = flake:
    let parts = builtins.match "([^#]*)(#(.*))?" flake; in
    {
      source = builtins.head parts;
      path = attributePath (let fragment = builtins.elemAt parts 2; in if fragment == null then "" else fragment);
    };

  # Does the reference mean an attribute of the host's own nixpkgs? glixd makes a flake input exactly where this says no:
  #   nixpkgs#ATTR               the host's, unless the package has a pin
  #   github:NixOS/nixpkgs#ATTR  likewise, and unless there is an input for it, which glixd makes where the
  #                              nixpkgs of the host is another repository
  isHostAttribute = { reference, hasPin, hasInput }:
    reference.path != [ ] && !hasPin
    && (lib.elem reference.source hostSources
    || (lib.toLower reference.source == repositoryOfNixpkgs && !hasInput));
}
