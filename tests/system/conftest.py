# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of this suite share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.workbench import Workbench


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    """Where mutations are swept; its workers are gone when the next module forks."""
    with Workbench() as made:
        yield made
