# SPDX-License-Identifier: GPL-3.0-or-later
"""The profiles as Nix reads them, and the machine to try things on."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixd.profiles import load
from tests.nix.conftest import nix_path
from tests.support.hermetic import MINI_NIXPKGS, PROJECT, HermeticNix, copy_git_flake, quoted

pytestmark = pytest.mark.nix

OVERRIDE = ("--override-input", "nixpkgs", f"path:{quoted(MINI_NIXPKGS)}", "--no-write-lock-file")
LIBRARY = f"(import {nix_path(PROJECT / 'core' / 'lib')} {{ lib = import {nix_path(MINI_NIXPKGS / 'lib.nix')}; }})"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_git_flake(
        PROJECT,
        tmp_path_factory.mktemp("project") / "repository",
        ("flake.nix", "core", "glixd", "nixos-module", "polkit"),
    )


def test_nix_and_python_read_the_same_profiles(nix: HermeticNix) -> None:
    read = nix.eval_json(f"builtins.mapAttrs (_: p: map baseNameOf p.modules) {LIBRARY}.profiles")
    assert read == {name: list(profile.modules) for name, profile in load().items()}


def test_a_profile_that_does_not_exist_is_refused_with_those_that_do(nix: HermeticNix) -> None:
    said = nix.eval_error(f'{LIBRARY}.profile "desktp"')
    assert "there is no profile 'desktp'. There are: " + ", ".join(sorted(load())) in said


def test_the_virtual_machine_evaluates(nix: HermeticNix, project: str) -> None:
    done = nix.nix("eval", "--raw", *OVERRIDE, f"{project}#nixosConfigurations.vm.config.system.build.toplevel.drvPath")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout).name.endswith(".drv")
    assert "nixos-system-glix-vm-" in done.stdout
