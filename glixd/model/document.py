# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits of a manifest's text that keep every comment, the order, and each byte that is not concerned.

A table is cut out of the text by its header, edited alone with tomlkit, and put back: tomlkit takes seconds for the whole of
a long manifest. A layout in which a package is no table of its own (dotted keys, inline tables) goes through tomlkit whole.
Either way the result is read again and compared with what it should say, because tomlkit loses data in some layouts; when
nothing fits, the edit is refused and the text stays. Of a long manifest only the touched part is read again, where that
part can't mean anything else to the whole (see `reading`).

Which comments go with a removed table: those on its header line, between its keys, and below its last key up to the next
blank line. A comment above the header stays: only its author knows whether it speaks of that table or of several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from glixd.api import PACKAGE_NAME
from glixd.errors import NotFound, Refused, invalid
from glixd.model import tomltables
from glixd.model.manifest import PACKAGE_KEYS, SETTING_KEYS, Package, invalid_manifest
from glixd.model.reading import read_part, read_toml
from glixd.model.tomltables import Value
from glixd.protocol import ErrorCode

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
        text,
        lambda: tomltables.appended(text, edit.path, values),
        lambda: tomltables.through_tomlkit(text, edit.path, values),
    )


def remove_package(text: str, name: str) -> str:
    """The text without the tables of `name`."""
    base = _read(text)
    _existing(base, name)
    edit = _Edit(base, ("packages", name), None)
    return edit.first_of(
        text, lambda: tomltables.without(text, edit.path), lambda: tomltables.through_tomlkit(text, edit.path, None)
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
        lambda: tomltables.changed(text, edit.path, table, scalars, config),
        lambda: tomltables.changed_whole(text, edit.path, scalars, config),
    )


def change_settings(text: str, changes: Mapping[str, Value]) -> str:
    """The text with other settings, of which some are lists of names; the table is made where there is none."""
    base = _read(text)
    if unknown := sorted(changes.keys() - SETTING_KEYS):
        raise invalid("settings", f"{unknown[0]} is no setting of a manifest")
    _check_scalars(changes)
    table = base.get("settings", {})
    edit = _Edit(base, ("settings",), _merged(table, changes, {}))
    if not edit.changes_anything:
        return text
    return edit.first_of(
        text,
        lambda: (
            tomltables.changed(text, edit.path, table, changes, {})
            if "settings" in base
            else tomltables.appended(text, edit.path, edit.table or {})
        ),
        lambda: tomltables.changed_whole(text, edit.path, changes, {}),
    )


# -- what is asked for -------------------------------------------------------------------------------------------

_KEY_ORDER: Final = ("flake", "scope", "enabled", "user", "pin", "input", "follows", "config")
"""The keys of a package, in the order in which a new table lists them."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_CONFIG: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _read(text: str) -> Mapping[str, Any]:
    try:
        return read_toml(text)
    except (ValueError, RecursionError) as error:
        raise invalid_manifest("hosts/*/glix.toml", f"can't be edited: {error}") from error


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
    return {key: written[key] for key in _KEY_ORDER if written[key] is not None}


def _split(changes: Changes) -> tuple[dict[str, Value], Mapping[str, str | None] | None]:
    """The changes of plain keys, and those of config: None where all of it goes."""
    scalars: dict[str, Value] = {}
    config: Mapping[str, str | None] | None = {}
    for key, value in changes.items():
        if key not in PACKAGE_KEYS:
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
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and _CONTROL.search(text) for text in texts):
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
        self._base = base
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
            except tomltables.gives_up():
                continue
            if result is not None and (self._is_good_part(text, result) or self._is_good(text, result)):
                return result
        raise self._refusal()

    def _is_good(self, text: str, result: str) -> bool:
        try:
            says_expected = self._normal(read_toml(result)) == self._expected
        except (ValueError, RecursionError):
            return False
        return says_expected and self._keeps_comments(text, result)

    def _is_good_part(self, text: str, result: str) -> bool:
        """Whether the edit of a long document is good by the part that it touched; False also in doubt."""
        part = read_part(result, text)
        if part is None or self._normal(part.document) != self._expected:
            return False
        return self._keeps_comments(part.before, part.text)

    def _keeps_comments(self, text: str, result: str) -> bool:
        return self.table is None or tomltables.keeps_comments(text, result)

    def _with_table(self, base: Mapping[str, Any]) -> dict[str, Any]:
        document = self._normal(base)
        if len(self.path) == 1:
            return {**document, self.path[0]: self.table}
        packages = dict(document["packages"])
        packages.pop(self.path[1], None)
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
