# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of the daemon: how it starts, that there is one, and how it ends."""

from __future__ import annotations

from tests.support.daemon import RunningDaemon, Site


def test_asked_to_stop_it_ends_well_and_takes_its_socket_away(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["firefox"])
        assert daemon.stop() == 0
        assert not site.socket.exists()
