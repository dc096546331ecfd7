# SPDX-License-Identifier: GPL-3.0-or-later
"""One mutation on a disk that is nearly full, in a mount namespace that takes the disk along when it ends.

    python -m tests.support.full_disk TEMPLATE FOLDER bytes|inodes FREE…

A tmpfs is mounted on FOLDER, and for each FREE a copy of the repository TEMPLATE is put there and the disk is filled until
FREE KiB, or FREE inodes, are left. What is wrong after the mutation, after a recovery while the disk is still full, and
once there is room again is printed as JSON: level → {"told": …, "problems": […]}.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glixd import log
from glixd.errors import GlixError
from tests.support.one_mutation import answer
from tests.support.plain import Workshop
from tests.support.sweep import ADDED, Facts, next_works, old_or_new, shows_head

PAGE = 4096


@contextmanager
def nearly_full(folder: Path, kind: str, free: int) -> Iterator[None]:
    """Fill the file system of `folder`, but for `free` KiB or inodes."""
    ballast = folder / "ballast"
    ballast.mkdir()
    try:
        if kind == "bytes":
            _fill_bytes(ballast / "file", free * 1024)
        else:
            _fill_inodes(ballast, free)
        yield
    finally:
        shutil.rmtree(ballast)


def _fill_bytes(file: Path, free: int) -> None:
    with file.open("wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(PAGE))
        except OSError:
            opened.truncate(max(opened.tell() - free, 0))


def _fill_inodes(ballast: Path, free: int) -> None:
    made: list[Path] = []
    try:
        while True:
            path = ballast / str(len(made))
            path.touch()
            made.append(path)
    except OSError:
        for path in made[len(made) - free :]:
            path.unlink()


def try_level(template: Path, folder: Path, kind: str, free: int) -> dict[str, Any]:
    """What was told, and what is wrong, at one level."""
    root = folder / "repository"
    shutil.copytree(template, root, symlinks=True)
    before = Facts.of(root)
    workshop = Workshop(root, folder.parent / "state")
    problems: list[str] = []
    try:
        with nearly_full(folder, kind, free):
            told = answer(workshop, ADDED)
            workshop.close()
            for _ in range(2):
                workshop.recover()
                problems += old_or_new(root, before, told)
        workshop.recover()
        problems += [*old_or_new(root, before, told), *shows_head(root, before), *next_works(workshop)]
    except GlixError as error:
        problems.append(f"the next command fails: {error.message}")
    finally:
        workshop.close()
        shutil.rmtree(root)
    return {"told": told.get("error") or ("pending" if told["warnings"] else "committed"), "problems": problems}


def main() -> None:
    """Try the levels that the arguments name."""
    log.configure("error")
    template, folder, kind, *levels = sys.argv[1:]
    options = "size=24m" if kind == "bytes" else "size=64m,nr_inodes=1000"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    found = {level: try_level(Path(template), Path(folder), kind, int(level)) for level in levels}
    os.write(sys.stdout.fileno(), json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
