# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own flake is attached: glixd writes a manifest, its regions and the lock, and keeps every other file as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.protocol import Exit
from tests.support.daemon import Site, new_site
from tests.support.hermetic import HermeticNix, commit_all
from tests.support.repositories import GLIX_STYLE, Sources, localised_copy

pytestmark = [pytest.mark.integration, pytest.mark.nix]

OWN = '{ ... }: { system.stateVersion = "24.11"; users.users.bob.isNormalUser = true; } # mine\n'


@pytest.fixture
def own(tmp_path: Path, nix: HermeticNix, sources: Sources) -> Iterator[Site]:
    """A repository with a flake of the user's own: markers, importManifest, and a machine that has no manifest yet."""
    with new_site(tmp_path / "own", nix) as site:
        localised_copy(GLIX_STYLE, site.repository, sources)
        site.write({"hosts/desk/default.nix": OWN})
        commit_all(site.repository, "My machines")
        site.nix.lock(site.repository)
        commit_all(site.repository, "Lock")
        yield site


def test_a_machine_of_ones_own_gets_a_manifest_and_keeps_its_files(own: Site) -> None:
    before = own.git("rev-parse", "HEAD")
    done = own.glixctl("init", "--host", "desk", "--user", "bob", "--system", "aarch64-linux")
    assert done.returncode == Exit.DONE, done.stderr
    changed = own.git("diff", "--name-only", before, "HEAD").split()
    assert changed == ["flake.nix", "hosts/desk/glix.toml"]
    assert own.read("hosts/desk/default.nix") == OWN
    assert own.glixctl("add", "firefox", "--host", "desk").returncode == Exit.DONE
    assert "firefox" in own.evaluated("desk")["system"]


def test_a_file_that_git_does_not_know_is_never_written_over(own: Site) -> None:
    own.write({"hosts/attic/default.nix": OWN})
    before = own.git("rev-parse", "HEAD"), own.git("status", "--porcelain")
    refused = own.glixctl("init", "--host", "attic", "--user", "bob")
    assert refused.returncode == Exit.REFUSED
    assert "hosts/attic/default.nix exists already, and git does not know it" in refused.stderr
    assert "git add hosts/attic/default.nix" in refused.stderr
    assert own.read("hosts/attic/default.nix") == OWN
    assert (own.git("rev-parse", "HEAD"), own.git("status", "--porcelain")) == before


def test_a_flake_without_the_markers_is_left_alone_and_says_which_line_it_needs(own: Site) -> None:
    own.commit({"flake.nix": own.read("flake.nix").replace("# >>> glix-managed hosts >>>", "")})
    refused = own.glixctl("init", "--host", "desk", "--user", "bob")
    assert refused.returncode == Exit.REFUSED
    assert "# >>> glix-managed hosts >>>" in refused.stderr
