# SPDX-License-Identifier: GPL-3.0-or-later
"""What is printed: tables that fit, text that controls nothing, progress, colour."""

from __future__ import annotations

import io

import pytest

from glixctl import output
from glixctl.errors import ClientError
from glixctl.progress import Progress


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("firefox", "firefox"),
        ("größe — ü", "größe — ü"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("two\nlines\r\t", "two\\x0alines\\x0d\\x09"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\x9b1m\x7f", "\\x9b1m\\x7f"),
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        (12, "12"),
    ],
)
def test_text_from_the_daemon_controls_no_terminal(text: object, shown: str) -> None:
    assert output.escape(text) == shown


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("desktop", "firefox", ""), ("pi", "raspi-fw", "alice")]
    assert output.table(("HOST", "NAME", "USER"), rows) == [
        "HOST     NAME      USER",
        "desktop  firefox",
        "pi       raspi-fw  alice",
    ]


def test_a_table_fits_the_terminal_by_cutting_the_widest_cells() -> None:
    lines = output.table(("NAME", "FLAKE"), [("firefox", "github:NixOS/nixpkgs/nixos-unstable#firefox")], 30)
    assert lines == ["NAME     FLAKE", "firefox  github:NixOS/nixpkgs…"]
    assert max(map(len, lines)) == 30


def test_wide_characters_take_two_columns() -> None:
    assert output.table(("A", "B"), [("日本", "x"), ("abcd", "y")]) == ["A     B", "日本  x", "abcd  y"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("plain", 5),
        ("größe", 5),
        ("日本語", 6),
        ("ｆｕｌｌ", 8),
        ("e\u0301", 1),  # an accent of its own
        ("\u0915\u0941", 1),  # a vowel sign without a combining class
        ("\u1112\u1161\u11ab", 2),  # a syllable in three letters
        ("🦊", 2),
        ("\u2764\ufe0f", 1),  # a variation selector takes no column
    ],
)
def test_a_column_is_as_wide_as_terminals_show_its_text(text: str, columns: int) -> None:
    first, second = output.table((text, "x"), [("", "x")])
    assert second == " " * (columns + 2) + "x"
    assert first == f"{text}  x"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdefghij", 8, "abcdefg…"),
        ("日本語日本語", 8, "日本語…"),
        ("e\u0301" * 10, 8, "e\u0301" * 7 + "…"),
        ("abcdefgh", 8, "abcdefgh"),
    ],
)
def test_a_cell_is_cut_between_characters_and_keeps_their_marks(text: str, width: int, shown: str) -> None:
    assert output.table(("A",), [(text,)], width)[1] == shown


def test_columns_decides_the_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, columns in (("40", 40), ("0", None), ("-3", None), ("wide", None)):
        monkeypatch.setenv("COLUMNS", said)
        assert output.terminal_columns(Terminal()) == columns
        assert output.terminal_columns(io.StringIO()) is None


def test_a_diff_keeps_its_tabs_and_spells_everything_else(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_diff("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-\told\n+new\x1b[2J\n")
    assert capsys.readouterr().out == "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-\told\n+new\\x1b[2J\n"


def test_a_diff_is_coloured_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for no_colour, expected in (("", "\x1b[32m+new\x1b[0m\n"), ("1", "+new\n")):
        monkeypatch.setenv("NO_COLOR", no_colour)
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        output.print_diff("+new\n")
        assert terminal.getvalue() == expected


def test_progress_rewrites_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    progress = Progress(quiet=False, stream=terminal)
    progress({"state": "running", "step": "locking", "percent": 40.4})
    progress({"state": "running", "step": "evaluating the host laptop"})
    progress.clear()
    assert terminal.getvalue() == "\rlocking 40 %\x1b[K\revaluating the hos…\x1b[K\r\x1b[K"


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_in_a_pipe_says_nothing_of_a_transaction_that_is_over_at_once() -> None:
    pipe = io.StringIO()
    progress = Progress(quiet=False, stream=pipe, clock=Clock())
    for event in ({"state": "preparing"}, {"state": "running", "step": "locking"}, {"state": "succeeded"}):
        progress(event)
    progress.clear()
    assert pipe.getvalue() == ""


def test_progress_in_a_pipe_lists_each_step_once_when_a_transaction_takes_long() -> None:
    pipe, clock = io.StringIO(), Clock()
    progress = Progress(quiet=False, stream=pipe, clock=clock)
    progress({"state": "preparing"})
    for step in ("locking", "locking", "evaluating\x1b"):
        progress({"state": "running", "step": step, "percent": 1})
        clock.now += 0.4
    assert pipe.getvalue() == ""
    progress({"state": "running", "step": "writing"})
    progress.clear()
    assert pipe.getvalue() == "preparing\nlocking\nevaluating\\x1b\nwriting\n"


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_leaves_the_end_to_the_answer(
    stream: type[io.StringIO], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    shown = stream()
    progress = Progress(quiet=False, stream=shown, clock=clock)
    clock.now += 60
    progress({"state": end})
    assert shown.getvalue() == ""


def test_whoever_watches_is_told_each_step_when_it_begins() -> None:
    pipe = io.StringIO()
    progress = Progress(quiet=False, log=True, stream=pipe, clock=Clock())
    progress({"state": "running", "step": "locking", "lines": ["fetching x"]})
    progress({"state": "succeeded"})
    assert pipe.getvalue() == "  fetching x\nlocking\n"


def test_progress_says_nothing_when_told_to_be_quiet() -> None:
    pipe, clock = io.StringIO(), Clock()
    progress = Progress(quiet=True, stream=pipe, clock=clock)
    clock.now += 60
    progress({"state": "running", "step": "locking"})
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(
    ("revision", "shown"),
    [
        ("1a2b3c4d5e6f", "1a2b3c4"),
        ("sha256-wGf2uSqcSLiPLRbCPJ9VwDkD0FKlJBCT1Zc5O9s1ln0=", "sha256-wGf2uSq"),
        (None, ""),
        ("\x1b[31mfff", "\\x1b[31mff"),
    ],
)
def test_a_revision_is_shown_by_its_first_digits(revision: str | None, shown: str) -> None:
    assert output.short(revision) == shown


def test_progress_goes_on_when_nobody_reads_it() -> None:
    Progress(quiet=False, log=True, stream=ClosedPipe())({"state": "running", "step": "locking"})


def test_an_error_of_several_lines_stays_under_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output.failure(ClientError("It failed:\n\tat x\x1b", name="LockFailed", exit_code=1, hint="Try\nagain."))
    assert capsys.readouterr().err == "glixctl: It failed:\n      at x\\x1b\nhint: Try\n  again.\n"


def test_json_spells_everything_beyond_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"name": "\u202e\x1b"})
    assert capsys.readouterr().out == '{\n  "name": "\\u202e\\u001b"\n}\n'


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (None, ""),
        (0, "0 days"),
        (1, "1 day"),
        (13, "13 days"),
        (14, "2 weeks"),
        (59, "8 weeks"),
        (60, "2 months"),
        (400, "13 months"),
        (800, "2 years"),
    ],
)
def test_an_age_is_told_in_the_largest_unit_of_which_it_is_more_than_one(days: int | None, told: str) -> None:
    assert output.age(days) == told


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (5 * 1024**4, "5.0 TiB")],
)
def test_a_size_is_told_as_people_write_it(count: int, told: str) -> None:
    assert output.size(count) == told
