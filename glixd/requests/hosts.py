# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that change the hosts of the repository."""

from __future__ import annotations

from glixd import api
from glixd.api import Caller, Policy
from glixd.backends.snapshot import unknown_host
from glixd.errors import invalid
from glixd.model import takeover
from glixd.model.change import Init, RemoveHost, RenameHost, SetHost
from glixd.model.flakeref import FlakeRef, Local
from glixd.policy import Target
from glixd.profiles import chosen
from glixd.protocol import DEFAULT_CORE_URL, DEFAULT_HOME_MANAGER_URL, DEFAULT_NIXPKGS_URL
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Made, Part


def init(tools: Tools, asked: api.InitParameters, caller: Caller) -> Made:
    """Fill in this machine's name and system, the caller, and where the inputs come from."""
    fresh = not tools.repository.exists
    given = {"nixpkgs": asked.nixpkgs, "core": asked.core, "home_manager": asked.home_manager}
    for name, value in given.items():
        if value is not None and not fresh:
            raise invalid(
                name, "the repository is there already and keeps its inputs", hint="Edit flake.nix to change them."
            )
    if any(value and FlakeRef.parse(value).local is Local.ABSOLUTE for value in given.values() if value != "none"):
        tools.check_local(caller)
    user = asked.user or caller.login
    if not api.USER_NAME.fullmatch(user) or user == "root":
        raise invalid("user", f"{user} can't be the primary user of a machine", hint="Name one with --user NAME.")
    manager = asked.home_manager or DEFAULT_HOME_MANAGER_URL
    system = asked.system or tools.nix.system()
    own = takeover.nixpkgs_of(asked.files) if asked.files and takeover.entry_of(asked.files) == takeover.FLAKE else None
    request = Init(
        host=asked.host or tools.default_host,
        user=user,
        system=system,
        nixpkgs=_source("nixpkgs", asked.nixpkgs or own or DEFAULT_NIXPKGS_URL),
        core=_source("core", asked.core or DEFAULT_CORE_URL),
        home_manager=None if manager == "none" else _source("home_manager", manager),
        files=tuple(sorted(asked.files.items())),
        modules=() if asked.files else chosen(asked.profile, system).imports,
    )
    sources = [*given.values(), own if fresh and asked.nixpkgs is None else None]
    parts = [Part(Policy.HOST_MANAGE, sources=tuple(value for value in sources if value))]
    if asked.files:  # what somebody wrote becomes part of a system: as much as committing an edit by hand
        parts.append(Part(Policy.ADOPT, tuple(Target(f"hosts/{request.host}/{path}") for path, _ in request.files)))
    return request, tuple(parts)


def set_host(tools: Tools, row: api.Operation, asked: api.SetHostParameters, context: Context) -> Made:
    """Check that the host is there."""
    host, _ = tools.host(asked, context)
    urls = tuple(value for key, value in asked.changes.items() if key == "registry_url" and value)
    return SetHost(host, tuple(sorted(asked.changes.items()))), (
        Part(row.policy, sources=urls, keys=tuple(sorted(asked.changes))),
    )


def remove_host(tools: Tools, row: api.Operation, asked: api.RemoveHostParameters, context: Context) -> Made:
    """Check that the host is there."""
    return RemoveHost(_named(tools, asked, context)), (Part(row.policy),)


def rename_host(tools: Tools, row: api.Operation, asked: api.RenameHostParameters, context: Context) -> Made:
    """Check that the host is there."""
    return RenameHost(_named(tools, asked, context), asked.to), (Part(row.policy),)


def _named(tools: Tools, asked: api.RemoveHostParameters, context: Context) -> str:
    if asked.name not in context.base.manifests:
        raise unknown_host(asked.name, list(context.base.manifests))
    return asked.name


def _source(name: str, url: str) -> str:
    reference = FlakeRef.parse(url)
    if reference.attribute is not None:
        raise invalid(name, "a flake URL has no #attribute")
    return reference.input_url(None)
