# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person or a script sees: tables, JSON, notes, the progress line. Text from the daemon never controls a terminal."""

from __future__ import annotations

import json
import os
import sys
import time

from glixd.protocol import State

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TextIO

    from glixctl.errors import ClientError

GAP = "  "
NARROWEST = 8
"""Cells of a table are not cut below this width."""
SHORT = 7
"""Digits of a commit that people read."""
BRIEF = 1.0
"""Seconds in which a change that is over need not have said what it was doing."""

_JAMO_BEHIND = frozenset(map(chr, range(0x1160, 0x1200)))
"""Vowels and finals of Hangul, which join the syllable that they follow."""
_UNITS = (("years", 365), ("months", 30), ("weeks", 7), ("days", 1))
_ENDS = tuple(state for state in State if state.final)
_RESET = "\x1b[0m"
_BOLD = "\x1b[1m"
_COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}


def escape(text: object) -> str:
    """`text` on one line, with everything that could move a cursor or turn the writing direction spelt out."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(character if character.isprintable() else _spelt(character) for character in plain)


def short(commit: str | None) -> str:
    """The first digits of a commit, or of a hash behind the name of its algorithm."""
    algorithm, dash, digits = (commit or "").rpartition("-")
    return escape(algorithm + dash + digits[:SHORT])


def moment(time: str | None) -> str:
    """An RFC 3339 time (UTC) to the minute, as people write it."""
    return escape((time or "")[:16].replace("T", " "))


def age(days: int | None) -> str:
    """How long ago something was, in the largest unit of which it is more than one."""
    if days is None:
        return ""
    name, length = next((unit for unit in _UNITS if days >= 2 * unit[1]), _UNITS[-1])
    return "1 day" if days == 1 else f"{days // length} {name}"


def size(count: int) -> str:
    """A number of bytes as people write it."""
    number, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def line(text: str) -> None:
    """Print a line that is safe already."""
    print(text)


def document(value: object) -> None:
    """Print `value` as one JSON document; everything beyond ASCII is spelt as JSON spells it."""
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], columns: int | None = None) -> list[str]:
    """The lines of a table, cut to fit `columns` where that is given."""
    cells = [list(header), *([escape(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[index]) for row in cells) for index in range(len(header))]
    if columns is not None:
        widths = _fitted(widths, columns)
    return [GAP.join(_padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that fits the terminal; in a pipe nothing is cut."""
    lines = table(header, rows, terminal_columns(sys.stdout))
    print("\n".join(lines))


def print_fields(fields: Mapping[str, object], indent: str = "") -> None:
    """Print names and values below each other, without those that are absent."""
    present = {name: value for name, value in fields.items() if value not in (None, "", [], ())}
    width = max((len(name) for name in present), default=0) + 1
    for name, value in present.items():
        print(f"{indent}{name + ':':<{width}} {escape(value)}")


def print_diff(text: str) -> None:
    """Print a unified diff, coloured on a terminal."""
    for shown in _diff_lines(text):
        print(shown)


def page_diff(text: str) -> None:
    """The same through $PAGER, where that is set and somebody sits at a terminal."""
    pager = os.environ.get("PAGER")
    if not pager or not text or not _is_terminal(sys.stdout):
        print_diff(text)
        return
    import subprocess  # most commands start no program

    shown = "".join(f"{line}\n" for line in _diff_lines(text))
    subprocess.run(["/bin/sh", "-c", pager], input=shown, text=True, env={"LESS": "FRX", **os.environ})


def note(text: str) -> None:
    """Tell the person something beside the answer."""
    _say(sys.stderr, f"glixctl: {escape(text)}")


def warning(text: str) -> None:
    """Tell the person of something that went through but deserves a look."""
    _say(sys.stderr, f"warning: {escape(text)}")


def failure(error: ClientError) -> None:
    """Print the sentence of an error and its hint."""
    lines = escape_lines(error.message)
    _say(sys.stderr, f"glixctl: {lines[0]}")
    for more in lines[1:]:
        _say(sys.stderr, f"  {more}")
    if error.hint:
        first, *rest = escape_lines(error.hint)
        _say(sys.stderr, "\n  ".join([f"hint: {first}", *rest]))


def escape_lines(text: str) -> list[str]:
    """The lines of `text`, each escaped; nix explains itself in several."""
    return [escape(part.replace("\t", "    ")) for part in text.split("\n")] or [""]


def converses() -> bool:
    """Whether somebody sits at a terminal who sees a question and can answer it."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def ask(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], question: str) -> bool:
    """Show all that a question is about, cut nowhere, and ask it; whatever is no clear yes is a no."""
    _say(sys.stderr, "\n".join([title, *(GAP + text for text in table(header, rows))]))
    _write(sys.stderr, f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Progress:
    """What a transaction is doing: one line that is rewritten on a terminal, a line for each step in a pipe.

    How it ended is the answer's to say. In a pipe the steps of a transaction that is over at once are never printed; with
    `log`, for somebody who came to watch, each is printed when it begins, and so is the log.
    """

    def __init__(
        self,
        *,
        quiet: bool,
        log: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._log = log
        self._live = _is_terminal(self._stream)
        self._last = ""
        self._held: list[str] = []
        self._clock = clock
        self._patient_until = clock() + (0 if log else BRIEF)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event of the daemon."""
        if self._quiet:
            return
        if self._log:
            self._show_log(event.get("lines") or ())
        text = escape(event.get("step") or event.get("state") or "")
        if not text or event.get("state") in _ENDS:
            return
        if self._live:
            self._rewrite(text + _share(event))
        else:
            self._list(text)

    def clear(self) -> None:
        """Take the live line away."""
        if self._live and self._last:
            self._last = ""
            _write(self._stream, "\r\x1b[K")

    def _rewrite(self, text: str) -> None:
        self._last = _cut(text, (terminal_columns(self._stream) or 80) - 1)
        _write(self._stream, f"\r{self._last}\x1b[K")

    def _list(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._held.append(text)
        if self._clock() >= self._patient_until:
            for held in self._held:
                _say(self._stream, held)
            self._held.clear()

    def _show_log(self, lines: Iterable[object]) -> None:
        for text in lines:
            self.clear()
            _say(self._stream, f"  {escape(text)}")


def coloured(stream: TextIO) -> bool:
    """Whether colour goes to `stream`: only to a terminal, and never where NO_COLOR is set."""
    return _is_terminal(stream) and not os.environ.get("NO_COLOR")


def terminal_columns(stream: TextIO) -> int | None:
    """The width of the terminal behind `stream`, or what COLUMNS says that it is; none for a file or a pipe."""
    try:
        if not stream.isatty():
            return None
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return columns if columns > 0 else None


def _diff_lines(text: str) -> Iterator[str]:
    colour = coloured(sys.stdout)
    for raw in text.split("\n")[: -1 if text.endswith("\n") else None]:
        shown = "\t".join(escape(part) for part in raw.split("\t"))
        yield _painted(shown) if colour else shown


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _spelt(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _width(text: str) -> int:
    """The columns that `text` takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    """The columns of one character, as terminals count them: marks stand on the character before, East Asians are wide."""
    from unicodedata import category, east_asian_width

    if category(character) in ("Mn", "Me") or character in _JAMO_BEHIND:
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, never in the middle of a character and its marks."""
    if _width(text) <= width:
        return text
    room = width - 1
    for index, character in enumerate(text):
        room -= _columns(character)
        if room < 0:
            return text[:index] + "…"
    return text


def _padded(text: str, width: int) -> str:
    shown = _cut(text, width)
    return shown + " " * (width - _width(shown))


def _fitted(widths: list[int], columns: int) -> list[int]:
    """The widths with the widest ones narrowed until the row fits, as far as that goes."""
    widths = list(widths)
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - columns
    while excess > 0 and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
        excess -= 1
    return widths


def _painted(text: str) -> str:
    if text.startswith(("+++ ", "--- ", "diff ")):
        return f"{_BOLD}{text}{_RESET}"
    colour = _COLOURS.get(text[:1])
    return f"{colour}{text}{_RESET}" if colour else text


def _share(event: Mapping[str, Any]) -> str:
    percent = event.get("percent")
    return f" {percent:.0f} %" if isinstance(percent, int | float) else ""


def _say(stream: TextIO, text: str) -> None:
    _write(stream, text + "\n")


def _write(stream: TextIO, text: str) -> None:
    """Write beside the answer; that nobody reads it is no reason to stop."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return
