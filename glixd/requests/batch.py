# SPDX-License-Identifier: GPL-3.0-or-later
"""Several requests as one: each is made on what the ones before it leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from glixd import api
from glixd.errors import invalid
from glixd.model.change import Batch, Planned
from glixd.model.operations import naming_part, plan, planned_base
from glixd.requests import hosts, packages
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part

Maker = Callable[[Tools, api.Operation, Any, Context], Made]

BATCHED: Final[Mapping[str, Maker]] = {
    "Add": packages.add,
    "Remove": packages.remove,
    "Enable": packages.switch,
    "Disable": packages.switch,
    "Set": packages.set_keys,
    "Move": packages.move,
    "SetHost": hosts.set_host,
}
"""What a batch may consist of."""


def apply(tools: Tools, _row: api.Operation, asked: api.ApplyParameters, context: Context) -> Made:
    """Prepare each part on what the parts before it leave."""
    requests: list[Any] = []
    parts: list[Part] = []
    for number, operation in enumerate(asked.operations, 1):
        with naming_part(number):
            inner, parameters = _inner(operation, asked)
            request, found = BATCHED[inner.name](tools, inner, parameters, context)
            planned = plan(context.base, cast(Planned, request))
        context = replace(context, base=planned_base(context.base, planned))
        requests.append(request)
        parts.extend(found)
    return Batch(requests[0].host, tuple(requests)), tuple(parts)


def _inner(operation: Mapping[str, object], asked: api.ApplyParameters) -> tuple[api.Operation, api.Parameters]:
    """One operation of a batch, validated like a request of its own; the host of the batch is its default."""
    arguments = dict(operation)
    name = arguments.pop("operation", None)
    if name not in BATCHED:
        raise invalid("operation", f"it is one of {', '.join(BATCHED)}, not {str(name)[:60]!a}")
    common = sorted(arguments.keys() & (api.MutationParameters.model_fields.keys() - {"host"}))
    if common:
        raise invalid(common[0], "it belongs to the batch as a whole")
    if asked.host is not None:
        arguments.setdefault("host", asked.host)
    row = api.operation(str(name))
    return row, api.parse(row, arguments)
