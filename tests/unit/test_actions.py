# SPDX-License-Identifier: GPL-3.0-or-later
"""The polkit actions: the file that polkit reads and the table that the policy reads say the same."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

from glixd import actions, policy
from glixd.actions import ACTIONS, ASKED_BY_ACTIVATOR, Action, strength
from glixd.protocol import POLKIT_PREFIX

POLKIT = Path(__file__).resolve().parents[2] / "polkit"
POLICY = POLKIT / "org.glixos.glix1.policy"
IMPLY = "org.freedesktop.policykit.imply"
OWNER = "org.freedesktop.policykit.owner"


def declared() -> list[ElementTree.Element]:
    return ElementTree.parse(POLICY).findall("action")


def annotated(element: ElementTree.Element, key: str) -> list[str]:
    return [found.text or "" for found in element.findall("annotate") if found.get("key") == key]


def action_of(element: ElementTree.Element) -> Action:
    return Action(
        name=(element.get("id") or "").removeprefix(POLKIT_PREFIX),
        any=element.findtext("defaults/allow_any") or "",
        inactive=element.findtext("defaults/allow_inactive") or "",
        active=element.findtext("defaults/allow_active") or "",
        implies=tuple(name.removeprefix(POLKIT_PREFIX) for name in " ".join(annotated(element, IMPLY)).split()),
    )


def test_the_policy_file_and_the_table_say_the_same() -> None:
    assert tuple(action_of(element) for element in declared()) == ACTIONS


def test_every_action_belongs_to_the_user_of_the_daemon_else_polkit_would_refuse_to_answer() -> None:
    for element in declared():
        assert annotated(element, OWNER) == ["unix-user:glixd"], element.get("id")


def test_every_action_says_what_will_happen() -> None:
    for element in declared():
        assert element.findtext("description"), element.get("id")
        message = element.findtext("message") or ""
        assert message.startswith("Authentication is required to "), element.get("id")
        assert len(message) < 160


def test_what_is_not_trusted_is_never_kept() -> None:
    """A kept authorisation is not bound to what was shown: trusted and untrusted must not share an action."""
    for action in ACTIONS:
        if action.name in ("package-install-untrusted", "system-activate", "source-modify", "evaluation-skip"):
            assert {action.any, action.inactive, action.active} == {"auth_admin"}
            assert action.implies == ()


def test_only_what_a_user_does_at_home_goes_without_an_administrator() -> None:
    lenient = {action.name for action in ACTIONS if "admin" not in action.active}
    assert lenient == {"home-manage-own", "home-activate-own"}
    assert {action.any for action in ACTIONS if action.name in lenient} == {"auth_self"}


def test_an_action_that_is_not_known_is_the_strongest() -> None:
    assert strength(POLKIT_PREFIX + "made-up") < min(strength(POLKIT_PREFIX + action.name) for action in ACTIONS)
    assert strength("package-remove") == 0


def test_what_is_implied_is_weaker() -> None:
    place = {action.name: number for number, action in enumerate(ACTIONS)}
    for action in ACTIONS:
        for implied in action.implies:
            assert place[implied] > place[action.name]


def test_the_policy_asks_for_the_actions_that_there_are_and_for_no_other() -> None:
    """Read from the source: whatever is passed on as the name of an action."""
    known = {action.name for action in ACTIONS}
    words = {
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(policy)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert words & known == known - ASKED_BY_ACTIVATOR
    assert known > ASKED_BY_ACTIVATOR


def test_an_action_has_no_field_that_is_not_compared() -> None:
    assert [field.name for field in fields(Action)] == ["name", "any", "inactive", "active", "implies"]
    assert {POLKIT_PREFIX + action.name for action in ACTIONS} == actions.REGISTERED
