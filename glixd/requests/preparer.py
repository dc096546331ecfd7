# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a caller said to a request in which nothing is left to look up: names resolved, defaults filled in, a digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from glixd import api
from glixd.api import Caller
from glixd.backends.process import Cancellation
from glixd.model.change import Resolved
from glixd.requests import batch, hosts, inputs, machine, pushing, repository
from glixd.requests.batch import Maker
from glixd.requests.revisions import with_locked, with_revisions
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Prepared, digest_of
from glixd.resolvers.chain import resolve


class Preparer:
    """Looks up whatever a request leaves open. May take long: it never runs inside the queue."""

    def __init__(self, tools: Tools, *, owner_adopts: bool) -> None:
        self._tools = tools
        self._owner_adopts = owner_adopts

    def prepare(
        self, row: api.Operation, parameters: api.MutationParameters, caller: Caller, cancellation: Cancellation
    ) -> Prepared:
        """The resolved form of a mutation; raises what makes it impossible."""
        tools = self._tools
        if isinstance(parameters, api.CollectGarbageParameters):
            return repository.collect(tools, row, parameters)
        if isinstance(parameters, api.RebuildParameters):
            return machine.rebuild(tools, row, parameters, self._context(caller, cancellation))
        if isinstance(parameters, api.RememberGenerationParameters):
            return machine.remember(tools, row, parameters)
        if isinstance(parameters, api.InitParameters):
            request, parts = hosts.init(tools, parameters, caller)
        else:
            context = self._context(caller, cancellation)
            request, parts = _MAKERS[row.name](tools, row, parameters, context)
            tools.require_features(request, context)
            request = with_revisions(tools, request, context)
        return Prepared(request, with_locked(parts, request), digest_of(row.name, request))

    def resolve(self, parameters: api.ResolveParameters, cancellation: Cancellation) -> tuple[Resolved, ...]:
        """What names and references mean on a host."""
        snapshot = self._tools.repository.snapshot()
        host = parameters.host or self._tools.default_host
        asking = self._tools.asking(snapshot, host, snapshot.manifest(host), cancellation)
        return tuple(resolve(text, asking, pin=None, name=None, allow_local=True) for text in parameters.refs)

    def names(self, host: str, cancellation: Cancellation) -> list[str]:
        """The names of the top level of a host's nixpkgs."""
        snapshot = self._tools.repository.snapshot()
        return self._tools.asking(snapshot, host, snapshot.manifest(host), cancellation).names()

    def near(self, name: str, host: str, cancellation: Cancellation) -> list[str]:
        """The names that are known on a host and spelt most like `name`."""
        snapshot = self._tools.repository.snapshot()
        return self._tools.asking(snapshot, host, snapshot.manifest(host), cancellation).near(name)

    def _context(self, caller: Caller, cancellation: Cancellation) -> Context:
        snapshot = self._tools.repository.snapshot()
        edits = self._tools.repository.edited_texts(snapshot) if self._owner_adopts else {}
        return Context(snapshot, snapshot.base(edits, self._tools.nix.system()), caller, cancellation)


_MAKERS: Final[Mapping[str, Maker]] = {
    **batch.MAKERS,
    "Apply": batch.apply,
    "RemoveHost": hosts.remove_host,
    "RenameHost": hosts.rename_host,
    "Update": inputs.update,
    "Adopt": repository.adopt,
    "Push": pushing.push,
    "Rollback": repository.rollback,
    "Regenerate": repository.regenerate,
}
