# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits of a manifest's text that keep every comment, the order, and each byte that is not concerned.

A table is cut out of the text by its header, edited alone with tomlkit, and put back: tomlkit takes seconds for the whole of
a long manifest. A layout in which a package is no table of its own (dotted keys, inline tables) goes through tomlkit whole.
Either way the result is read again and compared with what it should say, because tomlkit loses data in some layouts; when
nothing fits, the edit is refused and the text stays.

Which comments go with a removed table: those on its header line, between its keys, and below its last key up to the next
blank line. A comment above the header stays: only its author knows whether it speaks of that table or of several.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AbstractTable, InlineTable

from glixd.api import PACKAGE_NAME
from glixd.errors import NotFound, Refused, invalid
from glixd.model.manifest import Package, invalid_manifest, key_pattern, read_toml
from glixd.protocol import ErrorCode

Value = str | bool | None
Changes = Mapping[str, str | bool | Mapping[str, str | None] | None]
"""New values by key; None removes the key. The value of `config` is merged key by key, or None to remove it whole."""


def add_package(text: str, package: Package) -> str:
    """The text with a table for `package` at its end."""
    base = _read(text)
    if not PACKAGE_NAME.fullmatch(package.name):
        raise invalid("name", "a package name has letters, digits and _ + . -, at most 128")
    if package.name in base.get("packages", {}):
        message = f"the manifest already has a package {package.name}"
        raise Refused(message, code=ErrorCode.ALREADY_INSTALLED, details={"name": package.name})
    values = _values(package)
    _check("config", values.get("config", {}))
    _check_scalars({key: value for key, value in values.items() if key != "config"})
    edit = _Edit(base, ("packages", package.name), values)
    return edit.first_of(
        text, lambda: _appended(text, edit.path, values), lambda: _through_tomlkit(text, edit.path, values)
    )


def remove_package(text: str, name: str) -> str:
    """The text without the tables of `name`."""
    base = _read(text)
    _existing(base, name)
    edit = _Edit(base, ("packages", name), None)
    return edit.first_of(
        text, lambda: _without_blocks(text, edit.path), lambda: _through_tomlkit(text, edit.path, None)
    )


def change_package(text: str, name: str, changes: Changes) -> str:
    """The text with other values in the tables of `name`; an edit that changes nothing gives the text itself."""
    base = _read(text)
    table = _existing(base, name)
    scalars, config = _split(changes)
    _check_scalars(scalars)
    _check("config", config)
    edit = _Edit(base, ("packages", name), _merged(table, scalars, config))
    if not edit.changes_anything:
        return text
    return edit.first_of(
        text,
        lambda: _changed_blocks(text, edit.path, table, scalars, config),
        lambda: _changed_whole(text, edit.path, scalars, config),
    )


def change_settings(text: str, changes: Mapping[str, str | bool | None]) -> str:
    """The text with other settings; the table is made where there is none."""
    base = _read(text)
    if unknown := sorted(changes.keys() - _SETTING_KEYS):
        raise invalid("settings", f"{unknown[0]} is no setting of a manifest")
    _check_scalars(changes)
    table = base.get("settings", {})
    edit = _Edit(base, ("settings",), _merged(table, changes, {}))
    if not edit.changes_anything:
        return text
    return edit.first_of(
        text,
        lambda: (
            _changed_blocks(text, edit.path, table, changes, {})
            if "settings" in base
            else _appended(text, edit.path, edit.table or {})
        ),
        lambda: _changed_whole(text, edit.path, changes, {}),
    )


# -- what is asked for -------------------------------------------------------------------------------------------

_PACKAGE_KEYS: Final = ("flake", "scope", "enabled", "user", "pin", "input", "follows", "config")
"""The keys of a package, in the order in which a new table lists them."""
_SETTING_KEYS: Final = frozenset(
    {"default_scope", "auto_apply", "registry_url", "system", "primary_user", "state_version"}
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_CONFIG: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _read(text: str) -> Mapping[str, Any]:
    try:
        return read_toml(text)
    except (ValueError, RecursionError) as error:
        raise invalid_manifest("glix.toml", f"can't be edited: {error}") from error


def _existing(base: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = base.get("packages", {}).get(name)
    if not isinstance(table, dict):
        raise NotFound(f"the manifest has no package {name}", code=ErrorCode.NOT_INSTALLED, details={"name": name})
    return table


def _values(package: Package) -> dict[str, Any]:
    """What a new table of the package holds, in its order; defaults are left out."""
    config = {key: package.config[key] for key in package.config}
    written = {
        "flake": package.flake,
        "scope": str(package.scope) if package.scope is not None else None,
        "enabled": None if package.enabled else False,
        "user": package.user,
        "pin": package.pin,
        "input": package.input,
        "follows": None if package.follows else False,
        "config": config or None,
    }
    return {key: written[key] for key in _PACKAGE_KEYS if written[key] is not None}


def _split(changes: Changes) -> tuple[dict[str, Value], Mapping[str, str | None] | None]:
    """The changes of plain keys, and those of config: None where all of it goes."""
    scalars: dict[str, Value] = {}
    config: Mapping[str, str | None] | None = {}
    for key, value in changes.items():
        if key not in _PACKAGE_KEYS:
            raise invalid("changes", f"{key} is no key of a package")
        if key == "config":
            if value is not None and not isinstance(value, Mapping):
                raise invalid("config", "is not a table of strings")
            config = value
        elif isinstance(value, Mapping):
            raise invalid(key, "is not a plain value")
        else:
            scalars[key] = str(value) if isinstance(value, str) else value
    return scalars, config


def _check_scalars(scalars: Mapping[str, Value]) -> None:
    for key, value in scalars.items():
        if value == "":
            raise invalid(key, "is empty")
        if isinstance(value, str) and _CONTROL.search(value):
            raise invalid(key, "holds a control character")


def _check(argument: str, config: Mapping[str, str | None] | None) -> None:
    for key, value in (config or {}).items():
        if not key or _CONTROL.search(key) or (value is not None and _CONTROL_IN_CONFIG.search(value)):
            raise invalid(argument, "a key is empty, or a key or value holds a control character")


def _merged(
    table: Mapping[str, Any], scalars: Mapping[str, Value], config: Mapping[str, str | None] | None
) -> dict[str, Any]:
    """What a table holds after the changes."""
    kept = {key: value for key, value in table.items() if key not in scalars and key != "config"}
    kept |= {key: value for key, value in scalars.items() if value is not None}
    if config is not None and (old := table.get("config", {})) | config:
        merged = {key: value for key, value in {**old, **config}.items() if value is not None}
        kept |= {"config": merged} if merged else {}
    return kept


class _Edit:
    """What the document says before and has to say after: the judge of every attempt."""

    def __init__(self, base: Mapping[str, Any], path: tuple[str, ...], table: Mapping[str, Any] | None) -> None:
        self.path = path
        self.table = table
        self._before = self._normal(base)
        self._expected = self._with_table(base)

    @property
    def changes_anything(self) -> bool:
        """Whether the document has to say something else than before."""
        return self._expected != self._before

    def first_of(self, text: str, *attempts: Callable[[], str | None]) -> str:
        """The first attempt whose result says the expected and has kept the comments."""
        for attempt in attempts:
            try:
                result = attempt()
            except _TOMLKIT_GIVES_UP:
                continue
            if (
                result is not None
                and self._says_expected(result)
                and (self.table is None or _keeps_comments(text, result))
            ):
                return result
        raise self._refusal()

    def _says_expected(self, text: str) -> bool:
        try:
            return self._normal(read_toml(text)) == self._expected
        except (ValueError, RecursionError):
            return False

    def _with_table(self, base: Mapping[str, Any]) -> dict[str, Any]:
        document = self._normal(base)
        if len(self.path) == 1:
            return {**document, self.path[0]: self.table}
        packages = {key: value for key, value in document.get("packages", {}).items() if key != self.path[1]}
        if self.table is not None:
            packages[self.path[1]] = self.table
        return {**document, "packages": packages}

    def _normal(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document, where no packages and an empty config of the package concerned are as good as none."""
        normal = {"packages": {}, **document}
        name = self.path[-1]
        packages = normal["packages"]
        if len(self.path) == 2 and isinstance(packages, dict) and packages.get(name, {}).get("config", True) == {}:
            table = {key: value for key, value in packages[name].items() if key != "config"}
            normal["packages"] = {**packages, name: table}
        return normal

    def _refusal(self) -> Refused:
        table = ".".join(self.path)
        return Refused(
            f"the manifest is laid out in a way that does not let {table} be edited without touching other lines",
            hint=f"Write it as a table of its own, [{table}], and try again; or make the change in the file by hand.",
            details={"table": table},
        )


_TOMLKIT_GIVES_UP: Final = (TOMLKitError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""tomlkit fails on layouts that it does not foresee in any of these ways."""


def _keeps_comments(before: str, after: str) -> bool:
    """Whether every comment on a line of its own is still there."""
    return Counter(_COMMENT_LINE.findall(before)) <= Counter(_COMMENT_LINE.findall(after))


_COMMENT_LINE: Final = re.compile(r"^[ \t]*(#[^\r\n]*)", re.MULTILINE)


# -- tables in the text ------------------------------------------------------------------------------------------


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


# -- attempts ----------------------------------------------------------------------------------------------------


def _newline(text: str) -> str:
    """The line ending of the document: that of its first line."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def _table_text(path: tuple[str, ...], values: Mapping[str, Any], newline: str) -> str:
    """A new table, config as a table of its own below it."""
    header = ".".join(tomlkit.key(key).as_string() for key in path)
    lines = [f"[{header}]"]
    lines += [
        f"{tomlkit.key(key).as_string()} = {tomlkit.item(value).as_string()}"
        for key, value in values.items()
        if key != "config"
    ]
    text = "".join(line + newline for line in lines)
    return text + (_table_text((*path, "config"), values["config"], newline) if "config" in values else "")


def _appended(text: str, path: tuple[str, ...], values: Mapping[str, Any]) -> str:
    newline = _newline(text)
    table = _table_text(path, values, newline)
    if not text:
        return table
    ended = text if text.endswith("\n") else text + newline
    last_line = ended.rstrip("\n").removesuffix("\r")
    separated = ended if not last_line or ended[len(last_line) :].count("\n") > 1 else ended + newline
    return separated + table


def _without_blocks(text: str, path: tuple[str, ...]) -> str | None:
    blocks = _blocks(text, path)
    for block in reversed(blocks):
        text = _without(text, block)
    return text if blocks else None


def _without(text: str, block: _Block) -> str:
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


def _changed_blocks(
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
    document: Any = tomlkit.parse(unix if unix.endswith("\n") else unix + "\n")
    _apply(_at(document, path), changes)
    edited: str = tomlkit.dumps(document)
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
        elif not isinstance(value, Mapping) or any(inner is not None for inner in value.values()):
            table[key] = _item(table, value)


def _item(table: Any, value: Any) -> Any:
    """A value to be set: a mapping becomes a table that can stand inside `table`."""
    if not isinstance(value, Mapping):
        return value
    new: AbstractTable = tomlkit.inline_table() if isinstance(table, InlineTable) else tomlkit.table()
    new.update({key: inner for key, inner in value.items() if inner is not None})
    return new


def _through_tomlkit(text: str, path: tuple[str, ...], values: Mapping[str, Any] | None) -> str | None:
    """The whole document through tomlkit, with a package added, or removed where its comments can't get lost."""
    name = path[-1]
    edited = _edited(text, path[:-1], {name: values})
    return edited if values is not None or _keeps_comments(text, edited) else None


def _changed_whole(
    text: str, path: tuple[str, ...], scalars: Mapping[str, Value], config: Mapping[str, str | None] | None
) -> str:
    changes: dict[str, Any] = dict(scalars)
    if config is None or config:
        changes["config"] = config
    return _edited(text, path, changes)
