# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms that several parameters have together, and keys with their values: what is wrong there is refused at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from glixd.api.grammar import SYSTEM, USER_NAME
from glixd.errors import InvalidRequest, invalid
from glixd.near import did_you_mean, near
from glixd.protocol import MAX_IMPORTED_BYTES

__all__ = ["PACKAGE_CHANGES", "SETTING_CHANGES"]

PACKAGE_CHANGES: Final = ("flake", "scope", "enabled", "pin", "user", "follows")
"""The keys of a package that Set knows, beside config.NAME."""
SETTING_CHANGES: Final = (
    "default_scope",
    "auto_apply",
    "registry_url",
    "system",
    "primary_user",
    "state_version",
    "core_modules",
)
"""The keys of a host that SetHost knows."""

Form = tuple[re.Pattern[str], str]
_BOOLEAN: Final[Form] = (re.compile("true|false"), "It is true or false.")
_SCOPE: Final[Form] = (re.compile("system|home"), "It is system or home.")
_USER: Final[Form] = (USER_NAME, "A user name has lower-case letters, digits, _ and -, at most 31.")
_OF_PACKAGES: Final[Mapping[str, Form]] = {"scope": _SCOPE, "enabled": _BOOLEAN, "follows": _BOOLEAN, "user": _USER}
_OF_HOSTS: Final[Mapping[str, Form]] = {
    "system": (SYSTEM, "A system is one that Nix knows, such as x86_64-linux or aarch64-linux."),
    "primary_user": _USER,
    "default_scope": _SCOPE,
    "auto_apply": _BOOLEAN,
    "core_modules": _BOOLEAN,
    "state_version": (re.compile(r"[0-9]{2}\.[0-9]{2}", re.ASCII), "A release is spelt like 26.05."),
}


def package_changes(changes: dict[str, str]) -> dict[str, str]:
    """The changes of a package, where each key is known and each value has the form of its key."""
    for key in changes:
        if key not in PACKAGE_CHANGES and not key.startswith("config."):
            raise _unknown(key, "a package", (*PACKAGE_CHANGES, "config.NAME"))
    if changes.get("flake") == "":
        raise invalid("changes", "flake can't be cleared: a package comes from somewhere", hint="Remove the package.")
    _check(changes, _OF_PACKAGES)
    return changes


def setting_changes(changes: dict[str, str]) -> dict[str, str]:
    """The changes of a host's settings, likewise."""
    for key in changes:
        if key not in SETTING_CHANGES:
            raise _unknown(key, "a host", SETTING_CHANGES)
    _check(changes, _OF_HOSTS)
    return changes


def imported_files(files: dict[str, str]) -> dict[str, str]:
    """The files of a folder, which fit into one message and are files beside each other."""
    if sum(len(text.encode()) for text in files.values()) > MAX_IMPORTED_BYTES:
        raise invalid("files", f"they have more than {MAX_IMPORTED_BYTES} bytes together", hint="Leave some out.")
    for path in files:
        if any(folder in files for folder in _folders(path)):
            raise invalid("files", f"{path} is below a file")
    return files


def _folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts)))


def single_name(refs: Collection[str], name: str | None) -> None:
    """A name is for one package."""
    if name is not None and len(refs) > 1:
        raise invalid("name", "it can be given only with a single reference")


def user_of_a_home(scope: str | None, user: str | None) -> None:
    """A user belongs to a home, and a home is what naming one means."""
    if user is not None and scope == "system":
        raise invalid(
            "user", "a package of the system belongs to no user", hint="Leave --user out, or use --scope home."
        )


def _check(changes: Mapping[str, str], forms: Mapping[str, Form]) -> None:
    for key, (form, hint) in forms.items():
        value = changes.get(key, "")
        if value and not form.fullmatch(value):
            raise invalid("changes", f"{key}: {value[:60]!a} is no value that it can have", hint=hint)


def _unknown(key: str, what: str, known: Collection[str]) -> InvalidRequest:
    helps = did_you_mean(near(key, known, 1), f"There are: {', '.join(known)}.")
    return invalid("changes", f"{key} is no key of {what}", hint=helps)
