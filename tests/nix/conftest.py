# SPDX-License-Identifier: GPL-3.0-or-later
"""A nix, the stand-ins for public flakes, and a way to evaluate one manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.hermetic import PROJECT, HermeticNix, write_files
from tests.support.repositories import Sources


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HermeticNix]:
    """A nix of this session's own."""
    hermetic = HermeticNix(tmp_path_factory.mktemp("nix"))
    yield hermetic
    hermetic.remove()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Repositories that stand in for nixpkgs, home-manager, the core and two packages."""
    return Sources.make(tmp_path_factory.mktemp("sources"))


def nix_path(path: Path) -> str:
    """Return a path as a Nix expression, whatever characters are in it."""
    return f"(/. + {json.dumps(str(path))})"


@dataclass
class World:
    """A manifest, the inputs it may name, and what becomes of them."""

    nix: HermeticNix
    folder: Path
    inputs: dict[str, str] = field(default_factory=dict)
    """Nix expressions by input name; `world` is in scope."""

    def manifest(self, toml: str) -> None:
        """Write the manifest of the host."""
        write_files(self.folder, {"hosts/laptop/glix.toml": toml})

    def module(self, name: str, text: str) -> str:
        """Write a Nix file, and return its path as a Nix expression."""
        write_files(self.folder, {name: text})
        return nix_path(self.folder / name)

    def flake(self, name: str, outputs: str) -> None:
        """Give the manifest an input with these outputs."""
        self.inputs[name] = outputs

    def host(self, toml: str, arguments: str = "{ }") -> Any:
        """Evaluate the host of a manifest to plain data."""
        self.manifest(toml)
        return self.nix.eval_json(self.expression(arguments))

    def error(self, toml: str, arguments: str = "{ }") -> str:
        """Evaluate the host of a manifest that must be refused, and return the sentence."""
        self.manifest(toml)
        return self.refusal(self.expression(arguments))

    def refusal(self, expression: str) -> str:
        """Evaluate an expression that must be refused, and return the sentence."""
        lines = self.nix.eval_error(expression).splitlines()
        (sentence,) = {line.partition("glix: ")[2] for line in lines if "glix: " in line}
        return sentence

    def expression(self, arguments: str = "{ }", function: str = "host") -> str:
        """Return the Nix expression that evaluates the host."""
        inputs = " ".join(f'"{name}" = {outputs};' for name, outputs in self.inputs.items())
        path = nix_path(self.folder / "hosts/laptop/glix.toml")
        prelude = f"import {nix_path(PROJECT / 'tests/nix/world.nix')} {{ project = {nix_path(PROJECT)}; }}"
        return f"with {prelude}; {function} ({{ manifestPath = {path}; inputs = {{ {inputs} }}; }} // {arguments})"


@pytest.fixture
def world(nix: HermeticNix, tmp_path: Path) -> World:
    """An empty world."""
    return World(nix, tmp_path)
