# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository with a daemon, as integration has it, and a network with other machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import daemon, nix, site, sources
from tests.support.daemon import RunningDaemon, Site, Template, new_site
from tests.support.hermetic import HermeticNix
from tests.support.network import Network, network
from tests.support.repositories import Sources

__all__ = ["daemon", "nix", "site", "sources"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, sources: Sources) -> Template:
    """A repository with three hosts, of which the first is this machine, each built once."""
    with new_site(tmp_path_factory.mktemp("template"), nix) as site, RunningDaemon(site) as daemon:
        daemon.done("Init", **site.init_parameters(sources))
        for host in ("pi", "desk"):
            daemon.done("Init", host=host, user="alice", system="x86_64-linux")
            daemon.done("Rebuild", host=host, action="build")
        return Template(site.repository, site.state / "cache", nix)


@pytest.fixture
def lan(tmp_path: Path, site: Site) -> Iterator[Network]:
    """A network in which nobody is yet."""
    with network(tmp_path / "lan", site.nix) as made:
        yield made
