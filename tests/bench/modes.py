# SPDX-License-Identifier: GPL-3.0-or-later
"""System mode beside user mode: the same changes, evaluated and not.

User mode evaluates once a change is committed; system mode before, so that nobody breaks a host for everybody. Root asks,
so no polkit does; both daemons run side by side, and their cases take turns.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.measure import Case, Report
from tests.bench.world import World
from tests.support.daemon import RpcClient
from tests.support.machine import POLKITD
from tests.support.system import system

USER: Final = "user mode, evaluated afterwards"


def modes(report: Report, world: World, rounds: int) -> None:
    """A change of each kind in each mode, over the socket, from the request to the end of the transaction."""
    if os.geteuid() or not Path(POLKITD).exists():
        report.show("system mode: NOT RUN: it needs root, and polkitd")
        return
    with redirect_stdout(io.StringIO()):  # the logs of the daemons that make repositories
        made = system()
        at = made.__enter__()
    try:
        with world.daemon("modes") as daemon, daemon.connect() as user, at.as_root() as root:
            for client in (user, root):
                client.run("Add", refs=["hello"])
            settle: Callable[[], object] = daemon.health
            cases: dict[str, Case] = {
                USER: _changing(user, True, settle),
                "user mode, not evaluated": _changing(user, False, settle),
                "system mode, evaluated before": _changing(root, True, lambda: None),
                "system mode, not evaluated": _changing(root, False, lambda: None),
            }
            report.interleaved("a change", cases, rounds, baseline=USER)
    finally:
        made.__exit__(None, None, None)


def _changing(client: RpcClient, evaluate: bool, settle: Callable[[], object]) -> Case:
    turns = count()

    def run() -> float:
        began = time.perf_counter()
        ended = client.run(
            "Set", name="hello", changes={f"config.{evaluate}".lower(): f"{next(turns)}"}, evaluate=evaluate
        )
        took = time.perf_counter() - began
        if ended["state"] != "succeeded":
            raise RuntimeError(f"a change ended as {ended['state']}: {ended.get('error')}")
        settle()
        return took

    return run
