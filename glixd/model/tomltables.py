# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables in the text of a TOML document: found by their headers, edited alone with tomlkit, and put back.

Every function here is an attempt: it gives a text, or None or one of tomlkit's errors where the layout is beyond it. Whether
the text says the right thing is for the caller to check.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from glixd.model.manifest import key_pattern

if TYPE_CHECKING:
    from types import ModuleType

    from tomlkit.items import AbstractTable, Array

Value = str | bool | list[str] | None


@cache
def _tomlkit() -> ModuleType:
    """The library, loaded with the first edit: 6 of 200 ms of the start, and 1 MiB of a daemon that only answers."""
    return import_module("tomlkit")


def gives_up() -> tuple[type[Exception], ...]:
    """The ways in which tomlkit fails on layouts that it does not foresee."""
    own: type[Exception] = _tomlkit().exceptions.TOMLKitError
    return own, ValueError, LookupError, TypeError, AttributeError, RecursionError


def appended(text: str, path: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """The text with a new table at its end, behind one blank line."""
    newline = _newline(text)
    table = _table_text(path, values, newline)
    if not text:
        return table
    ended = text if text.endswith("\n") else text + newline
    last_line = ended.rstrip("\n").removesuffix("\r")
    separated = ended if not last_line or ended[len(last_line) :].count("\n") > 1 else ended + newline
    return separated + table


def without(text: str, path: tuple[str, ...]) -> str | None:
    """The text without the table and those below it, or None where there is none."""
    blocks = _blocks(text, path)
    for block in reversed(blocks):
        text = _without_block(text, block)
    return text if blocks else None


def changed(
    text: str,
    path: tuple[str, ...],
    table: Mapping[str, Any],
    scalars: Mapping[str, Value],
    config: Mapping[str, str | None] | None,
) -> str | None:
    """The text with the changes in the table's own lines, or None where it has none."""
    blocks = {block.keys: block for block in _blocks(text, path)}
    main, config_block = blocks.get(()), blocks.get(("config",))
    if main is None:
        return None
    pieces = [(main.start, main.core_end, _edited(text[main.start : main.core_end], path, scalars))]
    if config_block is not None:
        pieces.append(_config_piece(text, path, config_block, config))
    elif "config" in table:
        inline = {"config": dict(config)} if config is not None else {"config": None}
        pieces = [(main.start, main.core_end, _edited(pieces[0][2], path, inline))]
    elif added := {key: value for key, value in (config or {}).items() if value is not None}:
        pieces.append((main.own_end, main.own_end, _new_config(text, main, path, added)))
    for start, end, piece in sorted(pieces, reverse=True):
        text = text[:start] + piece + text[end:]
    return text


def through_tomlkit(text: str, path: tuple[str, ...], values: Mapping[str, Any] | None) -> str | None:
    """The whole document through tomlkit, with a package added, or removed where its comments can't get lost."""
    name = path[-1]
    edited = _edited(text, path[:-1], {name: values})
    return edited if values is not None or keeps_comments(text, edited) else None


def changed_whole(
    text: str, path: tuple[str, ...], scalars: Mapping[str, Value], config: Mapping[str, str | None] | None
) -> str:
    """The whole document through tomlkit, with the changes in the table at `path`."""
    changes: dict[str, Any] = dict(scalars)
    if config is None or config:
        changes["config"] = config
    return _edited(text, path, changes)


def keeps_comments(before: str, after: str) -> bool:
    """Whether every comment on a line of its own is still there."""
    return Counter(_COMMENT_LINE.findall(before)) <= Counter(_COMMENT_LINE.findall(after))


_COMMENT_LINE: Final = re.compile(r"^[ \t]*(#[^\r\n]*)", re.MULTILINE)


class _Block(NamedTuple):
    """A table in the text, from the start of its header line."""

    keys: tuple[str, ...]
    """What the header says behind the path that was looked for."""
    start: int
    core_end: int
    """Behind the last line with a key."""
    own_end: int
    """Behind the comments below, up to a blank line: they belong to the table."""


_HEADER: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")


def _blocks(text: str, path: tuple[str, ...]) -> list[_Block]:
    """The tables at `path` and below it, as far as headers on lines of their own show."""
    dotted = r"[ \t]*\.[ \t]*".join(map(key_pattern, path))
    header = re.compile(rf"^[ \t]*\[\[?[ \t]*{dotted}[ \t]*(?:\.[^\]\n]*)?\]", re.MULTILINE)
    return [_block(text, found.start(), len(path)) for found in header.finditer(text)]


def _block(text: str, start: int, depth: int) -> _Block:
    """The table whose header line starts at `start`; a line that merely looks like a header does not end it."""
    line_end = text.find("\n", start) + 1 or len(text)
    for following in [found.start() for found in _some(text, line_end)] + [len(text)]:
        if _parses(text[start:following]):
            return _divided(text, start, following, depth)
    raise ValueError("a header without an end")


def _some(text: str, position: int) -> list[re.Match[str]]:
    """The next lines that look like headers: more than a few inside one table are not tried."""
    found: list[re.Match[str]] = []
    while len(found) < 16 and (match := _HEADER.search(text, position)):
        found.append(match)
        position = match.end()
    return found


def _divided(text: str, start: int, end: int, depth: int) -> _Block:
    lines = _LINE.findall(text[start:end])
    core = len(lines)
    while core > 1 and _is_blank_or_comment(lines[core - 1]):
        core -= 1
    while not _parses("".join(lines[:core])):  # the last line of a long string may look like a comment
        core += 1
    own = core
    while own < len(lines) and lines[own].strip():
        own += 1
    if own == len(lines) and end < len(text):  # no blank line: these comments stand above the next table
        own = core
    core_end = start + sum(map(len, lines[:core]))
    own_end = core_end + sum(map(len, lines[core:own]))
    return _Block(_header_keys(lines[0])[depth:], start, core_end, own_end)


def _is_blank_or_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _header_keys(line: str) -> tuple[str, ...]:
    """The keys in a header line."""
    keys: list[str] = []
    table: Any = tomllib.loads(line)
    while isinstance(table, dict) and table:
        key, table = next(iter(table.items()))
        keys.append(key)
        table = table[0] if isinstance(table, list) else table
    return tuple(keys)


def _newline(text: str) -> str:
    """The line ending of the document: that of its first line."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def _table_text(path: tuple[str, ...], values: Mapping[str, Any], newline: str) -> str:
    """A new table, config as a table of its own below it."""
    lines = [f"[{'.'.join(map(_key_text, path))}]"]
    lines += [
        f"{_key_text(key)} = {_tomlkit().item(value).as_string()}" for key, value in values.items() if key != "config"
    ]
    text = "".join(line + newline for line in lines)
    return text + (_table_text((*path, "config"), values["config"], newline) if "config" in values else "")


@lru_cache(maxsize=64)
def _key_text(key: str) -> str:
    """A key as TOML spells it; most are of a few words, each of which takes tomlkit 10 µs."""
    text: str = _tomlkit().key(key).as_string()
    return text


def _without_block(text: str, block: _Block) -> str:
    """The text without a table, and without a blank line too many."""
    before, after = text[: block.start], text[block.own_end :]
    rest = _BLANK_LINES.sub("", after, count=1)
    if not rest:
        return _BLANK_AT_END.sub(r"\1", before)
    preceding = before.rstrip(" \t\r\n")
    stands_free = not preceding or before[len(preceding) :].count("\n") > 1
    return before + (rest if stands_free else after)


_BLANK_LINES: Final = re.compile(r"\A(?:[ \t]*\r?\n)*(?:[ \t]*\Z)?")
_BLANK_AT_END: Final = re.compile(r"(\A|\n)(?:[ \t]*\r?\n)+\Z")


def _new_config(text: str, main: _Block, path: tuple[str, ...], config: Mapping[str, str]) -> str:
    """A config table to stand right below the package's."""
    newline = _newline(text)
    table = _table_text((*path, "config"), config, newline)
    return table if text[: main.own_end].endswith("\n") else newline + table


def _config_piece(
    text: str, path: tuple[str, ...], block: _Block, config: Mapping[str, str | None] | None
) -> tuple[int, int, str]:
    """The config table with the changes; without a key and a comment left, it goes."""
    old = text[block.start : block.core_end]
    if config is None:
        config = dict.fromkeys(_at(tomllib.loads(old), (*path, "config")))
    new = _edited(old, (*path, "config"), config)
    is_empty = not _at(tomllib.loads(new), (*path, "config")) and not _COMMENT_LINE.search(
        text[block.start : block.own_end]
    )
    return block.start, block.core_end, "" if is_empty else new


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def _edited(text: str, path: tuple[str, ...], changes: Mapping[str, Any]) -> str:
    """A piece of TOML with other values in the table at `path`, the endings of its lines kept."""
    if not changes:
        return text
    windows = "\r\n" in text and text.count("\r\n") == text.count("\n")
    unix = text.replace("\r\n", "\n") if windows else text
    document: Any = _tomlkit().parse(unix if unix.endswith("\n") else unix + "\n")
    _apply(_at(document, path), changes)
    edited: str = _tomlkit().dumps(document)
    if not text.endswith("\n"):
        edited = edited.removesuffix("\n")
    return edited.replace("\n", "\r\n") if windows else edited


def _apply(table: Any, changes: Mapping[str, Any]) -> None:
    """Set or remove keys; a mapping is merged, and goes with its last key."""
    for key, value in changes.items():
        if value is None:
            if key in table:
                del table[key]
        elif isinstance(value, Mapping) and key in table:
            _apply(table[key], value)
            if not table[key]:
                del table[key]
        elif isinstance(value, list) and isinstance(table.get(key), _tomlkit().items.Array):
            _change_array(table[key], value)
        elif not isinstance(value, Mapping) or any(inner is not None for inner in value.values()):
            table[key] = _item(table, value)


def _change_array(array: Array, values: list[str]) -> None:
    """Make an array hold `values`; the items that stay are not touched, nor are their comments."""
    for item in [item for item in array if item not in values]:
        array.remove(item)
    for value in values:
        if value not in array:
            array.append(value)


def _item(table: Any, value: Any) -> Any:
    """A value to be set: a mapping becomes a table that can stand inside `table`."""
    if not isinstance(value, Mapping):
        return value
    tomlkit = _tomlkit()
    new: AbstractTable = tomlkit.inline_table() if isinstance(table, tomlkit.items.InlineTable) else tomlkit.table()
    new.update({key: inner for key, inner in value.items() if inner is not None})
    return new
