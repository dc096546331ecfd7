# SPDX-License-Identifier: GPL-3.0-or-later
"""Root says what it wants, where only root can write: polkit is not asked about root, and the daemon is not believed."""

from __future__ import annotations

import os

from glixd.protocol import SYSTEM_SETTINGS, SYSTEM_WISHES

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def wants(mode: str, method: str, params: Mapping[str, Any], uid: int, settings: str = SYSTEM_SETTINGS) -> bool:
    """Whether this is root, who wants the machine switched."""
    if uid != 0 or mode != "system" or params.get("dry_run"):
        return False
    if params.get("unattended"):
        return _switches_unattended(settings)
    return bool(params.get("apply")) or method in ("Rebuild", "Rollback")


def say(transaction: str, folder: str = SYSTEM_WISHES) -> None:
    """Let the activator know that root wants this transaction."""
    if transaction.isalnum() and os.path.isdir(folder):
        os.close(os.open(os.path.join(folder, transaction), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def take_back(transaction: str, folder: str = SYSTEM_WISHES) -> None:
    """The transaction has ended: whatever it was, it is not wanted again."""
    if transaction.isalnum():
        try:
            os.unlink(os.path.join(folder, transaction))
        except OSError:
            return  # it was heard


def _switches_unattended(settings: str) -> bool:
    """Whether the administrator has updates switched to that nobody watches; whoever has them staged wants no switch."""
    import tomllib  # slow to load, and needed by a timer alone

    try:
        with open(settings, "rb") as file:
            return tomllib.load(file).get("auto_update") == "switch"
    except (OSError, ValueError, RecursionError):  # the daemon says what is wrong with it
        return False
