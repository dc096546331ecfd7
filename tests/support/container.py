# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Debian that boots in a container: a real systemd, bus, polkit, logind and nix, made once and kept in .cache.

What is kept is never written to afterwards: every boot has a layer of its own on top, which is gone with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.hermetic import PROJECT

CACHE: Final = PROJECT / ".cache" / "machine"
SUITE: Final = "trixie"
PYTHON: Final = "3.13"
"""What Debian calls python3 in that suite."""
PACKAGES: Final = (
    *(
        "systemd",
        "systemd-sysv",
        "libpam-systemd",
        "dbus",
        "dbus-user-session",
        "dbus-broker",
        "polkitd",
        "pkexec",
        "procps",
    ),
    *("git", "ca-certificates", "python3", "python3-venv"),
    *("gcc", "libc6-dev", "pkg-config", "libsystemd-dev", "python3-dev"),
)
AFTERWARDS: Final = ("nix-bin", "nix-setup-systemd", "openssh-server")
"""Their scripts need a finished system."""
INSTALLED: Final = (
    "glixd",
    "glixctl",
    "nixos-module",
    "polkit",
    "docs/man",
    "scripts/install-system",
    "pyproject.toml",
)
"""What an installation is made from, beside the locks."""
LOCKS: Final = ("requirements-build.lock", "requirements.lock")
PLATFORMS: Final = ("manylinux_2_17", "manylinux2014", "manylinux_2_28", "manylinux_2_34")
PURE: Final = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")
"""What pytest consists of; none of it is compiled, so any Python can import it."""
NSPAWN: Final = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network")


class MachineError(Exception):
    """The machine could not be made or did not boot; the message is the end of what was said."""


@dataclass(frozen=True)
class Image:
    """The folders that a boot starts from."""

    root: Path
    """A Debian."""
    layer: Path
    """What the installation of this checkout adds to it."""
    wheels: Path
    pytest: Path


def installed() -> Image:
    """A machine with this checkout installed; made first where there is none for what it is made from."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        system = _digest(SUITE, *PACKAGES, *AFTERWARDS, _TEST_UNIT, _NIX_CONF)
        root = _kept("root", system, _make_root)
        locks = _digest(system, *((PROJECT / name).read_text() for name in LOCKS))
        wheels = _kept("wheels", locks, _make_wheels)
        layer = _kept("layer", _digest(locks, *_digests(INSTALLED)), _make_layer)
        return Image(root, layer, wheels, _kept("pytest", _digest(PYTHON, *PURE, *_pytest_versions()), _make_pytest))


def _layered(layer: Path, *, volatile: bool) -> list[str]:
    """The words that start a container on the Debian with a layer over it; the mount and the processes end with it."""
    work, merged = CACHE / "work", CACHE / "merged"
    for folder in (layer, work, merged):
        folder.mkdir(exist_ok=True)
    options = f"lowerdir={CACHE / 'root'},upperdir={layer},workdir={work}"
    if volatile:
        options = f"lowerdir={layer}:{CACHE / 'root'}"
    mount = 'mount -t overlay overlay -o "$1" "$2" && shift 2 && exec "$@"'
    return [
        # In a process namespace of its own: when this is killed, so is the whole machine.
        *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", "-euc", mount, "layered", options, os.fspath(merged)),
        *(*NSPAWN, f"--directory={merged}", *(["--volatile=overlay"] if volatile else [])),
        f"--bind-ro={PROJECT}:/checkout",
    ]


def boot(image: Image, script: str, shared: Path, *arguments: str, limit: float = 1000) -> int:
    """Boot, run SCRIPT as root when everything is up, and return its exit status; SHARED is /shared in the machine."""
    (shared / "run").write_text(script)
    (shared / "system.conf").write_text(_PATIENCE)
    command = [
        *_layered(image.layer, volatile=True),
        "--console=read-only",
        f"--bind={shared}:/shared",
        f"--bind-ro={shared / 'system.conf'}:/etc/systemd/system.conf.d/tests.conf",
        f"--bind-ro={image.wheels}:/wheels",
        f"--bind-ro={image.pytest}:/pytest",
        *arguments,
        "--boot",
        "systemd.unit=glix-test.service",
        "systemd.log_target=console",
    ]
    with (shared / "console.log").open("wb") as console:
        return subprocess.run(
            command,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        ).returncode


# -- making ---------------------------------------------------------------------------------------------------------

_TEST_UNIT: Final = """\
[Unit]
Description=Run the scenarios, then leave with their exit status
Wants=multi-user.target dbus.socket
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
ExecStart=/bin/bash /shared/run
StandardOutput=append:/shared/log
StandardError=inherit
"""
_PATIENCE: Final = """\
[Manager]
DefaultTimeoutStopSec=5s
"""
"""How long a program is waited for that does not end: nothing of a test is lost with it."""
_NIX_CONF: Final = """\
experimental-features = nix-command flakes
sandbox = false
substituters =
flake-registry =
"""


def _make_root(folder: Path) -> None:
    _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, os.fspath(folder), *_mirror())
    _run(
        *("chroot", os.fspath(folder), "env", "DEBIAN_FRONTEND=noninteractive"),
        *("apt-get", "install", "-y", "--no-install-recommends", *AFTERWARDS),
    )
    (folder / "etc/systemd/system/glix-test.service").write_text(_TEST_UNIT)
    (folder / "etc/nix/nix.conf").write_text(_NIX_CONF)
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    # Both buses are installed; a boot chooses the broker by putting its unit over this name.
    (folder / "etc/systemd/system/dbus.service").unlink(missing_ok=True)
    for path in folder.glob("etc/systemd/system/*.wants/dbus-broker.service"):
        path.unlink()
    shutil.rmtree(folder / "var/cache/apt/archives")


def _mirror() -> Sequence[str]:
    """Where this machine takes its Debian packages from; debootstrap's own default where that is not known."""
    formatted = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian")
    found = subprocess.run(formatted, capture_output=True, text=True, check=False).stdout.split()
    return found[:1]


def _make_wheels(folder: Path) -> None:
    """Fetch what the locks list here, where the index is known, and compile in the machine, where the compiler fits."""
    folder.mkdir()
    fetched = folder / "fetched"
    sources = ("systemd-python",)
    target = [
        "--python-version",
        PYTHON,
        "--implementation",
        "cp",
        "--abi",
        f"cp{PYTHON.replace('.', '')}",
        "--abi",
        "none",
    ]
    for name in PLATFORMS:
        target += ["--platform", f"{name}_{platform.machine()}"]
    for lock in LOCKS:
        binary, source = _split_lock((PROJECT / lock).read_text(), sources)
        for part, options in ((binary, [*target, "--only-binary=:all:"]), (source, ["--no-build-isolation"])):
            if part:
                (folder / "part.lock").write_text(part)
                pip = (sys.executable, "-m", "pip", "--quiet", "download", "--require-hashes", "--no-deps")
                _run(*pip, *options, "--dest", os.fspath(fetched), "-r", os.fspath(folder / "part.lock"))
    (folder / "part.lock").unlink()
    root = CACHE / "root"
    _run(
        *(
            *NSPAWN,
            f"--directory={root}",
            "--volatile=overlay",
            f"--bind={folder}:/wheels",
            f"--bind-ro={PROJECT}:/checkout",
        ),
        *("--setenv=PIP_NO_INDEX=1", "--setenv=PIP_FIND_LINKS=/wheels/fetched"),
        *("/checkout/scripts/install-system", "--make-wheels", "/wheels"),
    )
    shutil.rmtree(fetched)


def _make_layer(folder: Path) -> None:
    """Install this checkout as an administrator would."""
    command = ("/checkout/scripts/install-system", "--wheels", "/wheels", "--no-start")
    _run(*_layered(folder, volatile=False), f"--bind-ro={CACHE / 'wheels'}:/wheels", *command)


def _digests(names: Sequence[str]) -> list[str]:
    """What the installer reads of the checkout, by content."""
    paths = sorted(path for name in names for path in (PROJECT / name, *(PROJECT / name).rglob("*")) if path.is_file())
    return [f"{path}{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths if path.suffix != ".pyc"]


def _split_lock(text: str, names: Sequence[str]) -> tuple[str, str]:
    """The requirements of a lock, hashes included: those of other names, those of these."""
    parts: tuple[list[str], list[str]] = ([], [])
    chosen = parts[0]
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            chosen = parts[line.partition("==")[0] in names]
        if not line.lstrip().startswith("#"):
            chosen.append(line)
    return "\n".join(parts[0]).strip(), "\n".join(parts[1]).strip()


def _pytest_versions() -> list[str]:
    return sorted(path.name for name in PURE for path in _site().glob(f"{name}-*.dist-info"))


def _site() -> Path:
    return Path(pytest.__file__).parent.parent


def _make_pytest(folder: Path) -> None:
    folder.mkdir()
    for name in PURE:
        if name.endswith(".py"):
            shutil.copy(_site() / name, folder)
        elif (_site() / name).is_dir():
            shutil.copytree(_site() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _pytest_versions():
        shutil.copytree(_site() / name, folder / name)


def _kept(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made anew when what it is made from has changed."""
    folder, stamp = CACHE / name, CACHE / f"{name}.made-for"
    if folder.is_dir() and stamp.is_file() and stamp.read_text() == key:
        return folder
    stamp.unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    make(folder)
    stamp.write_text(key)
    return folder


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MachineError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
