# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: repositories of a given size, with a daemon on each, and programs that are timed as a whole."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.daemon import RunningDaemon, Site, Template, glixctl_command, new_site
from tests.support.hermetic import HermeticNix, commit_all, write_files
from tests.support.repositories import Sources, generated_host

MANIFEST: Final = "hosts/laptop/glix.toml"
QUIET: Final = {"GLIXD_INDEX": "false"}
"""No work in the background beside what is measured."""


@dataclass(frozen=True)
class World:
    """Where everything is made."""

    folder: Path
    nix: HermeticNix
    sources: Sources
    template: Template

    @classmethod
    def make(cls, folder: Path) -> World:
        """Make a nix, the stand-ins for public flakes, and a repository to copy."""
        nix = HermeticNix(folder / "nix")
        sources = Sources.make(folder / "sources")
        with redirect_stdout(io.StringIO()):  # the log of the daemon that makes it
            return cls(folder, nix, sources, Template.make(folder / "template", nix, sources))

    @contextmanager
    def site(self, name: str, *, packages: int = 0, hosts: int = 1, commits: int = 0) -> Iterator[Site]:
        """A home with a repository of that size; disabled packages, so that evaluating it stays what it is for few."""
        with new_site(self.folder / name, self.nix, self.template) as site:
            tables = "".join(
                f'\n[packages.package-{number:05}]\nflake = "nixpkgs#hello"\nenabled = false\n'
                for number in range(packages)
            )
            files = {MANIFEST: (site.repository / MANIFEST).read_text() + tables}
            for number in range(1, hosts):
                files |= generated_host(f"host-{number:04}", "x86_64-linux")
            write_files(site.repository, files)
            commit_all(site.repository, "Fill")
            _lengthen(site, commits)
            yield site

    @contextmanager
    def daemon(
        self,
        name: str,
        *,
        packages: int = 0,
        hosts: int = 1,
        commits: int = 0,
        bus: str = "none",
        extra: Mapping[str, str] | None = None,
    ) -> Iterator[RunningDaemon]:
        """A daemon on such a repository, with its regions written."""
        with (
            self.site(name, packages=packages, hosts=hosts, commits=commits) as site,
            running(RunningDaemon(site, bus=bus, extra={**QUIET, **(extra or {})})) as daemon,
        ):
            daemon.run("Regenerate", evaluate=False)
            yield daemon


def _lengthen(site: Site, commits: int) -> None:
    """Put so many commits on the branch that change a manifest there and back, and leave it as it was."""
    if commits < 2:
        return
    text = site.read(MANIFEST).encode()
    stream = bytearray()
    for number in range(commits // 2 * 2):
        data = text + b"# there\n" if number % 2 == 0 else text
        stream += b"commit refs/heads/main\ncommitter Bench <bench@localhost> %d +0000\n" % (1_700_000_000 + number)
        stream += b"data 6\nChange\n" + (b"from refs/heads/main^0\n" if number == 0 else b"")
        stream += b"M 100644 inline %s\ndata %d\n%s\n" % (MANIFEST.encode(), len(data), data)
    command = ["git", "-C", os.fspath(site.repository), "fast-import", "--quiet"]
    subprocess.run(command, input=bytes(stream), check=True)


@contextmanager
def running(daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """A daemon that is started and ended, and of which the log is not printed."""
    daemon.start()
    try:
        yield daemon
    finally:
        with redirect_stdout(io.StringIO()):
            daemon.__exit__(*sys.exc_info())


def timed(argv: Sequence[str], environment: Mapping[str, str], *, cwd: Path | None = None, status: int = 0) -> float:
    """Run a whole process, and return the seconds it took; it must end with `status`."""
    began = time.perf_counter()
    done = subprocess.run(
        argv, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=600
    )
    took = time.perf_counter() - began
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return took


class Client:
    """`glixctl` of a site, run as a whole process each time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._environment = site.environment(QUIET)

    def __call__(self, *arguments: str) -> float:
        """The seconds that one command takes."""
        return timed(glixctl_command(*arguments), self._environment, cwd=self._site.home)


def bare_python(environment: Mapping[str, str]) -> float:
    """The floor of every client: an interpreter that starts and ends, the one that glixctl runs in.

    Not the one that its virtual environment was made from: there a machine may have whatever it likes start along.
    """
    return timed([sys.executable, "-I", "-c", "pass"], environment)


class CommitOnly:
    """The floor of every mutation: one `git commit --only` of the files that it would touch, in a repository alike."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._folder = folder
        subprocess.run(["cp", "-a", os.fspath(site.repository), os.fspath(folder)], check=True)
        self._number = 0
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(site.home),
            **{f"GIT_{who}_{what}": "bench@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def __call__(self) -> float:
        """The seconds that one takes."""
        self._number += 1
        with (self._folder / MANIFEST).open("a") as manifest:
            manifest.write(f"# {self._number}\n")
        words = ["git", "-c", "gc.auto=0", "commit", "--quiet", "--message", "Change", "--only", "--", MANIFEST]
        return timed(words, self._environment, cwd=self._folder)
