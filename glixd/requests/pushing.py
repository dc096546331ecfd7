# SPDX-License-Identifier: GPL-3.0-or-later
"""The request that puts the commits of a clone on the branch: taken in, looked at and read as a whole, then let go of."""

from __future__ import annotations

import re
from typing import Final

from glixd import api
from glixd.backends.bundles import Arrived, arrived
from glixd.backends.git import Git
from glixd.errors import Failed, Refused
from glixd.model.change import ALL_HOSTS, Push, PushedCommit, PushedFile
from glixd.policy import Target
from glixd.protocol import MAX_UPLOAD, ErrorCode
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part

MODES: Final = ("100644", "100755")
MESSAGE_LIMIT: Final = 16 * 1024
_OURS: Final = re.compile(r"^\s*glix-[a-z-]+\s*:", re.IGNORECASE | re.MULTILINE)
"""Trailers by which a commit would pass for one of glixd's own."""


def push(tools: Tools, row: api.Operation, asked: api.PushParameters, context: Context) -> Made:
    """Read what was brought, and refuse what can't be kept."""
    uid, git = context.caller.uid, context.snapshot.git
    with tools.uploads.opened(uid, asked.upload, git, context.cancellation, keep=asked.dry_run) as quarantine:
        base, commits = arrived(quarantine, context.snapshot.commit)
        _check_sizes(quarantine, commits)
        pushed = tuple(_pushed(quarantine, commit) for commit in commits)
    if not pushed:
        raise Refused(
            "There is nothing to push: the repository has these commits already.", code=ErrorCode.NOTHING_TO_UNDO
        )
    paths = sorted({file.path for commit in pushed for file in commit.files})
    authors = sorted({f"{commit.author} <{commit.email}>" for commit in pushed})
    targets = tuple(Target(path) for path in paths)
    return Push(ALL_HOSTS, base, pushed), (Part(row.policy, targets, author=", ".join(authors)),)


def _check_sizes(quarantine: Git, commits: list[Arrived]) -> None:
    """A small bundle can stand for a lot: look at what it says before any of it is read."""
    entries = [entry for commit in commits for change in commit.changes.values() for entry in change if entry]
    total = sum(quarantine.sizes({entry.oid for entry in entries}).values())
    if total > MAX_UPLOAD:
        raise Failed(
            f"The files that change have {total // 2**20} MiB together; {MAX_UPLOAD // 2**20} MiB are allowed.",
            code=ErrorCode.TOO_LARGE,
            hint="Keep large files out of the repository, or commit them in smaller steps.",
        )


def _pushed(quarantine: Git, commit: Arrived) -> PushedCommit:
    short = commit.oid[:7]
    _check_words(short, commit)
    files = []
    for path, (before, after) in sorted(commit.changes.items()):
        _check_path(short, path)
        for entry in filter(None, (before, after)):
            if entry.mode not in MODES:
                raise Refused(
                    f"Commit {short} has {path!a} as a link or a submodule; only plain files are taken.",
                    hint="Replace it by a file.",
                    details={"path": path},
                )
        mode = (after or before or ("", ""))[0]
        contents = [None if entry is None else _data(quarantine, entry.oid) for entry in (before, after)]
        files.append(PushedFile(path, mode, contents[0], contents[1]))
    return PushedCommit(commit.name, commit.email, commit.when, commit.message, tuple(files))


def _check_words(short: str, commit: Arrived) -> None:
    """What stands in a history that others read: plain text, of a length, and no word of ours."""
    plain = commit.message.replace("\n", "").replace("\t", "")
    if not plain.isprintable() or not f"{commit.name}{commit.email}".isprintable() or not plain.strip():
        raise Refused(
            f"Commit {short} has no message, or one with characters that can't be printed.",
            hint="Reword it: git rebase --interactive glixd/main",
        )
    if len(commit.message.encode()) > MESSAGE_LIMIT or len(commit.name) + len(commit.email) > 256:
        raise Refused(f"The message or the author of commit {short} is too long.", hint="Shorten it.")
    if _OURS.search(commit.message):
        raise Refused(
            f"The message of commit {short} has a line like `Glix-…:`, by which glixd tells its own commits.",
            hint="Reword it: git rebase --interactive glixd/main",
        )


def _check_path(short: str, path: str) -> None:
    parts = path.split("/")
    if not path.isprintable() or "\ufffd" in path or path.startswith('"') or not {".git", "..", "."}.isdisjoint(parts):
        raise Refused(f"Commit {short} has a file with a name that is no plain text: {path!a}.", hint="Rename it.")


def _data(quarantine: Git, oid: str) -> bytes:
    found = quarantine.read(oid)
    if found is None:
        raise Failed(f"The object {oid} is missing.", code=ErrorCode.READ_ONLY, hint="Send it again.")
    return found.data
