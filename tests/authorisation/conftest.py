# SPDX-License-Identifier: GPL-3.0-or-later
"""One system for the tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.system import System, session_rules, system


@pytest.fixture(scope="session")
def at() -> Iterator[System]:
    """A system where alice and wanda sit, with no rule beyond the defaults of their sessions."""
    with system(rules=session_rules()) as made:
        yield made
        assert "defect" not in made.log()
