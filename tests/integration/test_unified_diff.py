# SPDX-License-Identifier: GPL-3.0-or-later
"""The diff of a dry run is what `diff -u` says, and `git apply` makes of the old file the new one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glixd.draft import unified

pytestmark = pytest.mark.integration

PATH = "hosts/laptop/glix.toml"
LINES = st.lists(st.sampled_from(["a", "b", "", "[packages.x]", "@@ -1 +1 @@", "--- a", "+++ b", "\\ No", "é", "a\fb"]))
ENDS = st.sampled_from(["\n", "\r\n", "\u2028", "\x0b", "\x85", "\r"])
TEXT = st.builds(lambda lines, end, last: end.join(lines) + last, LINES, ENDS, st.sampled_from(["", "\n", "\n\n"]))
LONG = "".join(f"line {number}\n" for number in range(200))

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def applied(before: str | None, patch: str) -> str:
    """What git makes of a file with a patch."""
    with TemporaryDirectory() as folder:
        path = Path(folder, PATH)
        if before is not None:
            path.parent.mkdir(parents=True)
            path.write_bytes(before.encode())
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            cwd=folder,
            input=patch.encode(),
            capture_output=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": folder},
        )
        assert done.returncode == 0, done.stderr.decode()
        return path.read_bytes().decode() if path.exists() else ""


@quick
@example("a", "a\n")
@example("a\n", "a")
@example("", "x\n")
@example("x\u2028y\nz\n", "x\u2028y\n")
@example(LONG, LONG.replace("line 100\n", ""))
@example(LONG, "first\n" + LONG)
@example(LONG, LONG + "last")
@example(LONG, LONG.replace("line 99\n", "line 99\nline 99\n"))
@example("x\n" * 20 + "y\n" * 20, "x\n" * 21 + "y\n" * 20)
@example("x\n" * 20 + "y\n" * 20, "x\n" * 20 + "y\n" * 15)
@example(LONG, LONG.replace("line 0\n", "").replace("line 199\n", ""))
@given(TEXT, TEXT)
def test_git_makes_the_new_file_of_the_old_one(before: str, after: str) -> None:
    patch = unified(PATH, before, after)
    assert (patch == "") == (before == after)
    if patch:
        assert applied(before, patch) == after


@quick
@given(TEXT.filter(bool))
def test_a_file_that_comes_or_goes_is_told_as_git_tells_it(text: str) -> None:
    assert applied(None, unified(PATH, None, text)) == text
    assert applied(text, unified(PATH, text, None)) == ""


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 99, 195, 196, 197, 198, 199])
@pytest.mark.parametrize("change", ["added\n", "", "line {0}\nadded\n", "added\nline {0}\n"])
def test_a_change_of_one_line_is_told_as_diff_tells_it(tmp_path: Path, number: int, change: str) -> None:
    after = LONG.replace(f"line {number}\n", change.format(number))
    (tmp_path / "before").write_text(LONG)
    (tmp_path / "after").write_text(after)
    labels = ["--label", f"a/{PATH}", "--label", f"b/{PATH}"]
    done = subprocess.run(["diff", "-u", *labels, "before", "after"], cwd=tmp_path, capture_output=True, check=False)
    assert unified(PATH, LONG, after) == done.stdout.decode()


def test_a_file_that_does_not_change_has_no_diff() -> None:
    assert unified(PATH, LONG, LONG) == ""
