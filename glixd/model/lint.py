# SPDX-License-Identifier: GPL-3.0-or-later
"""What is allowed in a manifest and yet looks like a mistake: keys that nobody knows, and secrets that stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from glixd.model.manifest import PACKAGE_KEYS, SETTING_KEYS, Manifest, line_of
from glixd.model.reading import read_toml
from glixd.near import near

TOP_KEYS: Final = frozenset({"schema", "settings", "packages"})
_SECRET_KEY: Final = re.compile(r"(pass|passwd|password|passphrase|secret|token|key|credentials?)$", re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(
    r"-----BEGIN|\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|AKIA[0-9A-Z]{16}|xox[bpars]-[\w-]{10,})"
)
_CREDENTIALS: Final = re.compile(r"://[^/@\s]+:[^/@\s]+@")


class UnknownKey(NamedTuple):
    """A key that no schema has."""

    key: str
    """With the tables that it is in, such as packages.git.scpoe."""
    line: int | None
    meant: str | None
    """The known key that comes closest, where one does."""


def unknown_keys(text: str) -> Iterator[UnknownKey]:
    """The unknown keys of a manifest that can be read."""
    document = read_toml(text)
    yield from _unknown(text, document, TOP_KEYS, ())
    yield from _unknown(text, document.get("settings"), SETTING_KEYS, ("settings",))
    packages = document.get("packages")
    for name, table in packages.items() if isinstance(packages, dict) else ():
        yield from _unknown(text, table, PACKAGE_KEYS, ("packages", name))


def secrets(manifest: Manifest) -> Iterator[str]:
    """The keys whose value looks like a secret itself and not like the path of one; never the value."""
    for name, package in manifest.packages.items():
        for key, value in package.config.items():
            told = _SECRET_KEY.search(key) and value and not value.startswith("/")
            if told or _SECRET_VALUE.search(value):
                yield f"packages.{name}.config.{key}"
        if _CREDENTIALS.search(package.flake):
            yield f"packages.{name}.flake"


def _unknown(text: str, table: object, known: Iterable[str], at: tuple[str, ...]) -> Iterator[UnknownKey]:
    for key in table if isinstance(table, Mapping) else ():
        if key not in known:
            meant = near(key, known, 1)
            yield UnknownKey(".".join((*at, key)), line_of(text, (*at, key)), meant[0] if meant else None)
