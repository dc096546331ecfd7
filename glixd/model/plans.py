# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of batches that were made when the request was prepared, for when its turn has come: planning is most of a batch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from glixd.model.change import Base, Batch, Plan, Planned
from glixd.model.operations import plan

KEPT: Final = 4
"""Plans that wait; each has the text of a manifest."""


class Plans:
    """What a plan is follows from the files of a commit and the request alone: it holds where both are the same.

    So it is not kept of files with edits of people in them, and not found once somebody committed. Safe from any thread.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, Batch], Plan] = OrderedDict()
        self._using = threading.Lock()

    def keep(self, base: Base, request: Batch, planned: Plan) -> None:
        """Keep a plan that was made of a request."""
        if base.commit is not None:
            with self._using:
                self._kept[base.commit, request] = planned
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)

    def plan(self, base: Base, request: Planned) -> Plan:
        """The plan of a request: the one that was kept, which goes, or a new one; raises what forbids it."""
        if base.commit is not None and isinstance(request, Batch):
            with self._using:
                kept = self._kept.pop((base.commit, request), None)
            if kept is not None:
                return kept
        return plan(base, request)
