# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from glixd.backends.bundles import Bundles, Uploads
from glixd.backends.logs import Logs
from glixd.backends.nix import Nix
from glixd.backends.profile import Profile
from glixd.backends.repository import Repository
from glixd.backends.state import Database
from glixd.culprit import Culprits
from glixd.doctor import Doctor
from glixd.garbage import Collector
from glixd.health import HealthKeeper
from glixd.housekeeping import Housekeeper
from glixd.indexing import Indexer
from glixd.locking import Locker
from glixd.policy import Authority
from glixd.queries import Queries
from glixd.queue import Queue
from glixd.rates import Rates
from glixd.rebuilding.activation import Activation
from glixd.rebuilding.listing import Generations
from glixd.rebuilding.rebuilder import Rebuilder
from glixd.requests.preparer import Preparer
from glixd.search import Searcher
from glixd.transaction import Transactor
from glixd.values import dataclass
from glixd.watchers import Watchers


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the engine uses; the daemon builds it once."""

    repository: Repository
    queries: Queries
    doctor: Doctor
    preparer: Preparer
    transactor: Transactor
    culprits: Culprits
    collector: Collector
    rebuilder: Rebuilder
    activation: Activation
    generations: Generations
    profile: Profile
    logs: Logs
    locker: Locker
    queue: Queue
    health: HealthKeeper
    housekeeper: Housekeeper
    indexer: Indexer
    searcher: Searcher
    database: Database
    authority: Authority
    watchers: Watchers
    rates: Rates
    bundles: Bundles
    uploads: Uploads
    build_repository: Callable[[Path], Repository]
    nix_of: Callable[[Repository], Nix]
    """The nix that evaluates the commits of a repository."""
    mode: str
    default_host: str
    branch: str
    evaluate: bool
    rollback_on_failure: bool
    unattended: str
    """What an update does that nobody watches: off, stage or switch."""
