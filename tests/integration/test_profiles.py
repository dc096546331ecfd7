# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of a profile: what `init` writes, and that it evaluates."""

from __future__ import annotations

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site
from tests.support.repositories import Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]


def test_a_host_of_the_desktop_profile_imports_its_module(bare_site: Site, sources: Sources) -> None:
    with RunningDaemon(bare_site) as daemon:
        daemon.done("Init", **bare_site.init_parameters(sources), profile="desktop")
        assert "[ inputs.glixos-core.nixosModules.desktop ] ++ lib.optional" in bare_site.read(
            "hosts/laptop/default.nix"
        )
        url = f"git+file://{bare_site.repository}#nixosConfigurations.laptop.config"
        printing = bare_site.nix.nix("eval", "--json", f"{url}.services.printing.enable")
        assert printing.stdout.strip() == "true", printing.stderr


def test_a_profile_that_does_not_exist_is_refused(bare_site: Site, sources: Sources) -> None:
    done = bare_site.glixctl("init", "--user", "alice", "--profile", "desktp", "--nixpkgs", sources.nixpkgs)
    assert done.returncode == Exit.USAGE
    assert "Did you mean desktop?" in done.stderr
    assert not bare_site.repository.exists()
