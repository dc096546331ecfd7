# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository with a daemon, as integration has it, and a network with other machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import daemon, nix, site, sources, template
from tests.support.daemon import Site
from tests.support.network import Network, network

__all__ = ["daemon", "nix", "site", "sources", "template"]


@pytest.fixture
def lan(tmp_path: Path, site: Site) -> Iterator[Network]:
    """A network in which nobody is yet."""
    with network(tmp_path / "lan", site.nix) as made:
        yield made
