# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder for one job, gone when the job is: the files to lock, or a repository that holds one commit.

A folder whose owner was killed is removed by the next one; the lock on it tells them apart.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from glixd.evaluator.jobs import File

PREFIX: Final = "job-"
GIT: Final = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
CHUNK: Final = 1024 * 1024

Read = Callable[[int], bytes]
"""Takes so many bytes from the connection, or fewer at its end."""


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder of one's own below `parent`."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_left(parent)
    folder, descriptor = _own_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def write_files(folder: Path, files: Sequence[File], read: Read) -> None:
    """Write the files that come over a connection; none is ever written through a link."""
    links = []
    for file in files:
        data = b"".join(exactly(read, file.size))
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == "120000":
            links.append((target, data))
            continue
        target.write_bytes(data)
        target.chmod(0o755 if file.mode == "100755" else 0o644)
    for target, data in links:  # last: until then no folder is somewhere else
        target.symlink_to(os.fsdecode(data))


def unpack(folder: Path, commit: str, size: int, read: Read, environment: Mapping[str, str]) -> Path:
    """A repository whose branch is `commit`, from a pack that has it; raises ValueError where it does not."""
    repository = folder / "repository"
    environment = {**environment, **GIT}

    def git(*words: str, stdin: bytes = b"") -> None:
        done = subprocess.run(["git", *words], env=environment, input=stdin, capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"git {words[0]}: {done.stderr.decode(errors='replace').strip()}")

    for part in ("objects", "refs"):  # what `git init` makes, without starting it
        (repository / ".git" / part).mkdir(parents=True)
    (repository / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (repository / ".git" / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsync = none\n"
    )
    at = f"--git-dir={repository / '.git'}"
    git(at, "index-pack", "--stdin", stdin=b"".join(exactly(read, size)))
    git(at, "update-ref", "refs/heads/main", commit)
    return repository


def exactly(read: Read, size: int) -> Iterator[bytes]:
    """So many bytes, in parts as they come."""
    while size:
        part = read(min(size, CHUNK))
        if not part:
            raise EOFError
        yield part
        size -= len(part)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """A new folder and the lock on it; another one, where a neighbour took it for left behind before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # whoever removes it holds the lock until it is gone
            if os.fstat(descriptor).st_nlink:
                return folder, descriptor
            os.close(descriptor)


def _remove_left(parent: Path) -> None:
    for left in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
