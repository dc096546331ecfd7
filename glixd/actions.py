# SPDX-License-Identifier: GPL-3.0-or-later
"""The polkit actions of glixd: how strong each is, and whom polkit lets through where no rule says otherwise.

`polkit/org.glixos.glix1.policy` says the same to polkit, in XML; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from glixd.protocol import POLKIT_PREFIX
from glixd.values import dataclass

ADMIN: Final = "auth_admin"
ADMIN_KEEP: Final = "auth_admin_keep"
SELF: Final = "auth_self"
YES: Final = "yes"


@dataclass(frozen=True, slots=True)
class Action:
    """One polkit action, without its prefix, and what polkit asks of a caller by default."""

    name: str
    any: str
    """Of a caller without a session at this machine."""
    inactive: str
    active: str
    implies: tuple[str, ...] = ()
    """Actions that whoever is authorised for this one needs no further question for."""


def _admin(name: str) -> Action:
    """An administrator, every time."""
    return Action(name, ADMIN, ADMIN, ADMIN)


def _keep(name: str, *implies: str) -> Action:
    """An administrator, who is remembered for some minutes in an active session."""
    return Action(name, ADMIN, ADMIN, ADMIN_KEEP, implies)


def _own(name: str) -> Action:
    """The user, without a question in an active session."""
    return Action(name, SELF, SELF, YES)


ACTIVATE_TRUSTED: Final = "system-activate-trusted"

ACTIONS: Final[tuple[Action, ...]] = (
    _admin("evaluation-skip"),
    _admin("source-modify"),
    _admin("system-activate"),
    _admin("repo-adopt-edits"),
    _admin("package-install-untrusted"),
    _admin("home-manage-other"),
    _keep("home-manage-own-untrusted"),
    _keep("transaction-cancel-other"),
    _keep("transaction-read-other"),
    _keep("host-manage"),
    _keep("garbage-collect"),
    _keep("system-rollback"),
    _keep("flake-update", ACTIVATE_TRUSTED),
    _keep("package-install-trusted", ACTIVATE_TRUSTED),
    _keep("package-remove", ACTIVATE_TRUSTED),
    _keep("package-configure", ACTIVATE_TRUSTED),
    _keep(ACTIVATE_TRUSTED),
    _own("home-manage-own"),
    _own("home-activate-own"),
)
"""From the strongest to the weakest: the first that needs a password is the one that is asked for."""

ASKED_BY_ACTIVATOR: Final = frozenset({"system-activate", ACTIVATE_TRUSTED, "home-activate-own"})
"""Actions that glixd itself never asks for: the program that puts a system or a home into effect does."""

REGISTERED: Final = frozenset(POLKIT_PREFIX + action.name for action in ACTIONS)
"""The full names, as polkit has to know them."""

_STRENGTH: Final = {POLKIT_PREFIX + action.name: place for place, action in enumerate(ACTIONS, 1)}


def strength(action: str) -> int:
    """The place of an action in the order of prompts; one that is not known comes before all others."""
    return _STRENGTH.get(action, 0)
