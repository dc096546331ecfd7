# SPDX-License-Identifier: GPL-3.0-or-later
"""A system for the tests of a module, which leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.system import System, session_rules, system


@pytest.fixture(scope="module")
def at() -> Iterator[System]:
    """A system where alice and wanda sit, with no rule beyond the defaults of their sessions.

    Each module has its own, with a polkitd that has not been through what others do to it: callers that leave by the hundred.
    """
    with system(rules=session_rules()) as made:
        yield made
        assert "defect" not in made.log()
