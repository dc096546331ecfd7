# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder such as /etc/nixos that becomes a host: which of its files say what the machine is, and what is written beside them.

The caller sends the files; no path of a caller is ever opened. They are kept byte for byte below hosts/<host>/, and two more
come to them: a default.nix that imports them, and an empty manifest that keeps the core's defaults out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from glixd.errors import Refused, invalid
from glixd.model.lockfile import LockFile
from glixd.model.nixtext import nix_string
from glixd.protocol import ErrorCode

CONFIGURATION: Final = "configuration.nix"
FLAKE: Final = "flake.nix"
LOCK: Final = "flake.lock"
OURS: Final = ("default.nix", "glix.toml")
"""Files of the host's folder that glixd writes itself."""

_MANIFEST: Final = """\
# The packages of this machine. Change them with glixctl, or edit this file: the next glixctl command takes the edit over.
# Comments and the order of the entries are kept.
schema = 1

[settings]
core_modules = false # the machine was taken over as it was: none of glixos-core's defaults
system = {system}
primary_user = {user} # whose home a package of scope "home" goes to
"""
_OF_FILES: Final = """\
# The machine {host}, taken over as it was: what it is stands in the files beside this one, which are yours.
{{
  imports = [ ./configuration.nix ];
}}
"""
_OF_FLAKE: Final = """\
# The machine {host}, taken over from a flake as it was: flake.nix and the files beside it are yours. Its modules are taken
# from there; its inputs are those of the repository.
{{ inputs, ... }}:
let
  # What flake.nix gives to nixosSystem, instead of the system that it makes of it.
  nixpkgs = inputs.nixpkgs // {{ lib = inputs.nixpkgs.lib // {{ nixosSystem = arguments: arguments; }}; }};
  flake = import ./flake.nix;
  asks = (flake.inputs or {{ }}) // builtins.functionArgs flake.outputs // {{ self = null; }};
  given = inputs // {{ inherit nixpkgs; self = outputs // {{ outPath = ./.; }}; }};
  outputs = flake.outputs (builtins.intersectAttrs asks given);
  machines = outputs.nixosConfigurations;
in
{{
  imports = (machines.{attribute} or (builtins.head (builtins.attrValues machines))).modules;
}}
"""


def entry_of(files: Mapping[str, str]) -> str:
    """The file that says what the machine is: flake.nix, else configuration.nix; raises InvalidArgument where there is none."""
    for name in (FLAKE, CONFIGURATION):
        if name in files:
            return name
    raise invalid(
        "files", f"there is neither {CONFIGURATION} nor {FLAKE} among them", hint="Name a folder such as /etc/nixos."
    )


def host_files(host: str, user: str, system: str, files: Mapping[str, str]) -> dict[str, str]:
    """Every file of the host's folder, by path; raises Conflict where one of them would be another of glixd's own."""
    for name in OURS:
        if name in files:
            raise Refused(
                f"The folder has a {name}, and hosts/{host}/{name} is a file of glixd.",
                hint="Give it another name in the folder and where it is imported, then try again.",
                details={"path": name},
            )
    template = _OF_FLAKE if entry_of(files) == FLAKE else _OF_FILES
    made = {
        "default.nix": template.format(host=host, attribute=nix_string(host)),
        "glix.toml": _MANIFEST.format(user=nix_string(user), system=nix_string(system)),
    }
    return {f"hosts/{host}/{name}": text for name, text in {**files, **made}.items()}


def nixpkgs_of(files: Mapping[str, str]) -> str | None:
    """What the folder's own flake asks for as nixpkgs."""
    found = LockFile.parse(files.get(LOCK)).inputs.get("nixpkgs")
    return found.url if found else None


def differs(host: str) -> Refused:
    """The refusal of a machine that would become another one."""
    return Refused(
        f"{host} would become another system than the folder describes, so it was not taken over.",
        code=ErrorCode.CONFLICT,
        hint="Look for what depends on where the files are (such as ./. as a whole) or on glixos-core; update an old core "
        "with: glixctl update glixos-core",
        details={"host": host},
    )
