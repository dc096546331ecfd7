# SPDX-License-Identifier: GPL-3.0-or-later
"""What ./demo needs beside a shell: a world of its own, the daemon's process id, and a server that never answers.

demo_world.py make FOLDER      a nix without network and stand-ins for public flakes; prints them as shell variables
demo_world.py daemon SOCKET    the process id of whoever listens there
demo_world.py silence FOLDER   listens on 127.0.0.1; FOLDER/port says where, FOLDER/asked appears with the first request
"""

from __future__ import annotations

import os
import shlex
import socket
import struct
import sys
from pathlib import Path

from tests.support.hermetic import HermeticNix, core_url, home_manager_url, nixpkgs_url


def make(folder: Path) -> None:
    """Make the world below FOLDER and print its variables."""
    nix = HermeticNix(folder / "nix")
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    exported = {**nix.environment(), "XDG_RUNTIME_DIR": str(runtime), "LC_ALL": "C.UTF-8", "TMPDIR": str(folder)}
    sources = {
        "NIXPKGS": nixpkgs_url(folder / "nixpkgs"),
        "CORE": core_url(folder / "core"),
        "HOME_MANAGER": home_manager_url(folder / "home-manager"),
    }
    for name, value in exported.items():
        print(f"export {name}={shlex.quote(value)}")
    for name, value in sources.items():
        print(f"{name}={shlex.quote(value)}")


def daemon(path: Path) -> None:
    """Print who listens on the Unix socket PATH, as the kernel says it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    print(pid)


def silence(folder: Path) -> None:
    """Accept one request after the other, answer none, and say in FOLDER when the first one came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        _tell(folder / "port", str(server.getsockname()[1]))
        while True:
            connection, _ = server.accept()
            with connection:
                while words := connection.recv(4096):
                    _tell(folder / "asked", words.decode(errors="replace"))
            _tell(folder / "left", "")


def _tell(path: Path, text: str) -> None:
    """Write a file that is either absent or complete."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text)
    os.replace(unfinished, path)


if __name__ == "__main__":
    {"make": make, "daemon": daemon, "silence": silence}[sys.argv[1]](Path(sys.argv[2]))
