# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person or a script sees: tables, JSON, notes, the progress line. Text from the daemon never controls a terminal."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # known to the type checkers by this name; the module `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, TextIO

    from glixctl.errors import ClientError

GAP = "  "
NARROWEST = 8
"""Cells of a table are not cut below this width."""
SHORT = 7
"""Digits of a commit that people read."""

_JAMO_BEHIND = frozenset(map(chr, range(0x1160, 0x1200)))
"""Vowels and finals of Hangul, which join the syllable that they follow."""
_UNITS = (("years", 365), ("months", 30), ("weeks", 7), ("days", 1))
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
    import json  # for people there are tables

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
    for shown in _diff_lines(text) if text else ():
        print(shown)


def page_diff(text: str) -> None:
    """The same through $PAGER, where that is set and somebody sits at a terminal."""
    pager = os.environ.get("PAGER")
    if not pager or not text or not is_terminal(sys.stdout):
        print_diff(text)
        return
    import subprocess  # most commands start no program

    shown = "".join(f"{line}\n" for line in _diff_lines(text))
    subprocess.run(["/bin/sh", "-c", pager], input=shown, text=True, env={"LESS": "FRX", **os.environ})


def note(text: str) -> None:
    """Tell the person something beside the answer."""
    say(sys.stderr, f"glixctl: {escape(text)}")


def warning(text: str) -> None:
    """Tell the person of something that went through but deserves a look."""
    first, *rest = escape_lines(text)
    say(sys.stderr, "\n  ".join([f"warning: {first}", *rest]))


def failure(error: ClientError) -> None:
    """Print the sentence of an error and its hint."""
    lines = escape_lines(error.message)
    say(sys.stderr, f"glixctl: {lines[0]}")
    for more in lines[1:]:
        say(sys.stderr, f"  {more}")
    if error.hint:
        first, *rest = escape_lines(error.hint)
        say(sys.stderr, "\n  ".join([f"hint: {first}", *rest]))


def escape_lines(text: str) -> list[str]:
    """The lines of `text`, each escaped; nix explains itself in several."""
    return [escape(part.replace("\t", "    ")) for part in text.split("\n")] or [""]


def converses() -> bool:
    """Whether somebody sits at a terminal who sees a question and can answer it."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def ask(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], question: str) -> bool:
    """Show all that a question is about, cut nowhere, and ask it; whatever is no clear yes is a no."""
    say(sys.stderr, "\n".join([title, *(GAP + text for text in table(header, rows))]))
    write(sys.stderr, f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def stage(event: Mapping[str, Any]) -> str:
    """How far a build is, in a line."""
    parts = [escape(event.get("phase") or "")]
    for verb, done, of in (("built", "built", "to_build"), ("fetched", "fetched", "to_fetch")):
        if event.get(of):
            parts.append(f"{event.get(done) or 0}/{event[of]} {verb}")
    if expected := event.get("bytes_expected"):
        parts.append(f"{size(event.get('bytes_done') or 0)} of {size(expected)}")
    if current := event.get("current"):
        parts.append(escape(current[0]["name"]) + (f" and {len(current) - 1} more" if len(current) > 1 else ""))
    if (remaining := event.get("remaining")) is not None and remaining >= 5:
        parts.append(f"about {duration(remaining)} left")
    return ", ".join(parts) + share(event)


def duration(seconds: int) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds} s"
    return (
        f"{seconds // 60}:{seconds % 60:02} min" if seconds < 3600 else f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
    )


def coloured(stream: TextIO) -> bool:
    """Whether colour goes to `stream`: only to a terminal, and never where NO_COLOR is set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


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


def is_terminal(stream: TextIO) -> bool:
    """Whether lines can be rewritten there."""
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


def cut(text: str, width: int) -> str:
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
    shown = cut(text, width)
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


def share(event: Mapping[str, Any]) -> str:
    """How much of it is done, where that is known, to stand behind a text."""
    percent = event.get("percent")
    return f" {percent:.0f} %" if isinstance(percent, int | float) else ""


def say(stream: TextIO, text: str) -> None:
    """Write a line beside the answer."""
    write(stream, text + "\n")


def write(stream: TextIO, text: str) -> None:
    """Write beside the answer; that nobody reads it is no reason to stop."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return
