# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository while it is locked."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import field

from glixd.backends.gitindex import Staging


@dataclasses.dataclass(slots=True)
class Held:
    """The lock of the repository, and what is for this time only: hand `keep` to every child that writes."""

    descriptor: int
    expected: dict[str, str | None] = field(default_factory=dict)
    """The blob that each adopted file was; None for one that was gone."""
    staging: Staging | None = None
    """What is staged already, ahead of a commit point, for the publication that follows it."""
    _ahead: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def keep(self) -> tuple[int, ...]:
        """The descriptors that children inherit, so that the lock outlives us until they are gone."""
        return (self.descriptor,)

    def stage(self, staging: contextlib.AbstractContextManager[Staging]) -> Staging:
        """Begin to stage what will be published, and nothing else any more."""
        self.unstage()
        self.staging = self._ahead.enter_context(staging)
        return self.staging

    def unstage(self) -> None:
        """End what was begun, used or not."""
        self.staging = None
        self._ahead.close()
