# SPDX-License-Identifier: GPL-3.0-or-later
"""Which folders of the repository a flake.nix needs beside it to be locked."""

from __future__ import annotations

import pytest

from glixd.locking import relative_folders
from glixd.model.flakefile import Input


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('x = { url = "path:./pkgs/x"; };', ["pkgs/x"]),
        ("x.url = 'path:./pkgs/x'", ["pkgs/x"]),
        ("x.url = path:./pkgs/x;", ["pkgs/x"]),
        ('a.url = "path:./b"; c.url = "path:./a"; d.url = "path:./b";', ["a", "b"]),
        ('x.url = "path:./a.b_c+d-e/f";', ["a.b_c+d-e/f"]),
        ('x.url = "path:/srv/x"; y.url = "path:../y"; z.url = "github:o/z";', []),
        ('x.url = "xpath:./x";', []),
        ("", []),
    ],
)
def test_the_folders_of_relative_inputs_are_found_once_each(text: str, expected: list[str]) -> None:
    assert relative_folders(text) == expected


def test_an_input_that_glixd_writes_is_found() -> None:
    entry = Input("x", "path:./pkgs/x")
    assert relative_folders(f'"{entry.name}" = {{ url = "{entry.url}"; }};') == ["pkgs/x"]
