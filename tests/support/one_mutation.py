# SPDX-License-Identifier: GPL-3.0-or-later
"""One mutation in one process, as a daemon would carry it: the program that fault sweeps disturb.

    python -m tests.support.one_mutation REPOSITORY STATE VARIANT PACKAGE

It adds PACKAGE and answers with one line of JSON on standard output: what a client would have been told. VARIANT is `safe`,
or one of the unsafe ways of working that the sweeps must be able to tell from it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from glixd import log
from glixd.backends.objects import Commit
from glixd.backends.repository import Changes, Held, Published, Repository
from glixd.errors import GlixError
from tests.support.plain import Workshop, add


class InPlaceRepository(Repository):
    """Writes into the work tree and commits with the porcelain, as the tools before this one do."""

    def make(self, commit: Commit) -> str:
        """Write the files in their place, then commit them."""
        for path, data in commit.files.items():
            assert isinstance(data, bytes)
            (self.root / path).write_bytes(data)
        self._porcelain("add", "--", *commit.files)
        self._porcelain("commit", "--quiet", f"--message={commit.message}")
        oid = self.git.ref("HEAD")
        assert oid is not None
        return oid

    def commit_point(self, held: Held, commit: str, base: str | None) -> None:
        """The branch has moved already."""

    def publish(self, held: Held, commit: str, changes: Changes) -> Published:
        """The work tree shows it already."""
        return Published()

    def _porcelain(self, *words: str) -> None:
        identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        argv = ["git", "-c", "gc.auto=0", "-c", "core.hooksPath=/dev/null", *words]
        done = self.git._processes.run(argv, cwd=self.root, environment=identity)
        if done.status:
            raise OSError(done.stderr.decode())


class ForgetfulRepository(Repository):
    """Never finishes or undoes what an earlier process left."""

    def recover(self, held: Held) -> None:
        """Leave everything as it is, but have a place for scratch files."""
        self.scratch.mkdir(mode=0o700, exist_ok=True)


VARIANTS: dict[str, type[Repository]] = {
    "safe": Repository,
    "in-place": InPlaceRepository,
    "forgetful": ForgetfulRepository,
}


def answer(workshop: Workshop, name: str) -> dict[str, Any]:
    """What a client is told about adding the package `name`."""
    try:
        result = workshop.run(add(name))
    except GlixError as error:
        return {"error": error.code.value, "message": error.message}
    return {"commit": result.commit, "warnings": result.warnings}


def main() -> None:
    """Carry the mutation that the arguments ask for."""
    log.configure("info")
    repository, state, variant, name = sys.argv[1:]
    workshop = Workshop(Path(repository), Path(state), make=VARIANTS[variant])
    told = answer(workshop, name)
    os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")
    workshop.close()


if __name__ == "__main__":
    main()
