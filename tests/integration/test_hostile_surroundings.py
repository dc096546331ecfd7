# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong around the daemon ends in a recovery, or in an error that says what is wrong; and nothing is lost."""

from __future__ import annotations

import pytest

from tests.support.daemon import RunningDaemon, Site

pytestmark = [pytest.mark.integration, pytest.mark.nix]


def test_a_build_that_has_no_place_for_its_root_says_so(site: Site, daemon: RunningDaemon) -> None:
    (site.state / "roots").write_text("not a folder")
    error = daemon.failed("Rebuild", action="build")
    assert error["name"] == "ReadOnly"
    assert str(site.state / "roots") in error["message"]
