# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of manifests that git alone made, and the parts that change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plain import Workshop, make_plain_repository


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a fresh repository with one host and one commit."""
    folder = tmp_path / "repository"
    make_plain_repository(folder)
    return folder


@pytest.fixture
def workshop(root: Path, tmp_path: Path) -> Iterator[Workshop]:
    """The parts that change it, after what a daemon does when it starts."""
    made = Workshop(root, tmp_path / "state")
    made.recover()
    yield made
    made.close()
