# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of the repository in the homes of people, and what they commit there."""

from __future__ import annotations

from pathlib import Path

from tests.booted.inside.machine import Done, git, glixctl, run


def clone(user: str, name: str) -> Path:
    """A clone that glixctl made for a user, in their home."""
    folder = Path("/root" if user == "root" else f"/home/{user}") / name
    glixctl("clone", str(folder), user=user)
    assert folder.owner() == user
    return folder


def commit(folder: Path, file: str, text: str, message: str) -> None:
    """Write a file of a clone and commit it, as its owner."""
    user = folder.owner()
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    run("chown", "--recursive", user, str(folder))
    git("add", "--all", path=str(folder))
    git(*identity(user), "commit", "--quiet", f"--message={message}", path=str(folder))


def identity(user: str) -> tuple[str, ...]:
    """The words that tell git who somebody is."""
    return ("-c", f"user.name={user}", "-c", f"user.email={user}@example.org")


def push(folder: Path, check: bool = True) -> Done:
    """Push what is committed there, as the owner."""
    return glixctl("push", "--folder", str(folder), user=folder.owner(), check=check)
