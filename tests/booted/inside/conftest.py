# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is there, and a system repository with one host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from tests.booted.inside.machine import answer, drop_in, eventually, glixctl, journal, main_pid, run
from tests.support.repositories import Sources

PASSWORD: Final = "correct horse"
PEOPLE: Final = {"alice": ("wheel", "sudo", "nix-users"), "bob": ("nix-users",), "carol": ("nix-users",)}
"""alice administers the machine; bob and carol use it."""
HOST: Final = "machine"
RULE: Final = Path("/etc/polkit-1/rules.d/50-glixd-wheel.rules")


@pytest.fixture(scope="session", autouse=True)
def people() -> Iterator[None]:
    """The users of the machine. Their managers end with the scenarios: at a shutdown they would be waited for."""
    run("groupadd", "--force", "wheel")
    for name, groups in PEOPLE.items():
        run("useradd", "--create-home", "--shell", "/bin/bash", f"--groups={','.join(groups)}", name)
    Path("/etc/glixd/config.toml").write_text(f'host = "{HOST}"\n')
    run("chpasswd", input="".join(f"{name}:{PASSWORD}\n" for name in PEOPLE))
    yield
    run("systemctl", "stop", "user@*.service")


@pytest.fixture(scope="session", autouse=True)
def often() -> Iterator[None]:
    """Scenarios restart services more often than anybody does."""
    with ExitStack() as stack:
        for name in (
            "polkit.service",
            "dbus.service",
            "glixd.service",
            "glixd-eval@.service",
            "glixd-activate@.service",
        ):
            stack.enter_context(drop_in(name, "[Unit]\nStartLimitIntervalSec=0\n", file="often.conf"))
        yield


@pytest.fixture(scope="session")
def sources() -> Sources:
    """The flakes that stand in for the public ones. They are root's, and git is told of each that others may read it."""
    made = Sources.make(Path("/srv/sources"))
    for folder in Path("/srv/sources").iterdir():
        run("git", "config", "--system", "--add", "safe.directory", str(folder))
    return made


@pytest.fixture(scope="session")
def stranger(sources: Sources) -> Iterator[str]:
    """A flake that nobody vouched for, as an archive on a server."""
    archives = Path("/srv/archives")
    archives.mkdir()
    for name in ("hello", "greeting"):
        archive = (
            "git",
            "archive",
            "--format=tar.gz",
            f"--prefix={name}/",
            f"--output={archives / name}.tar.gz",
            "main",
        )
        run(*archive, cwd=f"/srv/sources/{name}")
    handler = partial(SimpleHTTPRequestHandler, directory=str(archives))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def repository(sources: Sources) -> Path:
    """The repository of the system, made by root through the daemon."""
    following = f"git+file://{sources.nixpkgs.removeprefix('git+file://').partition('?')[0]}?ref=main"
    words = ("--nixpkgs", following, "--core", sources.core, "--home-manager", sources.home_manager)
    glixctl("init", "--host", HOST, "--user", "bob", *words)
    return Path("/var/lib/glixd/repo")


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    """Each file of scenarios begins with a host that has no packages."""
    yield
    if Path("/var/lib/glixd/repo").exists() and shutil.which("glixctl"):
        eventually(_emptied, "a host without packages")


def _emptied() -> bool:
    names = [package["name"] for package in answer("list", "--all")["packages"]]
    if names:  # whatever a scenario that failed left under way may come first
        glixctl("remove", "--no-evaluate", *names, check=False)
    return not names


@pytest.fixture
def rule() -> Iterator[None]:
    """The optional rule, put in place as an administrator does it."""
    shutil.copy("/usr/share/glixd/polkit-rules/50-glixd-wheel.rules", RULE)
    run("systemctl", "restart", "polkit.service")
    yield
    RULE.unlink()
    run("systemctl", "restart", "polkit.service")


@pytest.fixture(autouse=True)
def daemon() -> Iterator[None]:
    """What the units said while a scenario ran is shown when it fails; the daemon is well before and after."""
    cursor = journal("--lines=1")[0]["__CURSOR"]
    run("systemctl", "start", "glixd.socket", "dbus.socket")
    yield
    said = ("_SYSTEMD_UNIT=glixd.service", "+", "UNIT=glixd.service", "+", "SYSLOG_IDENTIFIER=glixd-update")
    for entry in journal(*said, after=cursor):
        print(entry.get("MESSAGE"))
    assert main_pid() >= 0
