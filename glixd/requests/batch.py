# SPDX-License-Identifier: GPL-3.0-or-later
"""Several requests as one: each is made on what the ones before it leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from glixd import api
from glixd.errors import naming_part
from glixd.model.change import Batch, Plan, Planned
from glixd.model.operations import plan, planned_base, together
from glixd.requests import hosts, packages
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part

Maker = Callable[[Tools, api.Operation, Any, Context], Made]

MAKERS: Final[Mapping[str, Maker]] = {
    "Add": packages.add,
    "Remove": packages.remove,
    "Enable": packages.enable,
    "Disable": packages.disable,
    "Set": packages.set_keys,
    "Move": packages.move,
    "SetHost": hosts.set_host,
}
"""One for each of `api.BATCHED`."""


def apply(tools: Tools, _row: api.Operation, asked: api.ApplyParameters, context: Context) -> Made:
    """Prepare each part on what the parts before it leave."""
    requests: list[Any] = []
    plans: list[Plan] = []
    start = context.base
    parts: list[Part] = []
    for number, (row, parameters) in enumerate(api.parse_parts(asked), 1):
        with naming_part(number):
            request, found = MAKERS[row.name](tools, row, parameters, context)
            planned = plan(context.base, cast(Planned, request))
        context = replace(context, base=planned_base(context.base, planned))
        plans.append(planned)
        requests.append(request)
        parts.extend(found)
    batch = Batch(requests[0].host, tuple(requests))
    tools.plans.keep(start, batch, together(batch.host, plans))
    return batch, tuple(parts)
