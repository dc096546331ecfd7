# SPDX-License-Identifier: GPL-3.0-or-later
"""What was built here for another machine. Who switched that one says which generation it became; the rest we know ourselves."""

from __future__ import annotations

from typing import Final

from glixd import api
from glixd.errors import Refused
from glixd.model.change import Remember
from glixd.protocol import State

BUILDS: Final = (api.Action.BUILD, api.Action.DRY_BUILD)
"""What leaves the switch to somebody else; a dry build, where another machine builds."""


def built_by(record: api.Transaction, generation: int) -> Remember:
    """What a transaction built for somebody else to put to use; raises Refused where it built nothing of the kind, or not yet."""
    if not State(record.state).final:
        raise Refused(
            f"Transaction {record.id} is still under way.",
            hint=f"Wait for its end: glixctl transaction watch {record.id}",
            details={"transaction": record.id},
        )
    rebuilt = record.outcome.rebuild if record.outcome and record.state == State.SUCCEEDED else None
    path = (rebuilt.path or rebuilt.output) if rebuilt else None
    if rebuilt is None or path is None or rebuilt.home or rebuilt.action not in BUILDS:
        raise Refused(
            f"Transaction {record.id} built no system that another machine could be switched to.",
            hint="Name the one of: glixctl rebuild build",
            details={"transaction": record.id},
        )
    return Remember(rebuilt.host, generation, rebuilt.commit, path, record.id)
