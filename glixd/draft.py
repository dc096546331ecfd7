# SPDX-License-Identifier: GPL-3.0-or-later
"""A change in full, before anything of it is written: its files before and after, its commit, and how it is told."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Set
from dataclasses import field
from typing import Final

from glixd import api
from glixd.api import Caller
from glixd.backends.ahead import Ahead
from glixd.backends.objects import GLIXD, Commit, Content, Entry, Person
from glixd.backends.process import Cancellation
from glixd.backends.snapshot import FLAKE, LOCK
from glixd.model.change import Plan, Request, listed
from glixd.model.lockfile import LockFile
from glixd.model.tomlregion import common_end, common_start
from glixd.values import dataclass

CONTEXT: Final = 5
"""Lines around a difference that are looked at; a diff shows three of them."""


@dataclass(frozen=True, slots=True)
class Job:
    """A resolved and authorised request with all that its transaction needs."""

    id: str
    request: Request
    digest: str
    caller: Caller
    branch: str = "main"
    dry_run: bool = False
    evaluate: bool = True
    """Whether the hosts that it concerns have to evaluate before the commit point, where that is asked at all."""
    trusted: bool = False
    """Whether all that it brings comes from trusted sources."""
    reason: str | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    step: Callable[[str], None] = lambda _title: None
    committed: Callable[[str], None] = lambda _commit: None
    point: Callable[[str], None] | None = None
    """Called with the commit right before its commit point, when nix can see it: what it raises is why there is none."""
    before: Callable[[str, Ahead | None], object] | None = None
    """The same for what takes long and needs no other program to see the commit. It has the objects written before it does
    what can't be undone; there are none of a change that is there already, and no commit point then."""
    check: Callable[[str], None] | None = None
    """Called with the commit once nix can see it, in a dry run too: what it raises speaks against the change."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The files that a change is about."""

    plan: Plan
    before: Mapping[str, bytes | None]
    after: Mapping[str, Content]
    adopted: Mapping[str, bytes | None]
    moved: Mapping[str, str] = field(default_factory=dict)
    """New path → the path that a file had before."""
    programs: Set[str] = frozenset()
    """The files that are executable, and stay so."""

    @property
    def changed(self) -> dict[str, Content]:
        """The files that the commit changes."""
        return {path: content for path, content in self.after.items() if self.before.get(path) != content}


def commit_of(job: Job, draft: Draft, base: str | None, machine: str) -> Commit:
    """The commit of a change, by the caller and through glixd."""
    author = Person(job.caller.login, f"{job.caller.login}@{machine}")
    return Commit(base, author, GLIXD, _message(job, draft), draft.changed, draft.programs)


def _message(job: Job, draft: Draft) -> str:
    """Subject, one line a package, and the trailers by which a commit is known as ours."""
    subject = draft.plan.subject
    if draft.adopted and not draft.plan.changes:
        subject = f"glix adopt {draft.plan.host}: {listed(list(draft.adopted))}"
    trailers = [
        *draft.plan.trailers,
        *(f"Glix-Adopted: {path}" for path in draft.adopted),
        *_change_trailers(draft),
        *([f"Glix-Reason: {job.reason}"] if job.reason else []),
        f"Glix-Transaction: {job.id}",
        f"Glix-Request-Digest: {job.digest}",
        f"Glix-Uid: {job.caller.uid}",
        f"Glix-Trust: {'trusted' if job.trusted and not draft.adopted else 'untrusted'}",
    ]
    paragraphs = [subject, draft.plan.note or "", "\n".join(draft.plan.body), "\n".join(trailers)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _change_trailers(draft: Draft) -> list[str]:
    """What the request itself changed, where edits went along: a rollback undoes the request alone."""
    if not draft.adopted:
        return []
    return [f"Glix-Change: {change.action} {change.host} {change.name}" for change in draft.plan.changes]


def outcome_of(draft: Draft) -> api.Outcome:
    """What a change does, told to the caller."""
    before, after = _lock_of(draft.before.get(LOCK)), _lock_of(draft.after.get(LOCK, draft.before.get(LOCK)))
    names = sorted({*before.inputs, *after.inputs})
    lock = [
        api.LockChange(input=name, before=before.revision(name), after=after.revision(name))
        for name in names
        if before.revision(name) != after.revision(name)
    ]
    taken_over = f"took over the edits of {listed(list(draft.adopted))}" if draft.adopted else f"rewrote {FLAKE}"
    alone = (draft.plan.verb == "push" and draft.plan.note) or taken_over
    summary = draft.plan.summary if draft.plan.changes else alone
    paths = {*draft.moved, *draft.moved.values()}
    told = {path: content for path, content in sorted(draft.changed.items()) if path not in paths}
    diff = "".join(
        [
            *(_difference(path, draft.before.get(path), content) for path, content in told.items()),
            *(_renamed(source, path) for path, source in sorted(draft.moved.items())),  # last, as git apply reads them
        ]
    )
    return api.Outcome(summary=summary, changed=True, changes=draft.plan.changes, lock=tuple(lock), diff=diff)


def unified(path: str, before: str | None, after: str | None) -> str:
    """The unified diff of one file; equal ends are cut off first, since long manifests differ in few lines.

    Most of them as text: to part ten thousand packages into lines was a sixth of the time of a change of one.
    """
    skipped, old, new = _around(before or "", after or "")
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    head, tail = max(head - 3, 0), max(tail - 3, 0)
    source = "/dev/null" if before is None else f"a/{path}"
    target = "/dev/null" if after is None else f"b/{path}"
    lines = difflib.unified_diff(old[head : len(old) - tail], new[head : len(new) - tail], source, target)
    return "".join(_shifted(line, skipped + head) if line.startswith("@@") else _ended(line) for line in lines)


def _difference(path: str, before: bytes | None, after: Content) -> str:
    """What becomes of one file; bytes that are no text are only named."""
    if isinstance(after, Entry):
        return f"Binary file {path} becomes {after.oid}\n"
    try:
        return unified(path, None if before is None else before.decode(), None if after is None else after.decode())
    except UnicodeDecodeError:
        return f"Binary file {path} differs\n"


def _renamed(source: str, target: str) -> str:
    """A file that only gets another path, as git tells it."""
    return f"diff --git a/{source} b/{target}\nsimilarity index 100%\nrename from {source}\nrename to {target}\n"


def _lock_of(content: Content) -> LockFile:
    return LockFile.parse(content.decode() if isinstance(content, bytes) else None)


def _around(before: str, after: str) -> tuple[int, list[str], list[str]]:
    """The lines of two texts in which they differ, with some around them, and the number of those that are left out before."""
    start = common_start(before, after)
    end = len(before) - common_end(before, after, min(len(before), len(after)) - start)
    for _ in range(CONTEXT):
        start = max(before.rfind("\n", 0, start), 0)
        end = before.find("\n", end) + 1 or len(before)
    start = start + 1 if start else 0
    rest = len(before) - end
    return before.count("\n", 0, start), _lines(before[start:end]), _lines(after[start : len(after) - rest])


def _lines(text: str) -> list[str]:
    """The lines with their ends; only a line feed ends a line, as for git."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _common(first: list[str], second: list[str]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _shifted(line: str, by: int) -> str:
    """A hunk header of the middle of a file as that of the whole file."""
    words = line.split(" ")
    for place in (1, 2):
        start, comma, length = words[place][1:].partition(",")
        words[place] = f"{words[place][0]}{int(start) + by}{comma}{length}"
    return " ".join(words)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
