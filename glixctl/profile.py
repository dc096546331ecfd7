# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of a profile of `nix profile` or `nix-env`, as references that glixd understands."""

from __future__ import annotations

import json
import os
import re
import subprocess

from glixctl.errors import ClientError, UsageError
from glixd.protocol import ErrorCode, Exit

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NIXPKGS = re.compile(r"(flake:)?nixpkgs(/.*)?|github:NixOS/nixpkgs(/.*)?", re.IGNORECASE)
_VERSION = re.compile(r"-(?=[0-9])")


def default_profile(environment: Mapping[str, str]) -> str:
    """Where nix keeps a user's own profile: `~/.nix-profile`, or the state folder that newer versions use."""
    home = environment.get("HOME") or os.path.expanduser("~")
    state = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    candidates = (os.path.join(home, ".nix-profile"), os.path.join(state, "nix", "profile"))
    return next((path for path in candidates if os.path.exists(path)), candidates[0])


def packages(profile: str) -> tuple[list[str], list[str]]:
    """The references of a profile's packages, and the entries that came from no flake; raises UsageError."""
    path = os.path.join(profile, "manifest.json")
    if os.path.exists(path):
        return _of_manifest(path)
    if os.path.exists(os.path.join(profile, "manifest.nix")):
        return _of_nix_env(profile), []
    raise UsageError(f"{profile} is no profile of nix profile or nix-env.", "Name one with --from-profile PATH.")


def _of_manifest(path: str) -> tuple[list[str], list[str]]:
    """The elements of a `manifest.json`: a list up to version 2, named from version 3 on (nix3-profile)."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}.") from None
    elements = document.get("elements") if isinstance(document, dict) else None
    if not isinstance(elements, list | dict):
        raise UsageError(f"{path} can't be read: it has no elements.")
    found: list[str] = []
    left_out: list[str] = []
    for element in elements.values() if isinstance(elements, dict) else elements:
        if element.get("active", True):
            reference = _reference(element)
            (found if reference else left_out).append(reference or ", ".join(element.get("storePaths") or ("?",)))
    return found, left_out


def _reference(element: Mapping[str, Any]) -> str | None:
    url, attribute = element.get("originalUrl") or element.get("originalUri"), element.get("attrPath")
    if not url or not attribute:
        return None
    kind, _, rest = str(attribute).partition(".")
    name = rest.partition(".")[2] if kind in ("legacyPackages", "packages") else str(attribute)
    if kind == "legacyPackages" and _NIXPKGS.fullmatch(url):
        return f"nixpkgs#{name}"
    return str(url) if name in ("default", "") else f"{url}#{name}"


def _of_nix_env(profile: str) -> list[str]:
    """The names that nix-env knows, without their versions (the digit behind a hyphen begins one)."""
    try:
        done = subprocess.run(
            ["nix-env", "--profile", profile, "--query"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ClientError(
            f"nix-env can't be started: {error.strerror}.", name=ErrorCode.UNSUPPORTED_HERE, exit_code=Exit.FAILED
        ) from None
    if done.returncode:
        raise ClientError(
            f"nix-env can't list {profile}: {done.stderr.strip()}",
            name=ErrorCode.UNSUPPORTED_HERE,
            exit_code=Exit.FAILED,
        )
    return [_VERSION.split(line, maxsplit=1)[0] for line in done.stdout.split() if line]
