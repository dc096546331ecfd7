# SPDX-License-Identifier: GPL-3.0-or-later
"""The five worst mistakes, made on purpose in a copy of the source: the tests that hold the rules turn red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hermetic import PROJECT

pytestmark = pytest.mark.integration

COPIED = ("glixd", "glixctl", "tests", "polkit", "docs", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """One rule that is taken out, and the tests that must notice."""

    name: str
    file: str
    before: str
    after: str
    guards: str


MUTATIONS = (
    Mutation(
        "the digest is not compared",
        "glixd/lanes.py",
        "if digest_of(ticket.row.name, prepared.request) != ticket.digest or ticket.digest != prepared.digest:",
        "if False:",
        "tests/unit/test_engine.py",
    ),
    Mutation(
        "a setter stands behind an action for reading",
        "glixd/api/table.py",
        '_mutation("SetHost", mutations.SetHostParameters, Policy.HOST_MANAGE,',
        '_mutation("SetHost", mutations.SetHostParameters, Policy.READ,',
        "tests/unit/test_policy.py",
    ),
    Mutation(
        "trust is what the caller says",
        "glixd/policy.py",
        'action = "package-install-trusted" if target.trusted else "package-install-untrusted"',
        'action = "package-install-trusted"',
        "tests/unit/test_policy.py",
    ),
    Mutation(
        "an error counts as a yes",
        "glixd/backends/polkit.py",
        "            raise _unavailable(error) from error\n        finally:",
        "            return Answer.ALLOWED\n        finally:",
        "tests/integration/backends/test_polkit.py",
    ),
    Mutation(
        "the rule does not ask whether a detail is there",
        "polkit/50-glixd-wheel.rules",
        'return said("trusted") === "yes" && said("package") !== "" ?',
        'return action.lookup("trusted") !== "no" ?',
        "tests/authorisation/test_wheel_rule.py",
    ),
)


def copied(folder: Path) -> Path:
    """A copy of the source that tests can be run in."""
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def failures(folder: Path, guards: str) -> int:
    """How many of the guarding tests fail in a copy; -1 when they could not be run."""
    words = [sys.executable, "-m", "pytest", "-q", "--no-header", "-x", guards]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words,
        cwd=folder,
        env={**environment, "PYTHONPATH": os.fspath(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_rule_that_is_taken_out_is_missed(tmp_path: Path, mutation: Mutation) -> None:
    folder = copied(tmp_path)
    folder.chmod(0o755)
    file = folder / mutation.file
    text = file.read_text()
    assert text.count(mutation.before) == 1, "the rule is spelt in another way now: mend this test"
    file.write_text(text.replace(mutation.before, mutation.after))
    assert failures(folder, mutation.guards) == 1, f"{mutation.guards} does not notice that {mutation.name}"
