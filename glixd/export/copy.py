# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of root's that follows a branch of a repository that root does not trust.

Root never runs git in the repository: its configuration and its hooks are its owner's. Two commands do, as that owner,
and what they print is one object name and one pack, which `index-pack` checks before root's own git uses it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pwd import struct_passwd
from typing import IO, Any, Final, cast

REVISION: Final = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
REVISION_FILE: Final = ".glixd-revision"
"""The commit that the copy is; the core reads it where there is no git to say so."""
ENVIRONMENT: Final = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C.UTF-8",
}
GIT: Final = ("git", "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", "-c", "gc.auto=0")


class NotExported(Exception):
    """The copy could not be brought up to date; the message says why."""


@dataclass(frozen=True)
class Source:
    """The repository, read as its owner."""

    repository: Path
    branch: str
    owner: struct_passwd | None
    """Whom to be while reading it; nobody else than oneself where that is none."""

    def revision(self) -> str | None:
        """The newest commit of the branch; none when there is no branch yet."""
        done = self._git(["rev-parse", "--verify", "--quiet", f"refs/heads/{self.branch}^{{commit}}"])
        revision = done.stdout.strip()
        if done.returncode:
            return None
        if not REVISION.fullmatch(revision):
            raise NotExported(f"{self.repository} names no commit as {self.branch}.")
        return revision.decode()

    def pack(self, new: str, old: str | None, into: IO[bytes]) -> None:
        """Write what NEW has and OLD has not."""
        wanted = f"{new}\n" + (f"^{old}\n" if old else "")
        done = self._git(["pack-objects", "--revs", "--stdout", "--quiet"], input=wanted.encode(), stdout=into)
        if done.returncode:
            raise NotExported(f"{self.repository} can't be read: {_last(done.stderr)}")

    def _git(self, arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        identity: dict[str, Any] = {}
        if self.owner:
            identity = {"user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
        if "input" in options:
            del options["stdin"]
        return subprocess.run(
            [*GIT, "-C", os.fspath(self.repository), *arguments],
            cwd="/",
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            check=False,
            **identity,
            **options,
        )


@dataclass(frozen=True)
class Copy:
    """The files that people read, and root's repository of them, which is elsewhere.

    Were it in the same folder, nix would take the folder for a repository, and refuse everybody who does not own it.
    """

    place: Path
    history: Path
    branch: str

    def follow(self, source: Source) -> str | None:
        """Make this the newest commit of SOURCE; raises NotExported where that would lose something."""
        new = source.revision()
        if new is None:
            return None
        self._prepare()
        old = self._revision()
        if new != old:
            self._take(source, new, old)
            self._move(old, new)
        (self.place / REVISION_FILE).write_text(f"{new}\n")
        return new

    def _prepare(self) -> None:
        self.place.mkdir(exist_ok=True)
        empty = not any(self.place.iterdir())
        if self.history.exists() and not empty:
            return
        if not empty:
            raise NotExported(f"{self.place} has files that glixd did not put there. Move them away.")
        if self.history.exists():  # somebody moved the copy away
            shutil.rmtree(self.history)
        self._must("init", "--quiet", "--template=", f"--initial-branch={self.branch}")

    def _revision(self) -> str | None:
        done = self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{self.branch}")
        return None if done.returncode else done.stdout.decode().strip()

    def _take(self, source: Source, new: str, old: str | None) -> None:
        """Bring the commits here, checked, without a name."""
        command = self._command("index-pack", "--stdin", "--fix-thin", "--strict")
        with subprocess.Popen(
            command, cwd="/", env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as index:
            source.pack(new, old, cast(IO[bytes], index.stdin))
            said = index.communicate()[1]
        if index.returncode:
            raise NotExported(f"what {source.repository} holds is damaged: {_last(said)}")

    def _move(self, old: str | None, new: str) -> None:
        if old and self._git("merge-base", "--is-ancestor", old, new).returncode:
            raise NotExported(
                f"{new} does not build on {old}, which {self.place} has. Move {self.place} away to start anew."
            )
        # The files first: when this is interrupted, the next pass finds them as they should be.
        self._must("read-tree", "-m", "-u", *([old] if old else []), new)
        self._must("update-ref", f"refs/heads/{self.branch}", new, old or "0" * len(new))

    def _must(self, *arguments: str) -> None:
        done = self._git(*arguments)
        if done.returncode:
            raise NotExported(f"git {arguments[0]} for {self.place}: {_last(done.stderr)}")

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self._command(*arguments),
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def _command(self, *arguments: str) -> Sequence[str]:
        where = (f"--git-dir={self.history}", f"--work-tree={self.place}")
        return [*GIT, *where, "-C", os.fspath(self.place), *arguments]


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"
