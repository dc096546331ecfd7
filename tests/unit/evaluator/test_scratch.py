# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of one job: its own as long as the job lasts, and gone afterwards, whoever else begins or was killed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glixd.evaluator.scratch import PREFIX, scratch


def test_nobody_takes_a_folder_that_has_just_been_made_for_left_behind(tmp_path: Path) -> None:
    def one(number: int) -> None:
        for turn in range(200):
            with scratch(tmp_path) as folder:
                own = folder / "own"
                own.write_text(f"{number} {turn}")
                assert own.read_text() == f"{number} {turn}"

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(8)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_owner_was_killed_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    (left / "flake").mkdir(parents=True)
    with scratch(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
