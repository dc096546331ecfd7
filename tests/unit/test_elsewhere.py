# SPDX-License-Identifier: GPL-3.0-or-later
"""What another machine became is told of a build that is over, and of nothing else."""

from __future__ import annotations

import pytest

from glixd import api
from glixd.api import Action
from glixd.errors import Refused
from glixd.model.change import Remember
from glixd.protocol import State
from glixd.rebuilding.elsewhere import built_by

COMMIT, PATH = "c" * 40, "/nix/store/x-nixos-system-pi"


def record(state: State = State.SUCCEEDED, action: Action = Action.BUILD, **rebuilt: str) -> api.Transaction:
    told = {"path": PATH, **rebuilt} if "output" not in rebuilt else rebuilt
    done = api.Rebuilt(action=action, host="pi", commit=COMMIT, activated=False, **told)  # type: ignore[arg-type]
    return api.Transaction(
        id="0" * 26,
        operation="Rebuild",
        host="pi",
        state=state,
        uid=1000,
        login="alice",
        created="2026-01-01T00:00:00Z",
        dry_run=False,
        outcome=api.Outcome(summary="built", changed=True, rebuild=done),
    )


def test_all_but_the_number_comes_from_the_record() -> None:
    told = Remember("pi", 3, COMMIT, PATH, "0" * 26)
    assert built_by(record(), 3) == told
    assert built_by(record(action=Action.DRY_BUILD, output=PATH), 3) == told


@pytest.mark.parametrize("state", [state for state in State if not state.final])
def test_a_build_that_is_under_way_built_nothing_yet(state: State) -> None:
    with pytest.raises(Refused, match="is still under way"):
        built_by(record(state), 3)


@pytest.mark.parametrize(
    "other",
    [
        record(State.FAILED),
        record(State.CANCELLED),
        record(action=Action.SWITCH),
        record(action=Action.TEST),
        record(home="alice"),
        record().model_copy(update={"outcome": None}),
        record().model_copy(update={"outcome": api.Outcome(summary="added hello", changed=True)}),
    ],
)
def test_what_built_no_system_for_another_machine_is_refused(other: api.Transaction) -> None:
    with pytest.raises(Refused, match="built no system that another machine could be switched to"):
        built_by(other, 3)
