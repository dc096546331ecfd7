# SPDX-License-Identifier: GPL-3.0-or-later
"""Root says what it wants switched, and takes it back when that is over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glixctl import wish


@pytest.mark.parametrize(
    ("mode", "method", "params", "uid", "wanted"),
    [
        ("system", "Rebuild", {}, 0, True),
        ("system", "Rollback", {"to_generation": 3}, 0, True),
        ("system", "Add", {"apply": True}, 0, True),
        ("system", "Add", {}, 0, False),
        ("system", "Rebuild", {"dry_run": True}, 0, False),
        ("system", "Rebuild", {}, 1000, False),
        ("user", "Rebuild", {}, 0, False),
    ],
)
def test_only_root_wants_and_only_what_switches(
    mode: str, method: str, params: dict[str, object], uid: int, wanted: bool
) -> None:
    assert wish.wants(mode, method, params, uid) is wanted


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ('auto_update = "switch"\n', True),
        ('auto_update = "stage"\n', False),
        ("", False),
        ("no toml", False),
        (None, False),
    ],
)
def test_an_unattended_update_is_a_wish_where_the_administrator_has_it_switch(
    settings: str | None, wanted: bool, tmp_path: Path
) -> None:
    if settings is not None:
        (tmp_path / "config.toml").write_text(settings)
    asked = ("system", "Update", {"unattended": True})
    assert wish.wants(*asked, 0, os.fspath(tmp_path / "config.toml")) is wanted
    assert not wish.wants(*asked, 1000, os.fspath(tmp_path / "config.toml"))


def test_a_wish_is_a_file_of_the_name_of_the_transaction(tmp_path: Path) -> None:
    wish.say("01hzy00000000000000000000a", os.fspath(tmp_path))
    (said,) = tmp_path.iterdir()
    assert (said.name, said.stat().st_mode & 0o777) == ("01hzy00000000000000000000a", 0o600)
    wish.take_back(said.name, os.fspath(tmp_path))
    wish.take_back(said.name, os.fspath(tmp_path))
    wish.say("../elsewhere", os.fspath(tmp_path))
    wish.say("x", os.fspath(tmp_path / "not-there"))
    assert list(tmp_path.iterdir()) == []
