# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told while something is built."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from glixd.backends.nix import Product
from glixd.backends.process import Cancellation
from glixd.model.progress import Phase
from glixd.rebuilding.building import Building, News

DERIVATION = "/nix/store/c0qyy1c0qyy1c0qyy1c0qyy1c0qyy1c0-slow-1.0.drv"
EVENTS = (
    {"action": "start", "id": 1, "type": 104, "level": 0, "parent": 0, "text": "", "fields": []},
    {"action": "start", "id": 2, "type": 105, "level": 3, "parent": 1, "text": "", "fields": [DERIVATION, "", 1, 1]},
)


class Silent:
    """A builder that begins to build, and says nothing more until it was heard."""

    def __init__(self, system: Path) -> None:
        self.system = system
        self.heard = threading.Event()

    def prepare(self, commit: str) -> None:
        """It is always ready."""

    def stay_ready(self) -> None:
        """It is always ready."""

    def build(
        self,
        commit: str,
        host: str,
        *,
        user: str = "",
        dry_run: bool,
        on_line: Callable[[bytes], None],
        cancellation: Cancellation,
    ) -> Product:
        """Build."""
        for event in EVENTS:
            on_line(f"@nix {json.dumps(event)}\n".encode())
        assert self.heard.wait(60), "nobody was told that it builds"
        return Product(self.system, DERIVATION)


def test_what_comes_right_after_a_report_is_told_although_nothing_follows(tmp_path: Path) -> None:
    (tmp_path / "nixos-version").touch()
    builder, told = Silent(tmp_path), list[News]()

    def tell(news: News) -> None:
        told.append(news)
        if news.progress.phase is Phase.BUILDING and news.progress.current:
            builder.heard.set()

    built = Building(builder, tell).build("0" * 40, "laptop", Cancellation())
    assert built.path == str(tmp_path)
    assert len(told) <= 4, "what came too soon is told together"
