# SPDX-License-Identifier: GPL-3.0-or-later
"""A nix, the stand-ins for public flakes, and a home with a repository and a daemon for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon, Site, Template, new_site
from tests.support.hermetic import HermeticNix
from tests.support.repositories import Sources


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HermeticNix]:
    """A nix of this session's own."""
    hermetic = HermeticNix(tmp_path_factory.mktemp("nix"))
    yield hermetic
    hermetic.remove()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Repositories that stand in for nixpkgs, home-manager, the core and two packages."""
    return Sources.make(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, sources: Sources) -> Template:
    """The repository that `Init` makes, with the host laptop of alice."""
    return Template.make(tmp_path_factory.mktemp("template"), nix, sources)


@pytest.fixture
def site(tmp_path: Path, template: Template) -> Iterator[Site]:
    """A home with a repository, and no daemon yet."""
    with new_site(tmp_path / "site", template.nix, template) as made:
        yield made


@pytest.fixture
def unbuilt_site(tmp_path: Path, sources: Sources) -> Iterator[Site]:
    """The same with a nix of its own, which has not built anything for another test."""
    nix = HermeticNix(tmp_path / "nix")
    template = Template.make(tmp_path / "template", nix, sources)
    with new_site(tmp_path / "unbuilt", nix, template) as made:
        yield made
    nix.remove()


@pytest.fixture
def bare_site(tmp_path: Path, nix: HermeticNix) -> Iterator[Site]:
    """A home without a repository."""
    with new_site(tmp_path / "bare", nix) as made:
        yield made


@pytest.fixture
def daemon(site: Site) -> Iterator[RunningDaemon]:
    """A daemon on `site`, without a bus."""
    with RunningDaemon(site) as running:
        yield running
