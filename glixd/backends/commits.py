# SPDX-License-Identifier: GPL-3.0-or-later
"""A short history, read without a git of its own: commits that follow each other in one line, as the objects say.

A git that is started takes as long as fifty objects are read through the one that waits. What git has rules for that are
longer than what is here (merges, trailers among other words, encodings) is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from glixd.backends.git import LogEntry, log_entry
from glixd.backends.objects import Object

LONGEST: Final = 50
"""Commits that are read one by one."""
_TRAILER: Final = re.compile(r"[A-Za-z0-9-]+: \S(.*\S)?", re.ASCII)
_MAYBE: Final = re.compile(r":|^[(#]")
"""Lines among which git may find trailers."""
_ODD: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]|\n\n\n|^ | $|\n\n\Z|\A\n", re.MULTILINE)
"""What git trims, joins or takes for an empty line."""
_HEADER: Final = re.compile(
    rb"tree [0-9a-f]+\nparent (?P<parent>[0-9a-f]+)\nauthor (?P<author>[^<>\n]+) <[^<>\n]*> (?P<time>[0-9]+) [+-][0-9]{4}\n"
    rb"committer [^\n]+\n(?:gpgsig(?:-sha256)? [^\n]*\n(?: [^\n]*\n)*)?\n"
)


def line(read: Callable[[str], Object | None], old: str, new: str) -> list[LogEntry] | None:
    """The commits from `new` back to `old`, without that; None where it is not as simple, and git has to be asked."""
    found = list[LogEntry]()
    while new != old:
        commit = read(new) if len(found) < LONGEST else None
        parsed = _parsed(commit) if commit and commit.kind == "commit" else None
        if parsed is None:
            return None
        entry, new = parsed
        found.append(entry)
    return found


def _parsed(commit: Object) -> tuple[LogEntry, str] | None:
    """A commit with one parent, and that; None where it takes git to read it."""
    header = _HEADER.match(commit.data)
    try:
        author, message = (header["author"].decode(), commit.data[header.end() :].decode()) if header else ("", "")
    except UnicodeDecodeError:
        return None
    subject, *paragraphs = message.removesuffix("\n").split("\n\n")
    if header is None or _ODD.search(message) or "\n" in subject or not all((subject, *paragraphs)):
        return None
    last = paragraphs[-1].split("\n") if paragraphs else []
    trailers = [text for text in last if _TRAILER.fullmatch(text)]
    if len(trailers) < len(last):
        if any(_MAYBE.search(text) for text in last):
            return None
        trailers = []
    fields = (commit.oid, header["time"].decode(), author, subject, "\x01".join(trailers), "\n\n".join(paragraphs))
    return log_entry(fields), header["parent"].decode()
