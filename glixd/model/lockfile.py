# SPDX-License-Identifier: GPL-3.0-or-later
"""The flake.lock of a repository: which revision each input of the root has, and how to let nix lock one anew."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import lru_cache
from typing import Any, Final

from glixd.errors import Refused
from glixd.protocol import ErrorCode
from glixd.values import dataclass

PATH: Final = "flake.lock"
_FIRST_TIME: Final = 86400
"""Seconds of the epoch; nix gives contents without a time of their own one of the first seconds."""
FOLLOWS_LIMIT: Final = 100
"""Steps of `follows` after which a lock leads in a circle."""
_LAST_TIME: Final = 253402300800
"""The year 10000, which has no date here."""


@dataclass(frozen=True, slots=True)
class LockedInput:
    """One input of the root flake."""

    name: str
    url: str | None
    """What flake.nix asked for when it was locked."""
    revision: str | None
    """Its commit, else the hash of its contents."""
    modified: str | None
    folder: str | None
    """The folder of the repository that a `path:./folder` input is."""


@dataclass(frozen=True, slots=True)
class LockFile:
    """A parsed flake.lock; an empty one where there is none."""

    inputs: Mapping[str, LockedInput] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> LockFile:
        """Read a flake.lock; raises ManifestInvalid when it is none."""
        return cls() if text is None else _parse(text)

    def revision(self, name: str) -> str | None:
        """The locked revision of an input; None when it is not locked."""
        found = self.inputs.get(name)
        return found.revision if found else None


def without(text: str, names: Iterable[str]) -> str:
    """The lock with these inputs of the root left out: nix locks them anew, on every version, and nothing else."""
    document = _document(text)
    inputs = _table(_root(document), "inputs")
    for name in names:
        inputs.pop(name, None)
    return json.dumps(document, indent=2) + "\n"


def fingerprint(text: str, name: str) -> str:
    """What names all that an input of the root evaluates with: its node of the lock and every node that it leads to.

    The contents of a `path:./folder` input are no part of it where nix locks none: from 2.26 on such an input is
    whatever its folder holds in the commit.
    """
    document = _document(text)
    nodes: dict[str, Any] = document["nodes"]
    found: dict[str, Any] = {}
    waiting = [_followed(document, [name])]
    while waiting:
        key = waiting.pop()
        if key is not None and key not in found:
            found[key] = nodes[key]
            targets = _targets(nodes[key])
            waiting += [_followed(document, to) if isinstance(to, list) else _known(nodes, to) for to in targets]
    return hashlib.sha256(json.dumps([name, found], sort_keys=True).encode()).hexdigest()


def _followed(document: Mapping[str, Any], path: Iterable[Any]) -> str | None:
    """The node at a path of inputs from the root, as `follows` names it; None where it leads nowhere."""
    nodes, node = document["nodes"], document.get("root", "root")
    steps, left = list(path), FOLLOWS_LIMIT
    while steps and node is not None and left:
        left -= 1
        target = _table(_table(nodes, node), "inputs").get(str(steps.pop(0)))
        if isinstance(target, list):
            steps, node = [*target, *steps], document.get("root", "root")
        else:
            node = _known(nodes, target)
    return None if steps else node


def _known(nodes: Mapping[str, Any], name: object) -> str | None:
    """The name of a node, where there is one of that name."""
    return name if isinstance(name, str) and isinstance(nodes.get(name), dict) else None


def stepped_back(now: str, then: str, before: str) -> str | None:
    """The lock `now` without the step from `before` to `then`, node by node; None where a node moved on since."""
    document, left, earlier = (_document(text) for text in (now, then, before))
    roots = tuple(_table(_root(one), "inputs") for one in (document, left, earlier))
    nodes = tuple({**one["nodes"], one.get("root", "root"): None} for one in (document, left, earlier))
    inputs, others = _stepped_back(*roots), _stepped_back(*nodes)
    if inputs is None or others is None:
        return None
    root = {**_root(document), "inputs": inputs}
    document["nodes"] = {**others, document.get("root", "root"): root}
    if any(isinstance(to, str) and to not in others for node in (root, *others.values()) for to in _targets(node)):
        return None
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _stepped_back(now: dict[str, Any], then: dict[str, Any], before: dict[str, Any]) -> dict[str, Any] | None:
    """A table without the step from `before` to `then`; None where a key that differs there has changed since."""
    found = dict(now)
    for key in {**then, **before}:
        old, new, current = (table.get(key) for table in (before, then, now))
        if old == new or current == old:
            continue
        if current != new:
            return None
        found[key] = old
    return {key: value for key, value in found.items() if value is not None}


def _targets(node: Any) -> Iterable[Any]:
    """What the inputs of a node point to: other nodes by name, or paths from the root."""
    return _table(node, "inputs").values() if isinstance(node, dict) else ()


def revision_of(locked: Mapping[str, Any]) -> str | None:
    """What names the contents of a locked input: its commit, else its hash."""
    found = locked.get("rev") or locked.get("narHash")
    return str(found) if found else None


def modified_of(locked: Mapping[str, Any]) -> str | None:
    """When the contents of a locked input were made, RFC 3339 in UTC."""
    seconds = locked.get("lastModified")
    if not isinstance(seconds, int) or not _FIRST_TIME < seconds < _LAST_TIME:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def url_of(original: Mapping[str, Any]) -> str | None:
    """The reference that a node of the lock was made from, spelt as people spell it."""
    kind = original.get("type")
    match kind:
        case "github" | "gitlab" | "sourcehut":
            base = f"{kind}:{original.get('owner')}/{original.get('repo')}"
            revision = original.get("ref") or original.get("rev")
            base = f"{base}/{revision}" if revision else base
            return _with_query(base, original, ("dir", "host"))
        case "indirect":
            revision = original.get("ref") or original.get("rev")
            return f"{original.get('id')}/{revision}" if revision else str(original.get("id"))
        case "path":
            return _with_query(f"path:{original.get('path')}", original, ("dir",))
        case "git":
            url = str(original.get("url"))
            return _with_query(url if url.startswith("git:") else f"git+{url}", original, ("ref", "rev", "dir"))
        case "tarball" | "file":
            return _with_query(str(original.get("url")), original, ("dir",))
        case _:
            return None


@lru_cache(maxsize=8)
def _parse(text: str) -> LockFile:
    document = _document(text)
    nodes = document["nodes"]
    found = {}
    for name, target in sorted(_table(_root(document), "inputs").items()):
        node = _table(nodes, target) if isinstance(target, str) else {}
        found[name] = _input(name, node)
    return LockFile(found)


def _input(name: str, node: Mapping[str, Any]) -> LockedInput:
    locked, original = _table(node, "locked"), _table(node, "original")
    path = original.get("path") if original.get("type") == "path" else None
    folder = path.removeprefix("./") if isinstance(path, str) and path.startswith("./") else None
    return LockedInput(name, url_of(original), revision_of(locked), modified_of(locked), folder)


def _with_query(base: str, original: Mapping[str, Any], keys: Iterable[str]) -> str:
    query = "&".join(f"{key}={original[key]}" for key in keys if key in original)
    return f"{base}?{query}" if query else base


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _broken(str(error)) from None
    except RecursionError:
        raise _broken("it is nested too deeply") from None
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), dict):
        raise _broken("it has no nodes")
    if document.get("version") not in (5, 6, 7):
        raise _broken(f"its version is {document.get('version')!r}")
    return document


def _root(document: Mapping[str, Any]) -> dict[str, Any]:
    name = document.get("root", "root")
    if not isinstance(name, str) or name not in document["nodes"]:
        raise _broken("it has no root")
    return _table(document["nodes"], name)


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; an empty one where there is none."""
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise _broken(f"{key!a} is no object")
    return value


def _broken(why: str) -> Refused:
    return Refused(
        f"{PATH} is no lock file that nix wrote: {why}.",
        code=ErrorCode.MANIFEST_INVALID,
        hint=f"Restore it with: git checkout -- {PATH}",
        details={"path": PATH, "reason": why},
    )
