# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two commits, or between a commit and the files that people see, as a unified diff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from glixd import api
from glixd.backends.git import Git
from glixd.backends.objects import Entry
from glixd.backends.repository import Repository
from glixd.backends.snapshot import Snapshot, unknown_host
from glixd.draft import unified
from glixd.errors import invalid

PAGE: Final = 256 * 1024
"""Characters of diff after which a page ends; a single file is told whole, whatever its length."""
SUBMODULE: Final = "160000"

Sides = Callable[[], tuple[bytes | None, bytes | None]]
"""Reads a file on both sides; None where it is not there."""


def page(repository: Repository, newest: Snapshot, asked: api.DiffParameters) -> api.Difference:
    """One page of the difference that is asked for; raises InvalidArgument for a commit that is not on the branch."""
    before = _commit(repository.git, newest, asked.before, "before") or newest.commit
    commit = _commit(repository.git, newest, asked.commit, "commit")
    changed = _since(repository, newest, before) if commit is None else _between(repository.git, before, commit)
    folder = f"hosts/{asked.host}/" if asked.host else ""
    ours = [path for path in changed if path.startswith(folder)]
    if asked.host and not ours and asked.host not in newest.hosts:
        raise unknown_host(asked.host, sorted(newest.hosts))
    wanted = sorted(path for path in ours if path > (asked.after or ""))
    files: list[str] = []
    diff = ""
    for path in wanted:
        if len(diff) >= PAGE:
            return api.Difference(before=before, commit=commit, files=tuple(files), diff=diff, next=files[-1])
        files.append(_printable(path))
        diff += _difference(_printable(path), *changed[path]())
    return api.Difference(before=before, commit=commit, files=tuple(files), diff=diff)


def _commit(git: Git, newest: Snapshot, name: str | None, argument: str) -> str | None:
    if name is None:
        return None
    found = git.ref(f"{name}^{{commit}}")
    if found is None or not git.is_ancestor(found, newest.commit):
        raise invalid(argument, f"{name} is no commit of the branch", hint="See: glixctl history")
    return found


def _between(git: Git, before: str, after: str) -> dict[str, Sides]:
    """The files in which two commits differ."""

    def sides(old: Entry | None, new: Entry | None) -> Sides:
        return lambda: (_content(git, old), _content(git, new))

    return {path: sides(old, new) for path, (old, new) in git.changed_paths(before, after).items()}


def _since(repository: Repository, newest: Snapshot, before: str) -> dict[str, Sides]:
    """The files in which a commit differs from the work tree: by later commits, and by what people edited since."""
    edits = repository.edits(newest, everything=True)
    found = _between(repository.git, before, newest.commit) if before != newest.commit else {}
    older = repository.at(before)

    def edited(path: str) -> Sides:
        return lambda: (older.data(path), edits[path])

    return found | {path: edited(path) for path in edits}


def _content(git: Git, entry: Entry | None) -> bytes | None:
    if entry is None:
        return None
    if entry.mode == SUBMODULE:
        return f"Subproject commit {entry.oid}\n".encode()
    found = git.read(entry.oid)
    return found.data if found else b""


def _difference(path: str, before: bytes | None, after: bytes | None) -> str:
    try:
        return unified(path, None if before is None else before.decode(), None if after is None else after.decode())
    except UnicodeDecodeError:
        return f"Binary files a/{path} and b/{path} differ\n"


def _printable(path: str) -> str:
    """A path whose bytes are no UTF-8 text with marks in their place."""
    return path.encode(errors="surrogateescape").decode(errors="replace")
