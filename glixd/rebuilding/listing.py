# SPDX-License-Identifier: GPL-3.0-or-later
"""The generations of a host, and what differs between two of them."""

from __future__ import annotations

import datetime
import os
from typing import Final

from glixd import api
from glixd.backends.profile import Profile, Running, unknown_generation
from glixd.backends.repository import Repository
from glixd.backends.snapshot import FLAKE, LOCK
from glixd.backends.state import Database
from glixd.errors import NotFound, Refused
from glixd.model.change import Remember
from glixd.model.generations import Built, Generation
from glixd.protocol import ErrorCode
from glixd.rebuilding.rebuilder import PENDING
from glixd.rebuilding.systems import Systems
from glixd.rebuilding.tags import Tags

STAGED: Final = "staged-system"
"""The fact under which the last staged update is remembered."""


class Generations:
    """Answers about generations. Safe from any thread."""

    def __init__(
        self, repository: Repository, profile: Profile, systems: Systems, database: Database, *, machine: str
    ) -> None:
        self._database = database
        self._repository = repository
        self._profile = profile
        self._systems = systems
        self._tags = Tags(repository)
        self._machine = machine

    def list(self, asked: api.GenerationsParameters) -> api.Generations:
        """The generations of a host, the newest first: of this machine with all that can be seen, of others by their tags."""
        host = asked.host or self._machine
        tags = self._tags.all(host)
        if host != self._machine:
            told = [self._of_tag(built) for _, built in sorted(tags.items(), reverse=True)[: asked.limit]]
            return api.Generations(host=host, generations=tuple(told))
        running = self._profile.running()
        found = sorted(self._profile.generations(), key=lambda one: one.number, reverse=True)[: asked.limit]
        told = [self._of_profile(one, tags.get(one.number), running, sizes=asked.sizes) for one in found]
        return api.Generations(host=host, generations=tuple(told), staged=self._staged())

    def stage(self, rebuilt: api.Rebuilt) -> None:
        """Remember an update that is built, for somebody to switch to."""
        built = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        staged = api.StagedSystem(commit=rebuilt.commit, path=str(rebuilt.path), built=built)
        self._database.remember(STAGED, staged.model_dump_json())

    def _staged(self) -> api.StagedSystem | None:
        """The update that was staged last, until the profile has it or a later system, or it is not there any more."""
        text = self._database.fact(STAGED)
        if text is None:
            return None
        staged = api.StagedSystem.model_validate_json(text)
        newest = max((one.created for one in self._profile.generations()), default=0.0)
        overtaken = newest >= datetime.datetime.fromisoformat(staged.built).timestamp()
        return None if overtaken or not os.path.lexists(staged.path) else staged

    def difference(self, asked: api.DiffGenerationsParameters) -> api.GenerationDifference:
        """What differs between two generations of this machine; raises UnknownGeneration or UnsupportedHere."""
        host = asked.host or self._machine
        if host != self._machine:
            raise Refused(
                f"The generations of {host} are on that machine.",
                code=ErrorCode.UNSUPPORTED_HERE,
                hint=f"Ask there: glixctl diff --generations, on {host}",
            )
        numbers = [one.number for one in self._profile.generations()]
        newer = asked.newer or self._profile.current()
        if newer is None:
            raise NotFound("This machine has no generations.", code=ErrorCode.UNKNOWN_GENERATION)
        older = asked.older or max((one for one in numbers if one < newer), default=None)
        if older is None:
            raise unknown_generation(newer - 1, numbers)
        paths = self._profile.path(older), self._profile.path(newer)
        return api.GenerationDifference(
            host=host,
            older=older,
            newer=newer,
            commits=self._between(self.commit(older, paths[0]), self.commit(newer, paths[1]), host),
            change=self._systems.change(*paths),
        )

    def check(self, built: Remember) -> None:
        """See that the commit is there, and that this machine, where it is the one that was switched, has that system."""
        if built.host == self._machine and self._profile.path(built.generation) != built.path:
            raise Refused(
                f"Generation {built.generation} of {built.host}, which is this machine, is another system than {built.path}.",
                hint="See what it is: glixctl generations",
            )
        if not (self._repository.exists and self._repository.git.read(built.commit)):
            raise Refused(
                f"The repository does not have the commit {built.commit[:7]} any more, from which {built.host} was built.",
                details={"commit": built.commit},
            )

    def commit(self, number: int, path: str) -> str | None:
        """What a generation was built from: as its tag says, or else the system itself; None where no commit is known."""
        tag = self._tags.of(self._machine, number)
        found = tag.commit if tag and tag.path == path else self._profile.describe(path).commit
        return found if found and self._repository.exists and self._repository.git.read(found) else None

    def _between(self, older: str | None, newer: str | None, host: str) -> tuple[str, ...]:
        if older is None or newer is None:
            return ()
        entries = self._repository.git.log(f"{older}..{newer}", limit=PENDING, paths=(f"hosts/{host}", FLAKE, LOCK))
        return tuple(f"{entry.oid[:7]} {entry.subject}" for entry in entries)

    def _of_tag(self, built: Built) -> api.Generation:
        return api.Generation(
            number=built.number,
            created=built.time,
            path=built.path,
            commit=built.commit,
            subject=self._subject(built.commit),
            transaction=built.transaction,
        )

    def _of_profile(self, one: Generation, tag: Built | None, running: Running, *, sizes: bool) -> api.Generation:
        path = self._profile.path(one.number)
        system = self._profile.describe(path)
        built = tag if tag and tag.path == path else None
        commit = self.commit(one.number, path)
        return api.Generation(
            number=one.number,
            created=datetime.datetime.fromtimestamp(one.created, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            path=path,
            commit=commit,
            subject=self._subject(commit) if commit else None,
            transaction=built.transaction if built else None,
            version=system.version,
            kernel=system.kernel,
            current=one.current,
            active=running.active == path,
            booted=running.booted == path,
            size=self._systems.size(path) if sizes else None,
        )

    def _subject(self, commit: str) -> str | None:
        found = self._repository.git.log(commit, limit=1)
        return found[0].subject if found else None
