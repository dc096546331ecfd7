# SPDX-License-Identifier: GPL-3.0-or-later
"""What another system would change: two closures compared package by package, and what that means for the running machine.

Names and versions are told apart as nix does it, and compared as `builtins.compareVersions` does. A path without a version is
no package: units, scripts and configuration change with nearly every build, and are only counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cmp_to_key
from itertools import zip_longest
from typing import Final

from glixd.model.progress import package_name
from glixd.values import dataclass

OUTPUTS: Final = frozenset(
    [
        "bin",
        "data",
        "debug",
        "dev",
        "devdoc",
        "dist",
        "dnsutils",
        "doc",
        "getent",
        "host",
        "info",
        "lib",
        "libgcc",
        "man",
        "modules",
        "out",
        "static",
        "terminfo",
    ]
)
"""What the last part of a name is when it is an output: perl-5.40-man is a part of perl 5.40."""
REBOOTS: Final = ("kernel", "initrd", "kernel-modules", "systemd")
"""Links of a system that only a reboot makes effective."""
_COMPONENT: Final = re.compile(r"\d+|[^\d.-]+")


class Kind(StrEnum):
    """What became of a package."""

    ADDED = "added"
    REMOVED = "removed"
    UPGRADED = "upgraded"
    DOWNGRADED = "downgraded"
    CHANGED = "changed"
    """Several versions are there, and others than before."""


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One package whose versions differ."""

    name: str
    kind: Kind
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two closures."""

    packages: tuple[PackageChange, ...]
    rebuilt: int
    """Packages whose versions are the same, and which are others all the same."""
    size_before: int
    size_after: int
    paths_before: int
    paths_after: int


@dataclass(frozen=True, slots=True)
class Units:
    """What an activation does, or would do, to systemd units."""

    stopped: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    reloaded: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    restarts_systemd: bool = False


def compare(before: Mapping[str, int], after: Mapping[str, int]) -> Difference:
    """The difference of two closures, each given as path → bytes."""
    old, new = _by_name(before), _by_name(after)
    changes = []
    rebuilt = 0
    for name in sorted({*old, *new}):
        versions = (_versions(old.get(name, ())), _versions(new.get(name, ())))
        if versions[0] != versions[1]:
            changes.append(PackageChange(name, _kind(*versions), *versions))
        elif {path for _, path in old[name]} != {path for _, path in new[name]}:
            rebuilt += 1
    return Difference(tuple(changes), rebuilt, sum(before.values()), sum(after.values()), len(before), len(after))


def needs_reboot(running: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """Which links of REBOOTS lead elsewhere in the new system than in the booted one; what neither has is no reason."""
    return tuple(name for name in REBOOTS if running.get(name) != new.get(name) and name in running and name in new)


def units(lines: Iterable[str]) -> Units:
    """What `switch-to-configuration` says about units, in a dry run or in earnest."""
    found: dict[str, list[str]] = {"stop": [], "restart": [], "reload": [], "start": [], "failed": []}
    restarts_systemd = False
    for line in lines:
        if match := _UNITS.search(line):
            found[_VERBS[match[1] or match[2]]] += [unit for unit in re.split(r"[,\s]+", match[3].strip()) if unit]
        restarts_systemd = restarts_systemd or bool(_SYSTEMD.search(line))
    stopped, restarted, reloaded, started, failed = (tuple(dict.fromkeys(units)) for units in found.values())
    return Units(stopped, restarted, reloaded, started, failed, restarts_systemd)


_VERBS: Final = {
    "stop": "stop",
    "stopping": "stop",
    "restart": "restart",
    "restarting": "restart",
    "reload": "reload",
    "reloading": "reload",
    "start": "start",
    "starting": "start",
    "failed": "failed",
}
_UNITS: Final = re.compile(
    r"^(?:warning: )?(?:would )?(?:the following (?:user )?units (failed)|"
    r"(stop|stopping|restart|restarting|reload|reloading|start|starting) the following (?:user )?units): (.+)$"
)
_SYSTEMD: Final = re.compile(r"would restart systemd|^restarting systemd")


def parse_name(name: str) -> tuple[str, str]:
    """`hello-2.12` as name and version: the version begins behind the first dash that no letter follows."""
    for index, character in enumerate(name[:-1]):
        if character == "-" and not (name[index + 1].isascii() and name[index + 1].isalpha()):
            return name[:index], name[index + 1 :]
    return name, ""


def compare_versions(one: str, other: str) -> int:
    """-1, 0 or 1, as `builtins.compareVersions` says."""
    for left, right in zip_longest(_COMPONENT.findall(one), _COMPONENT.findall(other), fillvalue=""):
        if _less(left, right):
            return -1
        if _less(right, left):
            return 1
    return 0


def _less(one: str, other: str) -> bool:
    if one.isdecimal() and other.isdecimal():
        return int(one) < int(other)
    if one == "" and other.isdecimal():
        return True
    if one == "pre" and other != "pre":
        return True
    if other == "pre" or one.isdecimal():
        return False
    return other.isdecimal() or one < other


def _by_name(paths: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """By the name of a package its versions, each with the path; only what has a version."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in paths:
        name, version = parse_name(package_name(path))
        if version:
            found.setdefault(name, []).append((_without_output(version), path))
    return found


def _without_output(version: str) -> str:
    """`5.40-man` as `5.40`."""
    rest, dash, last = version.rpartition("-")
    return rest if dash and last in OUTPUTS else version


def _versions(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({version for version, _ in found}, key=cmp_to_key(compare_versions)))


def _kind(before: tuple[str, ...], after: tuple[str, ...]) -> Kind:
    if not before:
        return Kind.ADDED
    if not after:
        return Kind.REMOVED
    order = compare_versions(after[-1], before[-1])
    if order == 0:
        return Kind.CHANGED
    return Kind.UPGRADED if order > 0 else Kind.DOWNGRADED
