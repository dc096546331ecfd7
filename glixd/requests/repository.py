# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that are about the repository or the machine as a whole."""

from __future__ import annotations

from glixd import api
from glixd.errors import invalid
from glixd.model.change import Adopt, Collect, Regenerate, Rollback
from glixd.model.generations import Rule
from glixd.policy import Target
from glixd.requests import machine
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part, Prepared, digest_of
from glixd.undo import chosen


def adopt(tools: Tools, row: api.Operation, asked: api.AdoptParameters, context: Context) -> Made:
    """List what would be committed."""
    edits = tools.repository.edits(context.snapshot, everything=asked.everything)
    request = Adopt(tools.label(asked, context), asked.message, asked.everything)
    return request, (Part(row.policy, tuple(Target(path) for path in edits)),)


def rollback(tools: Tools, row: api.Operation, asked: api.RollbackParameters, context: Context) -> Made:
    """Find the commits, or the generation."""
    if asked.to_generation is not None:
        return machine.restore(tools, row, asked, context)
    if asked.boot:
        raise invalid("boot", "it says how to go back to a generation, and none is named", hint="Name one with --to.")
    git, target = context.snapshot.git, None
    if asked.to_commit is not None:
        target = git.ref(f"{asked.to_commit}^{{commit}}")
        if target is None or not git.is_ancestor(target, context.snapshot.commit):
            raise invalid("to_commit", f"{asked.to_commit} is no commit of the branch", hint="See: glixctl history")
    host = tools.host(asked, context)[0] if asked.host else None
    entries = chosen(git, context.snapshot.commit, steps=asked.steps, to_commit=target, host=host)
    targets = tuple(Target(entry.oid, entry.subject) for entry in entries)
    request = Rollback(tools.label(asked, context), tuple(entry.oid for entry in entries))
    return request, (Part(row.policy, targets),)


def regenerate(tools: Tools, row: api.Operation, asked: api.RegenerateParameters, context: Context) -> Made:
    """Nothing is left open."""
    return Regenerate(tools.label(asked, context)), (Part(row.policy),)


def collect(tools: Tools, row: api.Operation, asked: api.CollectGarbageParameters) -> Prepared:
    """Check what is said against each other; no repository is needed."""
    if asked.apply:
        raise invalid("apply", "collecting garbage changes nothing that could be applied")
    if asked.host not in (None, tools.default_host):
        raise invalid("host", f"garbage is collected on the machine of the daemon, {tools.default_host}")
    seconds = int(asked.older_than.removesuffix("d")) * 86400 if asked.older_than else None
    request = Collect(tools.default_host, Rule(asked.keep, seconds, asked.delete_old))
    said = {"keep": asked.keep, "older_than": asked.older_than, "delete_old": asked.delete_old or None}
    targets = tuple(Target(f"{name}={value}") for name, value in said.items() if value is not None)
    return Prepared(request, (Part(row.policy, targets),), digest_of(row.name, request))
