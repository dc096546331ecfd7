# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of package manifests on disk: as `init` writes them, as glix wrote them, and the examples."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.hermetic import (
    FIXTURES,
    PROJECT,
    copy_git_flake,
    core_url,
    home_manager_url,
    nixpkgs_url,
    write_files,
)

TEMPLATES: Final = PROJECT / "glixd" / "templates"
EXAMPLES: Final = PROJECT / "examples"
GLIX_STYLE: Final = FIXTURES / "glix-style"

_BEGIN_INPUTS: Final = "# >>> glix-managed inputs >>>\n"
_BEGIN_HOSTS: Final = "# >>> glix-managed hosts >>>\n"


@dataclass(frozen=True)
class Sources:
    """The flake references that stand in for what repositories take from the network."""

    nixpkgs: str
    core: str
    home_manager: str
    greeting: str
    hello: str

    @classmethod
    def make(cls, folder: Path) -> Sources:
        """Make a git repository below `folder` for each of them."""
        return cls(
            nixpkgs=nixpkgs_url(folder / "nixpkgs"),
            core=core_url(folder / "core"),
            home_manager=home_manager_url(folder / "home-manager"),
            greeting=copy_git_flake(EXAMPLES / "pkg-greeting", folder / "greeting"),
            hello=copy_git_flake(EXAMPLES / "pkg-hello", folder / "hello"),
        )

    def localise(self, text: str) -> str:
        """Replace the public references in a flake.nix or glix.toml."""
        for public, local in {
            "github:NixOS/nixpkgs/nixos-unstable": self.nixpkgs,
            "github:nix-community/home-manager": self.home_manager,
            "github:glixos/glixd?dir=examples/pkg-greeting": self.greeting,
            "github:glixos/glixd?dir=examples/pkg-hello": self.hello,
            "github:glixos/glixos": self.core,
            "github:glixos/glixd": self.core,
        }.items():
            text = text.replace(f'"{public}"', f'"{local}"')
        return text


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders of a template of `init`; values are strings that need no escaping.

    All but the block and the host, which stands in a comment, become strings in quotes.
    """
    text = (TEMPLATES / template).read_text()
    for name, value in values.items():
        text = text.replace(
            f"@{name}@", value if name in ("HOME_MANAGER_BLOCK", "HOST", "ARGUMENTS", "PROFILE") else f'"{value}"'
        )
    return text


def generated_flake(
    sources: Sources, *, inputs: Mapping[str, str], hosts: Mapping[str, str], home_manager: bool = True
) -> str:
    """Return a flake.nix as `init` and later additions leave it: inputs by name, and hosts with their platforms."""
    block = fill("home-manager.part", {"HOME_MANAGER_URL": sources.home_manager}) if home_manager else ""
    text = fill("flake.nix", {"HOME_MANAGER_BLOCK": block, "NIXPKGS_URL": sources.nixpkgs, "CORE_URL": sources.core})
    managed_inputs = "".join(
        f'    "{name}" = {{ url = "{url}"; inputs.nixpkgs.follows = "nixpkgs"; }};\n' for name, url in inputs.items()
    )
    managed_hosts = "".join(f'      "{host}" = mkHost "{host}" "{system}";\n' for host, system in hosts.items())
    text = text.replace(_BEGIN_INPUTS, _BEGIN_INPUTS + managed_inputs)
    return text.replace(_BEGIN_HOSTS, _BEGIN_HOSTS + managed_hosts)


def generated_host(host: str, system: str, *, user: str = "alice", packages: str = "") -> dict[str, str]:
    """Return the two files of a host as `init` writes them, with `packages` added to the manifest."""
    values = {"HOST": host, "SYSTEM": system, "USER": user, "STATE_VERSION": "25.05"}
    values |= {"ARGUMENTS": "{ lib, ... }", "PROFILE": ""}
    return {
        f"hosts/{host}/default.nix": fill("host.nix", values),
        f"hosts/{host}/glix.toml": fill("glix.toml", values) + packages,
    }


def localised_copy(source: Path, folder: Path, sources: Sources) -> None:
    """Copy a repository of manifests to `folder`, with the public references replaced."""
    shutil.copytree(source, folder)
    files = [folder / "flake.nix", *folder.glob("hosts/*/glix.toml")]
    write_files(folder, {str(path.relative_to(folder)): sources.localise(path.read_text()) for path in files})
