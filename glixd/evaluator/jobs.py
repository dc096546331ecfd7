# SPDX-License-Identifier: GPL-3.0-or-later
"""What nix is asked to do: one frozen job, the line that carries it to another process, and the words for nix.

Whoever runs nix, in this process's own user or in another, runs it with the words from here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple
from urllib.parse import quote

LINE: Final = b"|"
"""What stands before each line of nix in an answer; the last line of the answer is JSON."""
LINE_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of the line that carries a job: an expression may ask for thousands of packages."""
PAYLOAD_LIMIT: Final = 1024 * 1024 * 1024
"""Bytes that come with a job."""
FEATURES: Final = ("--extra-experimental-features", "nix-command flakes")
UNTRUSTING: Final = ("--option", "accept-flake-config", "false")
"""A flake's own settings don't count, ever."""
GUARDED: Final = (*UNTRUSTING, "--option", "allow-import-from-derivation", "false")
"""Nothing is built while something is only looked at."""
TIMEOUT: Final = 1800
"""Seconds that locking or evaluating may take."""
BUILD_TIMEOUT: Final = 48 * 3600

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?", re.ASCII)


class Kind(StrEnum):
    """The kinds of jobs."""

    LOCK = "lock"
    """Write the flake.lock of the files that come along; the output is its text."""
    EXPRESSION = "expression"
    """Evaluate an expression in which `flake` is the repository at a commit; the output is JSON."""
    EVALUATE = "evaluate"
    """Evaluate the system of a host, or the home of a user on it; the output is its derivation."""
    BUILD = "build"
    """Build the system of a host, or the home of a user on it; the output is what `nix build --json` says. See `memory`."""


class Job(NamedTuple):
    """One thing to do for nix."""

    kind: Kind
    commit: str = ""
    host: str = ""
    user: str = ""
    """Whose home is meant; without one, the system of the host."""
    body: str = ""
    """The expression."""
    dry_run: bool = False
    """Only say what would be built and fetched."""
    keep_going: bool = False
    """Build what can be built after something failed."""
    memory: int = 0
    """Bytes of heap, where it is less than what is allowed anyway."""
    timeout: float = 0.0
    """Seconds, where it is less than what is allowed anyway."""
    background: bool = False
    """Yield to everything else."""

    @classmethod
    def parse(cls, value: Any) -> Job:
        """A job that was sent; raises ValueError with a reason."""
        if not isinstance(value, dict):
            raise ValueError("a job is an object")
        kinds = {name: type(default) for name, default in cls._field_defaults.items()}
        unknown = sorted(value.keys() - {"kind", *kinds})
        if unknown:
            raise ValueError(f"a job has no {unknown[0]!a}")
        for name, kind in kinds.items():
            if name in value and type(value[name]) is not kind:
                raise ValueError(f"{name} is of another type")
        job = cls(**{**value, "kind": Kind(str(value.get("kind")))})
        job.check()
        return job

    def check(self) -> None:
        """Refuse what does not fit together; raises ValueError."""
        if self.kind is Kind.LOCK:
            return
        if not _COMMIT.fullmatch(self.commit):
            raise ValueError("commit is no commit")
        if self.kind in (Kind.EVALUATE, Kind.BUILD) and not _HOST.fullmatch(self.host):
            raise ValueError("host is no host")
        if self.user and not _USER.fullmatch(self.user):
            raise ValueError("user is no user")
        if self.memory < 0 or self.timeout < 0:
            raise ValueError("a limit is below zero")

    def value(self) -> dict[str, Any]:
        """The job as it is sent."""
        return self._asdict()

    @property
    def root(self) -> str:
        """The name of the link that keeps what was built alive: the newest of each host and home."""
        return f"home-{self.user}@{self.host}" if self.user else f"host-{self.host}"

    @property
    def streams(self) -> bool:
        """Whether each line of nix is passed on when it comes."""
        return self.kind is Kind.BUILD

    def words(self, place: str, link: str | None = None) -> list[str]:
        """The command line: `place` is the URL of the flake, or the folder of the files to lock.

        With `link`, what was built is kept alive by that link.
        """
        nix = ["nix", *FEATURES]
        match self.kind:
            case Kind.LOCK:
                return [*nix, *UNTRUSTING, "flake", "lock", f"path:{quote(place)}"]
            case Kind.EXPRESSION:
                expression = f"let flake = builtins.getFlake {_quoted(place)}; in {self.body}"
                return [*nix, *GUARDED, "eval", "--json", "--expr", expression]
            case Kind.EVALUATE:
                return [*nix, *GUARDED, "eval", "--raw", "--", f"{place}#{self._attribute()}.drvPath"]
            case Kind.BUILD:
                how = ["--dry-run"] if self.dry_run else []
                how += ["--keep-going"] if self.keep_going else []
                how += ["--out-link", link] if link and not self.dry_run else ["--no-link"]
                log = ["--log-format", "internal-json"]
                return [*nix, *UNTRUSTING, "build", "--json", *log, *how, "--", f"{place}#{self._attribute()}"]

    def _attribute(self) -> str:
        config = f"nixosConfigurations.{_quoted(self.host)}.config"
        if self.user:
            return f"{config}.home-manager.users.{_quoted(self.user)}.home.activationPackage"
        return f"{config}.system.build.toplevel"


class File(NamedTuple):
    """A file that comes with a job: its relative path, git's mode, and its size."""

    path: str
    mode: str
    size: int

    @classmethod
    def parse(cls, value: Any) -> File:
        """A file as it was sent; raises ValueError for a path that leads elsewhere."""
        path, mode, size = value
        if not (isinstance(path, str) and isinstance(size, int) and mode in ("100644", "100755", "120000")):
            raise ValueError("a file is a path, a mode and a size")
        parts = path.split("/")
        if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{path!a} is no path below a folder")
        if not 0 <= size <= PAYLOAD_LIMIT:
            raise ValueError("a file is too large")
        return cls(path, mode, size)


def request_line(job: Job, files: Sequence[File], pack: int) -> bytes:
    """The line that carries a job; the bytes of its files, or of its pack, come behind it."""
    value = {"job": job.value(), "files": [(file.path, file.mode, file.size) for file in files], "pack": pack}
    return json.dumps(value).encode() + b"\n"


def parse_request(line: bytes) -> tuple[Job, list[File], int]:
    """The job of a line, its files and the size of its pack; raises ValueError."""
    value = json.loads(line)
    if not isinstance(value, dict) or value.keys() != {"job", "files", "pack"}:
        raise ValueError("a request has a job, files and a pack")
    pack = value["pack"]
    if type(pack) is not int or not 0 <= pack <= PAYLOAD_LIMIT:
        raise ValueError("the pack has no size")
    files = [File.parse(entry) for entry in value["files"]]
    if sum(file.size for file in files) > PAYLOAD_LIMIT:
        raise ValueError("the files are too large")
    return Job.parse(value["job"]), files, pack


def _quoted(text: str) -> str:
    """A Nix string; nothing that comes here may need an escape."""
    if any(character in text for character in '"\\$') or not text.isprintable():
        raise ValueError(f"{text!a} can't be quoted")
    return f'"{text}"'
