# SPDX-License-Identifier: GPL-3.0-or-later
"""The units are understood by systemd, leave as little open as was promised, and start programs that there are."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.support.hermetic import PROJECT

UNITS: Final = PROJECT / "nixos-module" / "systemd"
SERVICES: Final = sorted(path.name for path in UNITS.glob("*.service"))
EXPOSURE: Final = {
    "glixd.service": 1.5,
    "glixd-eval@.service": 1.5,
    "glixd-export.service": 1.5,
    "glixd-activate@.service": 2.5,
    "glixd-update.service": 1.5,
}
"""The most that systemd may say a service is exposed; 10 is a service without any confinement."""
OVERALL: Final = re.compile(r"Overall exposure level for \S+: ([0-9.]+) ")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The files as they are installed, with a file that can be run for each program."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    command = [PROJECT / "nixos-module" / "install-files", tmp_path / "usr", programs]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "usr"


def _verify(*units: Path, user: bool = False) -> str:
    command = ["systemd-analyze", "verify", "--man=no", *(["--user"] if user else []), *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "glixd" in line]
    return "\n".join(said) or ("" if done.returncode == 0 or user else done.stderr)


def _exposure(unit: Path, most: float) -> tuple[float, bool]:
    """What systemd calls the exposure of a unit, and whether it is no more than that."""
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={most * 10:.0f}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = OVERALL.search(done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1)), done.returncode == 0


def test_systemd_understands_every_unit(installed: Path) -> None:
    units = sorted((installed / "lib/systemd/system").iterdir())
    assert len(units) >= 8
    assert _verify(*units) == ""


def test_systemd_understands_every_unit_of_users(installed: Path) -> None:
    assert _verify(*sorted((installed / "lib/systemd/user").iterdir()), user=True) == ""


def test_a_unit_that_systemd_does_not_understand_is_noticed(installed: Path) -> None:
    unit = installed / "lib/systemd/system/glixd.service"
    text = unit.read_text()
    unit.write_text(text.replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in _verify(unit)
    unit.write_text(text.replace("bin/glixd ", "bin/glixd-is-not-there "))
    assert "not executable" in _verify(unit)


def test_every_service_has_a_limit_to_its_exposure() -> None:
    assert set(SERVICES) == set(EXPOSURE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_no_more_than_was_promised(name: str, installed: Path) -> None:
    exposure, kept = _exposure(installed / "lib/systemd/system" / name, EXPOSURE[name])
    print(f"{name}: {exposure}")
    assert kept, f"{name} is exposed {exposure}, and the limit is {EXPOSURE[name]}"


@pytest.mark.parametrize("name", ["glixd.service", "glixd-eval@.service"])
@pytest.mark.parametrize("lost", ["CapabilityBoundingSet=", "SystemCallFilter=@system-service", "User=.*"])
def test_a_service_that_loses_its_confinement_is_noticed(name: str, lost: str, installed: Path) -> None:
    unit = installed / "lib/systemd/system" / name
    text = unit.read_text()
    weaker = re.sub(rf"^{lost}$", "", text, flags=re.MULTILINE)
    assert weaker != text
    unit.write_text(weaker)
    _, kept = _exposure(unit, EXPOSURE[name])
    assert not kept


def test_every_program_of_a_unit_is_one_of_the_project() -> None:
    programs = set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"])
    started = {
        name
        for path in (PROJECT / "nixos-module").rglob("*.service")
        for name in re.findall(r"@bin@/(\S+)", path.read_text())
    }
    assert started <= programs
    assert "glixd" in started


def test_every_file_of_the_module_is_installed(installed: Path) -> None:
    files = [path.name for path in installed.rglob("*") if path.is_file()]
    nix = {"default.nix", "package.nix", "install-files"}
    for path in (PROJECT / "nixos-module").rglob("*"):
        if path.is_file() and path.name not in nix:
            assert path.name in files, f"install-files leaves {path} out"
    for path in (PROJECT / "polkit").iterdir():
        assert path.name in files


def test_no_placeholder_is_left_in_an_installed_file(installed: Path) -> None:
    for path in installed.rglob("*"):
        assert not path.is_file() or "@bin@" not in path.read_text()


def test_the_bus_policy_is_for_the_interfaces_that_there_are() -> None:
    policy = (PROJECT / "nixos-module/dbus/org.glixos.Glix1.conf").read_text()
    interfaces = re.findall(r'<allow send_destination="org.glixos.Glix1" send_interface="([^"]+)"', policy)
    own = {name for name in interfaces if name.startswith("org.glixos.")}
    assert own == {path.stem for path in (PROJECT / "docs/reference").glob("org.glixos.*.xml")}
