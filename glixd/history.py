# SPDX-License-Identifier: GPL-3.0-or-later
"""The history: commits, the newest first, of the repository, of one host, or of one package of a host."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterator
from tomllib import TOMLDecodeError
from typing import Any, Final

from glixd import api
from glixd.backends.git import Git, LogEntry
from glixd.backends.snapshot import Snapshot
from glixd.errors import NotFound, invalid
from glixd.model.change import manifest_path
from glixd.model.manifest import key_pattern
from glixd.model.reading import read_toml
from glixd.near import did_you_mean, near
from glixd.protocol import ErrorCode

SEARCHED: Final = 10_000
"""Commits of a manifest among which those of one package are looked for."""
_NOTHING: Final = re.compile(r"\s*(#.*)?")


def page(git: Git, newest: Snapshot, default_host: str, asked: api.HistoryParameters) -> api.Histories:
    """One page of what is asked; raises UnknownHost or NotInstalled for what has no history and is not there."""
    start = newest.commit if asked.before is None else _parent(git, asked.before)
    found = _entries(git, start, default_host, asked) if start else iter(())
    entries = list(itertools.islice(found, asked.limit + 1))
    if not entries and next(_entries(git, newest.commit, default_host, asked), None) is None:
        _require(newest, default_host, asked)
    shown = entries[: asked.limit]
    following = shown[-1].oid if len(entries) > asked.limit else None
    return api.Histories(entries=tuple(map(_told, shown)), next=following)


def _entries(git: Git, start: str, default_host: str, asked: api.HistoryParameters) -> Iterator[LogEntry]:
    if asked.name is None:
        paths = (f"hosts/{asked.host}",) if asked.host else ()
        yield from git.log(start, limit=asked.limit + 1, paths=paths)
        return
    path = manifest_path(asked.host or default_host)
    for entry in git.log(start, limit=SEARCHED, paths=(path,)):
        if _said(git, f"{entry.oid}:{path}", asked.name) != _said(git, f"{entry.oid}~1:{path}", asked.name):
            yield entry


def _require(newest: Snapshot, default_host: str, asked: api.HistoryParameters) -> None:
    """See that what no commit touched is there at all."""
    host = asked.host or default_host
    if asked.name is None and asked.host is None:
        return
    packages = newest.manifest(host).packages
    if asked.name is None or asked.name in packages:
        return
    closest = near(asked.name, packages)
    raise NotFound(
        f"No change ever touched a package {asked.name} of {host}.",
        code=ErrorCode.NOT_INSTALLED,
        hint=did_you_mean(closest, f"See every change: glixctl history --host {host}"),
        details={"name": asked.name, "host": host, "closest": closest},
    )


def _parent(git: Git, commit: str) -> str | None:
    found = git.ref(f"{commit}^{{commit}}")
    if found is None:
        raise invalid("before", f"{commit} is no commit of the repository")
    return git.ref(f"{found}~1")


def _said(git: Git, manifest: str, name: str) -> Any:
    """What a version of a manifest says of a package, in a form that can be compared; None where it says nothing."""
    found = git.read(manifest)
    text = found.data.decode(errors="replace") if found else ""
    if name not in text:
        return None
    return _tables(text, name) or _entry(text, name)


def _tables(text: str, name: str) -> list[str]:
    """The lines of the tables of a package, without comments: a manifest of thousands takes half a second to parse."""
    header = rf"^[ \t]*\[[ \t]*packages[ \t]*\.[ \t]*{key_pattern(name)}[ \t]*(?:\.[^\n]*)?\]"
    table = re.compile(header + r"[^\n]*\n?(?:(?![ \t]*\[)[^\n]*\n)*", re.MULTILINE)
    lines = "".join(match.group().rstrip("\n") + "\n" for match in table.finditer(text)).split("\n")
    return [line.strip() for line in lines if not _NOTHING.fullmatch(line)]


def _entry(text: str, name: str) -> Any:
    """The same of a manifest in an unusual layout, by parsing it."""
    try:
        packages = read_toml(text).get("packages")
    except (TOMLDecodeError, RecursionError):
        return None
    return packages.get(name) if isinstance(packages, dict) else None


def _told(entry: LogEntry) -> api.HistoryEntry:
    uid = entry.trailers.get("Glix-Uid", "")
    return api.HistoryEntry(
        commit=entry.oid,
        time=datetime.datetime.fromtimestamp(entry.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        author=entry.author,
        subject=entry.subject,
        transaction=entry.transaction,
        uid=int(uid) if uid.isdecimal() else None,
        reason=entry.trailers.get("Glix-Reason"),
        body=entry.body or None,
    )
