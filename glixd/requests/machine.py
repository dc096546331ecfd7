# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that make a machine what a commit says, or what it was as a generation."""

from __future__ import annotations

from glixd import api
from glixd.api import Policy
from glixd.backends.state import unknown_transaction
from glixd.errors import Failed, Refused, invalid
from glixd.model.change import Rebuild, Restore
from glixd.policy import Target
from glixd.protocol import ErrorCode
from glixd.rebuilding.elsewhere import built_by
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part, Prepared, digest_of
from glixd.undo import undoable_since


def rebuild(tools: Tools, row: api.Operation, asked: api.RebuildParameters, context: Context) -> Prepared:
    """Take the newest commit: what is built is that, whatever is committed meanwhile."""
    host, _ = tools.host(asked, context)
    if asked.apply:
        raise invalid("apply", "a rebuild is what it asks for")
    if asked.home:
        return _home(row, asked, host, context)
    back = tools.rollback_on_failure if asked.rollback_on_failure is None else asked.rollback_on_failure
    request = Rebuild(host, context.snapshot.commit, asked.action, asked.keep_going_without, back)
    builds_only = asked.action in (api.Action.BUILD, api.Action.DRY_BUILD)
    policy = Policy.BUILD if builds_only else row.policy
    parts = [Part(policy, (Target(context.snapshot.commit, asked.action),))]
    if asked.keep_going_without:
        parts.append(Part(Policy.CONFIGURE))
    return Prepared(request, tuple(parts), digest_of(row.name, request))


def _home(row: api.Operation, asked: api.RebuildParameters, host: str, context: Context) -> Prepared:
    """The caller's own home: it is only built here, and nobody has to allow that."""
    if asked.action not in (api.Action.SWITCH, api.Action.BUILD, api.Action.DRY_BUILD) or asked.keep_going_without:
        raise invalid("home", "a home is built, and put into effect by its owner at once")
    manifest, login = context.base.manifests[host], context.caller.login
    if not any(manifest.user_of(package) == login for package in manifest.packages.values() if package.enabled):
        raise Refused(
            f"{host} has no packages for the home of {login}.",
            code=ErrorCode.NOT_INSTALLED,
            hint="Add one: glixctl add NAME --scope home",
        )
    action = api.Action.DRY_BUILD if asked.action is api.Action.DRY_BUILD else api.Action.BUILD
    request = Rebuild(host, context.snapshot.commit, action, user=login)
    return Prepared(
        request, (Part(Policy.BUILD, (Target(context.snapshot.commit, action),)),), digest_of(row.name, request)
    )


def remember(tools: Tools, row: api.Operation, asked: api.RememberGenerationParameters) -> Prepared:
    """Take from the record of a transaction what it built: the caller knows only which generation that became."""
    if asked.apply:
        raise invalid("apply", "the machine is switched already")
    record = tools.database.load(asked.build)
    if record is None:
        raise unknown_transaction(asked.build)
    request = built_by(record, asked.generation)
    if asked.host not in (None, request.host):
        raise invalid("host", f"transaction {record.id} built {request.host}")
    tools.generations.check(request)
    return Prepared(request, (Part(row.policy, keys=("generation",)),), digest_of(row.name, request))


def restore(tools: Tools, row: api.Operation, asked: api.RollbackParameters, context: Context) -> Made:
    """Find the generation, and the commit that it was built from; raises UnknownGeneration."""
    number = asked.to_generation or 0
    if others := [name for name in ("steps", "to_commit") if getattr(asked, name) is not None]:
        raise invalid("to_generation", f"it can't be combined with {' or '.join(others)}", others=others)
    host, _ = tools.host(asked, context)
    if host != tools.default_host:
        raise invalid("host", f"the generations of {host} are on that machine; this is {tools.default_host}")
    path = tools.profile.path(number)
    command = tools.profile.switch_command(path, "boot" if asked.boot else "switch", number)
    if not tools.switches:
        raise Failed(
            "This daemon may not switch the machine, and a rollback to a generation does both or neither.",
            code=ErrorCode.UNSUPPORTED_HERE,
            hint=f"Switch with: {command}   and bring the manifest back with: glixctl rollback --to COMMIT",
            details={"command": command},
        )
    if not asked.dry_run:
        tools.knock()
    commit, head, git = tools.generations.commit(number, path), context.snapshot.commit, context.snapshot.git
    newer = undoable_since(git, head, commit) if commit else None
    if commit is None or newer is None:
        raise Refused(
            f"Generation {number} was not built from a commit of this branch, so there is no manifest to go back to.",
            hint=f"Switch to it by hand: {command}",
            details={"generation": number, "command": command},
        )
    undoes = tuple(entry.oid for entry in newer)
    targets = (Target(f"generation {number}", commit),)
    return Restore(host, number, commit, path, asked.boot, undoes), (Part(row.policy, targets),)
