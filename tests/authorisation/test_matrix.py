# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what, asked of the real thing: every operation, by everybody, on both front-ends, against a golden file."""

from __future__ import annotations

import pytest

from glixd import api
from glixd.actions import ASKED_BY_ACTIVATOR, REGISTERED
from glixd.api import Kind, Policy
from glixd.protocol import POLKIT_PREFIX
from tests.support.matrix import GOLDEN, PRINCIPALS, ROWS, TRANSPORTS, Matrix, measured, text

pytestmark = [pytest.mark.integration, pytest.mark.nix]

Measured = tuple[Matrix, set[str]]


@pytest.fixture(scope="module")
def found() -> Measured:
    """The matrix as it is; it takes a minute, so all tests of this file share it."""
    return measured()


def test_every_operation_is_asked_for_by_everybody_on_both_front_ends() -> None:
    asked = {(row.method, transport) for row in ROWS for transport in row.transports}
    assert {(name, transport) for name in api.OPERATIONS for transport in TRANSPORTS} <= asked
    assert {"Get", "GetAll", "Set", "Introspect", "GetManagedObjects", "Cancel"} <= {
        method.rpartition(".")[2] for method, _ in asked
    }


@pytest.mark.timeout(900)
def test_everybody_may_do_what_the_golden_file_says_and_nothing_else(found: Measured) -> None:
    assert text(found[0]) == GOLDEN.read_text(), (
        "Who may do what has changed. Look at each line of the difference; if all of it is meant: "
        "python -m tests.support.matrix"
    )


def test_both_front_ends_say_the_same(found: Measured) -> None:
    matrix = found[0]
    for label, transport in matrix:
        if transport == "socket":
            by_socket = {who: cell.split()[0] for who, cell in matrix[label, "socket"].items()}
            by_bus = {who: cell.split()[0] for who, cell in matrix[label, "bus"].items()}
            assert by_socket == by_bus, label


def test_every_action_was_decided_about_but_those_of_the_activator(found: Measured) -> None:
    assert {action for action in REGISTERED if action.removeprefix(POLKIT_PREFIX) not in ASKED_BY_ACTIVATOR} == found[1]


def test_nobody_changes_anything(found: Measured) -> None:
    """Whoever is nobody in particular may read, and no more."""
    for row in ROWS:
        operation = api.OPERATIONS.get(row.method)
        if operation and operation.kind is Kind.MUTATION and operation.policy is not Policy.ACTIVATE:
            for transport in row.transports:
                assert not found[0][row.label, transport]["nobody"].startswith("yes"), row.label


def test_only_root_may_do_everything(found: Measured) -> None:
    for (label, _), cells in found[0].items():
        assert "Authoris" not in cells["root"], label
        for who in PRINCIPALS[1:]:
            assert cells[who] == cells["root"] or "Authoris" in cells[who] or "sees" in cells[who], label
