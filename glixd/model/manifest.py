# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a host, `hosts/<host>/glix.toml`: what is read from it, and what it must not hold.

Python and Nix read the same file, so whatever the two would read differently is refused: dates, floats, integers beyond 64
bits, control characters, a byte order mark, and line endings of Windows inside a string. Keys that are not known here are
allowed and ignored; edits keep them (see `document`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Any, Final, NoReturn, Self

from glixd.api import PACKAGE_NAME, SYSTEM, USER_NAME, Consent, Scope
from glixd.errors import Detail, Refused
from glixd.model.inputs import INPUT_NAME, RESERVED_INPUTS
from glixd.model.reading import read_part, read_toml, spliced
from glixd.protocol import MAX_REFERENCE_BYTES, ErrorCode
from glixd.values import dataclass

SCHEMA: Final = 1
"""The schema of manifests that is understood. New keys do not change it."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package table, as written."""

    name: str
    flake: str
    scope: Scope | None = None
    """None: the default of the manifest."""
    enabled: bool = True
    pin: str | None = None
    user: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    input: str | None = None
    """The flake input where it is not named like the package."""
    follows: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """The `[settings]` table."""

    default_scope: Scope = Scope.SYSTEM
    auto_apply: bool = False
    registry_url: str | None = None
    system: str | None = None
    primary_user: str | None = None
    state_version: str | None = None
    allow_unfree: tuple[str, ...] = ()
    """The packages that may have an unfree licence; likewise the two below."""
    allow_insecure: tuple[str, ...] = ()
    allow_broken: tuple[str, ...] = ()
    core_modules: bool = True
    """Whether the core's defaults are part of the host."""

    def allowed(self, consent: Consent) -> tuple[str, ...]:
        """The packages that have this consent."""
        names: tuple[str, ...] = getattr(self, consent.setting)
        return names

    def allowing(self, allowed: Mapping[Consent, tuple[str, ...]]) -> Settings:
        """The settings with other packages that have each consent."""
        return replace(
            self,
            allow_unfree=allowed[Consent.UNFREE],
            allow_insecure=allowed[Consent.INSECURE],
            allow_broken=allowed[Consent.BROKEN],
        )


PACKAGE_KEYS: Final = frozenset(key.name for key in fields(Package)) - {"name"}
SETTING_KEYS: Final = frozenset(key.name for key in fields(Settings))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that passed every check; the packages stand in the order of the file."""

    schema: int
    settings: Settings
    packages: Mapping[str, Package]

    @classmethod
    def parse(cls, text: str, path: str) -> Self:
        """Read a manifest; anything wrong raises ManifestInvalid with path, line and reason."""
        reader = _Reader(text, path)
        return cls(SCHEMA, reader.settings(), reader.packages())

    @classmethod
    def parse_part(cls, text: str, path: str, base_text: str, base: Self) -> Self:
        """What `parse` says of a text, told from the part in which it differs from one that is known, where there is one.

        As strong as `parse`: see `reading` for what the rest means, and every check of a package is made of those in the part.
        """
        part = read_part(text, base_text)
        if part is None:
            return cls.parse(text, path)
        try:
            found = _Reader(part.text, path, {**part.document, "packages": part.now}).packages()
        except Refused:
            return cls.parse(text, path)  # which knows the line
        packages = spliced(base.packages, part.was, found)
        return cls.parse(text, path) if packages is None else cls(SCHEMA, base.settings, packages)

    def scope_of(self, package: Package) -> Scope:
        """Where the package goes: its own scope, else the default."""
        return package.scope or self.settings.default_scope

    def user_of(self, package: Package, default_user: str | None = None) -> str | None:
        """Whose home the package goes to; None for a package of the system, or when nobody is named."""
        if self.scope_of(package) is not Scope.HOME:
            return None
        return package.user or self.settings.primary_user or default_user

    def consents_of(self, name: str) -> tuple[Consent, ...]:
        """What the host consented to for the package of that name."""
        return tuple(consent for consent in Consent if name in self.settings.allowed(consent))

    def input_name(self, package: Package) -> str:
        """The flake input that the package comes from, unless it is an attribute of the host's own nixpkgs."""
        return package.input or package.name


def invalid_manifest(path: str, reason: str, line: int | None = None) -> Refused:
    """The error for a broken manifest: path, line where it is known, and reason."""
    where = f"{path}:{line}" if line is not None else path
    details: dict[str, Detail] = {"path": path, "reason": reason}
    if line is not None:
        details["line"] = line
    hint = f"Correct the file, or take back what was edited with: git checkout -- {path}"
    return Refused(f"{where}: {reason}", code=ErrorCode.MANIFEST_INVALID, hint=hint, details=details)


def key_pattern(key: str) -> str:
    """A regular expression for the ways in which a key is commonly written: bare where that can be, or quoted."""
    escaped = re.escape(key)
    quoted = f"\"{escaped}\"|'{escaped}'"
    return f"(?:{quoted}|{escaped})" if _BARE_KEY.fullmatch(key) else f"(?:{quoted})"


_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_INTEGERS: Final = range(-(2**63), 2**63)
_LINE_IN_MESSAGE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_MAY_HOLD_CONTROL: Final = re.compile(r"[\\\x7f-\x9f]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WINDOWS_STRING: Final = re.compile(r'"""|\'\'\'')
_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    dict: "a table",
    list: "an array",
}
_SCOPES: Final[Mapping[str, Scope]] = {scope.value: scope for scope in Scope}


class _Reader:
    """One walk over one document; knows where it is, for the errors."""

    def __init__(self, text: str, path: str, document: Mapping[str, Any] | None = None) -> None:
        """`document` is what is read already of a text that is a part of a whole."""
        self._text = text
        self._path = path
        self._controls_possible = _MAY_HOLD_CONTROL.search(text) is not None
        self._document = self._load() if document is None else document
        self._check_top()

    def settings(self) -> Settings:
        """The checked settings."""
        at = ("settings",)
        table = self._table(self._document, at)
        self._check_unknown(table, SETTING_KEYS, at)
        system = self._string(table, "system", at)
        if system is not None and not SYSTEM.fullmatch(system):
            self._refuse((*at, "system"), f"{system!r} is no Linux system that Nix knows, such as x86_64-linux")
        return Settings(
            default_scope=self._scope(table, "default_scope", at) or Scope.SYSTEM,
            auto_apply=self._flag(table, "auto_apply", at, default=False),
            core_modules=self._flag(table, "core_modules", at, default=True),
            registry_url=self._string(table, "registry_url", at),
            system=system,
            primary_user=self._user(table, "primary_user", at),
            state_version=self._string(table, "state_version", at),
            **{consent.setting: self._names(table, consent.setting, at) for consent in Consent},
        )

    def packages(self) -> dict[str, Package]:
        """The checked packages, in the order of the file."""
        tables = self._table(self._document, ("packages",))
        default = (
            self._scope(self._table(self._document, ("settings",)), "default_scope", ("settings",)) or Scope.SYSTEM
        )
        return {name: self._package(name, table, default) for name, table in tables.items()}

    def _package(self, name: str, table: object, default_scope: Scope) -> Package:
        at = ("packages", name)
        if not PACKAGE_NAME.fullmatch(name):
            self._refuse(
                at, "a package name starts with a letter, digit or _, then has letters, digits and _ + . -, at most 128"
            )
        if not isinstance(table, dict):
            self._refuse(at, "is not a table")
        self._check_unknown(table, PACKAGE_KEYS, at)
        scope = self._scope(table, "scope", at)
        user = self._user(table, "user", at)
        if user is not None and (scope or default_scope) is not Scope.HOME:
            self._refuse((*at, "user"), 'only a package with scope = "home" belongs to a user')
        return Package(
            name=name,
            flake=self._flake(table, at),
            scope=scope,
            enabled=self._flag(table, "enabled", at, default=True),
            pin=self._string(table, "pin", at),
            user=user,
            config=self._config(table, at),
            input=self._input(table, at),
            follows=self._flag(table, "follows", at, default=True),
        )

    # -- the document --------------------------------------------------------------------------------------------

    def _load(self) -> Mapping[str, Any]:
        if self._text.startswith("\ufeff"):
            raise invalid_manifest(self._path, "starts with a byte order mark; save it without one", 1)
        if "\r\n" in self._text and (several := _WINDOWS_STRING.search(self._text)):
            line = self._text.count("\n", 0, several.start()) + 1
            reason = "a string over several lines can't stand in a file with the line endings of Windows (CRLF)"
            raise invalid_manifest(self._path, reason, line)
        try:
            return read_toml(self._text)
        except RecursionError:
            raise invalid_manifest(self._path, "is nested too deeply") from None
        except ValueError as error:  # tomllib's own, or an integer of thousands of digits
            raise self._unreadable(str(error)) from error

    def _unreadable(self, message: str) -> Refused:
        """The error for what is no TOML; before Python 3.14 tomllib says the line in its message alone."""
        match = _LINE_IN_MESSAGE.search(message)
        if match is None:
            return invalid_manifest(self._path, f"this is no TOML: {message}")
        last = self._text.removesuffix("\n").count("\n") + 1
        reason = f"this is no TOML: {message[: match.start()]}"
        return invalid_manifest(self._path, reason, min(int(match[1] or last), last))

    def _check_top(self) -> None:
        self._check_unknown(self._document, frozenset({"schema", "settings", "packages"}), ())
        schema = self._document.get("schema")
        understood = f"glixd understands schema = {SCHEMA}"
        if schema is None:
            self._refuse((), f"the key schema is missing; {understood}")
        if type(schema) is not int or schema != SCHEMA:
            self._refuse(("schema",), f"{schema!r} is not known; {understood}")

    # -- values --------------------------------------------------------------------------------------------------

    def _table(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Mapping[str, Any]:
        value = table.get(at[-1], {})
        if not isinstance(value, dict):
            self._refuse(at, "is not a table")
        return value

    def _string(self, table: Mapping[str, Any], key: str, at: tuple[str, ...]) -> str | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self._refuse((*at, key), f"is {_kind(value)}, not a string")
        if not value:
            self._refuse((*at, key), "is empty; leave the key out instead")
        if "\n" in value or "\t" in value or (self._controls_possible and _CONTROL.search(value)):
            self._refuse((*at, key), "holds a control character")
        return value

    def _flag(self, table: Mapping[str, Any], key: str, at: tuple[str, ...], *, default: bool) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            self._refuse((*at, key), f"is {_kind(value)}, not true or false")
        return value

    def _names(self, table: Mapping[str, Any], key: str, at: tuple[str, ...]) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list):
            self._refuse((*at, key), f"is {_kind(value)}, not an array of names")
        for name in value:
            if not isinstance(name, str) or not PACKAGE_NAME.fullmatch(name):
                self._refuse((*at, key), f"{name!r} is no name of a package")
        return tuple(dict.fromkeys(value))

    def _scope(self, table: Mapping[str, Any], key: str, at: tuple[str, ...]) -> Scope | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or value not in _SCOPES:
            self._refuse((*at, key), f"{value!r} is no scope; it is system or home")
        return _SCOPES[value]

    def _user(self, table: Mapping[str, Any], key: str, at: tuple[str, ...]) -> str | None:
        user = self._string(table, key, at)
        if user is not None and not USER_NAME.fullmatch(user):
            self._refuse((*at, key), f"{user!r} is no user name: lower-case letters, digits, _ and -, at most 31")
        return user

    def _flake(self, table: Mapping[str, Any], at: tuple[str, ...]) -> str:
        flake = self._string(table, "flake", at)
        if flake is None:
            self._refuse(at, "the key flake is missing")
        if len(flake) > MAX_REFERENCE_BYTES:
            self._refuse((*at, "flake"), f"a reference has at most {MAX_REFERENCE_BYTES} characters")
        return flake

    def _input(self, table: Mapping[str, Any], at: tuple[str, ...]) -> str | None:
        name = self._string(table, "input", at)
        if name is not None and (not INPUT_NAME.fullmatch(name) or name in RESERVED_INPUTS):
            self._refuse((*at, "input"), f"{name!r} can't be the name of a managed input")
        return name

    def _config(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Mapping[str, str]:
        config = table.get("config")
        if config is None:
            return {}
        at = (*at, "config")
        if not isinstance(config, dict):
            self._refuse(at, f"is {_kind(config)}, not a table")
        for key, value in config.items():
            if not isinstance(value, str):
                self._refuse((*at, key), f"is {_kind(value)}; every value of config is a string")
            self._check_text(key, (*at, key))
            self._check_text(value, (*at, key))
        return dict(config)

    def _check_unknown(self, table: Mapping[str, Any], known: frozenset[str], at: tuple[str, ...]) -> None:
        """Keys that glixd does not know may be there, if Nix can read them."""
        for key, value in table.items():
            if key not in known:
                self._check_text(key, (*at, key))
                self._check_value(value, (*at, key))

    def _check_value(self, value: object, at: tuple[str, ...]) -> None:
        if isinstance(value, str):
            self._check_text(value, at)
        elif isinstance(value, dict):
            self._check_unknown(value, frozenset(), at)
        elif isinstance(value, list):
            for item in value:
                self._check_value(item, at)
        elif not isinstance(value, int):
            self._refuse(at, f"is {_kind(value)}, which Nix does not read as Python does")
        elif value not in _INTEGERS:
            self._refuse(at, "is an integer beyond 64 bits")

    def _check_text(self, text: str, at: tuple[str, ...]) -> None:
        if self._controls_possible and _CONTROL.search(text):
            self._refuse(at, "holds a control character")

    def _refuse(self, at: tuple[str, ...], reason: str) -> NoReturn:
        """Raise ManifestInvalid for the key path `at`, with the line of its key or of the table that it is in."""
        shown = ".".join(_shown_key(key) for key in at)
        raise invalid_manifest(self._path, f"{shown}: {reason}" if shown else reason, line_of(self._text, at))


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a float" if isinstance(value, float) else "a date or time")


def _shown_key(key: str) -> str:
    plain = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in key[:128])
    return plain if _BARE_KEY.fullmatch(plain) else f'"{plain}"'


def line_of(text: str, at: tuple[str, ...]) -> int | None:
    """The line of the innermost part of a key path that can be found without parsing: the table's header, then the key in it."""
    for depth in range(len(at), -1, -1):
        start = 0
        if depth:
            header = re.compile(
                r"^[ \t]*\[[ \t]*" + r"[ \t]*\.[ \t]*".join(map(key_pattern, at[:depth])) + r"[ \t]*\]", re.MULTILINE
            )
            if (found := header.search(text)) is None:
                continue
            start = found.end()
        end = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, start)
        if depth < len(at):
            key = re.compile(rf"^[ \t]*{key_pattern(at[depth])}[ \t]*[=.]", re.MULTILINE)
            inside = key.search(text, start, end.start() if end else len(text))
            if inside:
                return text.count("\n", 0, inside.start()) + 1
        if depth:
            return text.count("\n", 0, start) + 1
    return None
