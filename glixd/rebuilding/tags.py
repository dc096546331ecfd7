# SPDX-License-Identifier: GPL-3.0-or-later
"""The tags of generations in the repository: written after each switch, read to know what a generation was built from."""

from __future__ import annotations

from glixd.backends.objects import GLIXD
from glixd.backends.repository import Repository
from glixd.errors import Failed
from glixd.model.generations import TAGS, Built, tag_of
from glixd.protocol import ErrorCode


class Tags:
    """Safe from any thread."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def all(self, host: str) -> dict[int, Built]:
        """What is known of the generations of a host, by number."""
        if not self._repository.exists:
            return {}
        prefix = f"{TAGS}/{host}/"
        numbers = [ref.removeprefix(prefix) for ref in self._repository.git.refs(prefix)]
        found = {
            int(number): self.of(host, int(number)) for number in numbers if number.isdecimal() and number.isascii()
        }
        return {number: built for number, built in found.items() if built is not None}

    def of(self, host: str, number: int) -> Built | None:
        """What is known of one generation."""
        found = self._repository.git.read(tag_of(host, number))
        if found is None or found.kind != "tag":
            return None
        return Built.parse(host, number, found.data.decode(errors="replace"))

    def write(self, built: Built, when: int) -> None:
        """Remember a generation; one of the same number, of a profile that was begun anew, is replaced."""
        name = built.ref.removeprefix("refs/tags/")
        with self._repository.locked() as held:
            tag = self._repository.git.make_tag(name, built.commit, GLIXD, when, built.message)
            if not self._repository.refs.set(held, built.ref, tag):
                raise Failed(f"The tag {name} could not be written.", code=ErrorCode.READ_ONLY)
