# SPDX-License-Identifier: GPL-3.0-or-later
"""What the makers of requests look things up with."""

from __future__ import annotations

from collections.abc import Callable

from glixd import api
from glixd.api import Caller
from glixd.backends.bundles import Uploads
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation
from glixd.backends.profile import Profile
from glixd.backends.repository import Repository
from glixd.backends.snapshot import Snapshot, unknown_host
from glixd.backends.state import Database
from glixd.errors import InvalidRequest, Refused
from glixd.locking import Locker
from glixd.model.change import ALL_HOSTS, Request
from glixd.model.manifest import Manifest
from glixd.model.operations import features
from glixd.model.plans import Plans
from glixd.protocol import DEFAULT_CORE_URL, ErrorCode
from glixd.rebuilding.listing import Generations
from glixd.requests.values import Context
from glixd.resolvers.asking import Asking, Facts
from glixd.values import dataclass


@dataclass(frozen=True, slots=True)
class Unattended:
    """What an update does that nobody watches."""

    action: str
    """off, stage or switch."""
    inputs: tuple[str, ...]
    age: int
    """Days since a locked revision was made, before which its input is left alone."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The doors that a request is made with, and what is meant where nothing is said."""

    repository: Repository
    nix: Nix
    facts: Facts
    locker: Locker
    database: Database
    generations: Generations
    profile: Profile
    default_host: str
    switches: bool
    """Whether this daemon may switch the machine, by an activator."""
    knock: Callable[[], None]
    """Have the activator started beside the preparation of what will need it."""
    rollback_on_failure: bool
    uploads: Uploads
    local_paths: bool
    """Whether everybody may consent to a folder of this machine, and not root alone."""
    unattended: Unattended
    plans: Plans
    """The plans that are made while batches are prepared."""

    def check_local(self, caller: Caller) -> None:
        """Refuse a folder of this machine outside the repository; raises LocalPathRefused for all but root, on a system."""
        if not self.local_paths and caller.uid != 0:
            raise InvalidRequest(
                "On a system only root may use a folder of the machine outside the repository.",
                code=ErrorCode.LOCAL_PATH_REFUSED,
                hint="Commit the folder and use path:./FOLDER, or ask an administrator.",
            )

    def host(self, asked: api.MutationParameters, context: Context) -> tuple[str, Manifest]:
        """The host that is meant, with its manifest; raises UnknownHost."""
        host = asked.host or self.default_host
        if host not in context.base.manifests:
            raise unknown_host(host, list(context.base.manifests))
        return host, context.base.manifests[host]

    def label(self, asked: api.MutationParameters, context: Context) -> str:
        """The host that a change of the repository as a whole is told under: the one that was named, else all."""
        return self.host(asked, context)[0] if asked.host else ALL_HOSTS

    def asking(self, snapshot: Snapshot, host: str, manifest: Manifest, cancellation: Cancellation) -> Asking:
        """What the names of a host are asked with."""
        system = manifest.settings.system or self.nix.system()
        return Asking(self.facts, snapshot, host, system, cancellation, manifest.settings.registry_url)

    def require_features(self, request: Request, context: Context) -> None:
        """Refuse a change that the locked core would not understand; raises CoreTooOld."""
        needed = features(request)
        if not needed:
            return
        manifest = context.base.manifests[request.host]
        asking = self.asking(context.snapshot, request.host, manifest, context.cancellation)
        missing = sorted(needed - asking.core_features())
        if missing:
            raise Refused(
                f"The locked glixos-core does not understand {', '.join(missing)}, which this change needs.",
                code=ErrorCode.CORE_TOO_OLD,
                hint=f"Let glixos-core point to {DEFAULT_CORE_URL} in flake.nix, then run: glixctl regen",
                details={"missing": missing},
            )
