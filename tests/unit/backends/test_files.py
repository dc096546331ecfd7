# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the file system."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from glixd.backends import files
from glixd.errors import Failed
from glixd.protocol import ErrorCode


def test_plain_files_are_read_and_missing_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x\0y")
    assert files.read_regular(tmp_path / "file") == b"x\0y"
    assert files.read_regular(tmp_path / "none") is None


def test_nothing_but_plain_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "dangling", "folder", "fifo"):
        with pytest.raises(Failed) as caught:
            files.read_regular(tmp_path / name)
        assert caught.value.code is ErrorCode.READ_ONLY, name


def test_folders_that_are_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    files.refuse_linked_folders(tmp_path, "real/x/y")
    files.refuse_linked_folders(tmp_path, "link")  # the file itself is the business of whoever reads it
    with pytest.raises(Failed):
        files.refuse_linked_folders(tmp_path, "link/x/y")


def test_a_written_file_has_its_bytes_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("something longer that was there")
    files.write_durably(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.sync_folder(tmp_path)


def test_a_whole_tree_is_synced_with_its_links_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "a" / "dangling").symlink_to("none")
    files.sync_tree(tmp_path)


def test_an_exchange_swaps_two_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    assert files.exchange(one, two)
    assert (one.read_text(), two.read_text()) == ("2", "1")
    with pytest.raises(FileNotFoundError):
        files.exchange(one, tmp_path / "none")


def test_a_rename_to_a_new_name_replaces_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    assert files.rename_new(one, two)
    one.write_text("another")
    with pytest.raises(FileExistsError):
        files.rename_new(one, two)
    assert two.read_text() == "1"


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    files.require_space(tmp_path, 1, 1)
    for needed in ((1 << 60, 1), (1, 1 << 60)):
        with pytest.raises(Failed) as caught:
            files.require_space(tmp_path, *needed)
        assert caught.value.code is ErrorCode.NO_SPACE
        assert caught.value.hint


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, ErrorCode.NO_SPACE),
        (errno.EDQUOT, ErrorCode.NO_SPACE),
        (errno.EROFS, ErrorCode.READ_ONLY),
        (errno.EACCES, ErrorCode.READ_ONLY),
        (errno.EIO, ErrorCode.READ_ONLY),
    ],
)
def test_what_the_system_says_becomes_a_typed_error(tmp_path: Path, number: int, code: ErrorCode) -> None:
    with pytest.raises(Failed) as caught, files.translating(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "named"))
    assert caught.value.code is code
    assert "named" in caught.value.message
