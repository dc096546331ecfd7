# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of keys that have a form of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from glixd import api
from glixd.errors import invalid


def check_values(values: Mapping[str, str]) -> None:
    """The values of keys that have a form of their own."""
    for key, allowed in (("scope", ("system", "home")), ("enabled", ("true", "false")), ("follows", ("true", "false"))):
        if values.get(key, "") not in (*allowed, ""):
            raise invalid("changes", f"{key} is {' or '.join(allowed)}, not {values[key][:60]!a}")
    if values.get("flake") == "":
        raise invalid("changes", "flake can't be cleared: a package comes from somewhere", hint="Remove the package.")
    user = values.get("user", "")
    if user and not api.USER_NAME.fullmatch(user):
        raise invalid("changes", f"user: {user[:60]!a} is not a user name")


def check_settings(values: Mapping[str, str]) -> None:
    """The values of settings that have a form of their own; the empty text clears any."""
    for key, (form, hint) in _FORMS.items():
        value = values.get(key, "")
        if value and not form.fullmatch(value):
            raise invalid("changes", f"{key}: {value[:60]!a} is no value that it can have", hint=hint)


_FORMS: Final = {
    "system": (api.SYSTEM, "A system is one that Nix knows, such as x86_64-linux or aarch64-linux."),
    "primary_user": (api.USER_NAME, "A user name has lower-case letters, digits, _ and -, at most 31."),
    "default_scope": (re.compile("system|home"), "It is system or home."),
    "state_version": (re.compile(r"[0-9]{2}\.[0-9]{2}", re.ASCII), "A release is spelt like 26.05."),
}
