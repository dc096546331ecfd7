# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands beside the world of a swept case, outside of what is disturbed: nothing, or a machine that can be switched."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.activator import programs
from tests.support.inprocess import World


class Nothing:
    """Nothing stands there."""

    @contextmanager
    def standing(self, template: World, world: World) -> Iterator[World]:
        """The world, and how it leads its daemon there; `template` is the world that it was copied from."""
        yield world

    def settle(self, world: World) -> None:
        """Wait until nothing that a daemon began there goes on."""

    def may_be_finished(self, record: Mapping[str, Any]) -> bool:
        """Whether the next daemon may finish what this record says was left half done."""
        return False

    def problems(self, world: World, record: Mapping[str, Any], *, new: bool) -> Iterator[str]:
        """What does not fit the repository, which is new or old, and what the record of the change says."""
        yield from ()


NOTHING = Nothing()


class SwitchedMachine(Nothing):
    """A machine with generations 1 and 2, of which 2 is live, behind an activator that is in processes of its own."""

    @contextmanager
    def standing(self, template: World, world: World) -> Iterator[World]:
        """The machine of the template once more; one that has no generations yet where there is none."""
        there = _machine(template)
        if there.exists():
            shutil.copytree(there, _machine(world), symlinks=True)
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("fork").Process(target=_serve, args=(world, ours, theirs))
        server.start()
        theirs.close()
        try:
            yield World(world.root, {**world.environment, **ours.recv()}, world.place)
        finally:
            ours.close()
            server.join()

    def settle(self, world: World) -> None:
        """An activator holds its lock while it is at work; one that was not told to go on does nothing more."""
        with Path(world.environment["GLIXD_ACTIVATIONS"], "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    def may_be_finished(self, record: Mapping[str, Any]) -> bool:
        """A disk that failed the commit after the switch may have failed the record, too: then the next daemon commits.

        That there is room for the objects is known before anything is switched.
        """
        message = record.get("error", {}).get("message", "")
        return "runs again, and its manifest could not be committed" in message and "/objects/" not in message

    def problems(self, world: World, record: Mapping[str, Any], *, new: bool) -> Iterator[str]:
        """Both or neither, or the record says that only the generation is live: a disk failed the commit, and nobody died."""
        profile = world.environment["GLIXD_SYSTEM_PROFILE"]
        live = os.readlink(profile) == "system-1-link"
        runs = os.readlink(Path(world.environment["GLIXD_SYSTEM_ROOT"], "run", "current-system"))
        if live is not new and not (live and self.may_be_finished(record)):
            yield f"generation 1 is {'' if live else 'not '}live, the manifest {'new' if new else 'old'}: {dict(record)}"
        if runs != os.path.realpath(profile):
            yield f"what runs is {runs}, which is not the generation that is live"


def _machine(world: World) -> Path:
    return world.beside / "machine"


def _serve(world: World, ours: Connection, told: Connection) -> None:
    """Let both programs be there until nobody wants them any more, and the other end is closed."""
    ours.close()  # this process has it too
    with programs(_machine(world), world.repository, world.environment) as made:
        told.send(made.settings())
        try:
            told.recv()
        except EOFError:
            return
