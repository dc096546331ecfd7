#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the reference from the code: scripts/reference.py [FOLDER], by default docs/reference.

The table of operations, the table of errors, the settings, the parsers of glixctl and the reader of manifests are what is
true; a page here is one of them in words. What `--json` prints has a writer of its own, scripts/jsonschemas.py.
"""

from __future__ import annotations

import argparse
import enum
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from glixctl import cli, commands
from glixd import api
from glixd.frontends import introspection
from glixd.frontends.bus_values import signature
from glixd.model import manifest
from glixd.protocol import (
    BUS_NAME,
    DEFAULT_CORE_URL,
    DEFAULT_HOME_MANAGER_URL,
    DEFAULT_NIXPKGS_URL,
    ERROR_PREFIX,
    ERRORS,
    MANAGER_INTERFACE,
    MAX_BUS_MESSAGE,
    MAX_JSON_MESSAGE,
    MAX_REFERENCES,
    OBJECT_PATH,
    TRANSACTION_INTERFACE,
    TRANSACTION_PATH,
    Exit,
    State,
    json_code,
)
from glixd.settings import PREFIX, Settings
from scripts.manpages import ENVIRONMENT, EXITS

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"
HEAD: Final = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Written by scripts/reference.py from the code. -->

"""
WITH_EVERY_MUTATION: Final = tuple(api.MutationParameters.model_fields)

PACKAGE_KEYS: Final[Mapping[str, str]] = {
    "flake": "Where the package comes from: a flake reference, with `#attribute` where it needs one. "
    "`nixpkgs#NAME` is the package NAME of the host's own nixpkgs.",
    "scope": "`system` or `home`; by default `default_scope` of the settings.",
    "enabled": "Whether the host has it. A disabled package keeps its entry and its input.",
    "pin": "A commit, tag or branch that its input stays on.",
    "user": "Whose home, for the scope `home`; by default `primary_user` of the settings.",
    "config": "Strings for the module of the package, which gets them as `glixConfig`.",
    "input": "The flake input it comes from, where that is not called like the package.",
    "follows": "Whether its input follows the nixpkgs of the host.",
}
SETTING_KEYS: Final[Mapping[str, str]] = {
    "default_scope": "Where a package goes whose entry does not say it: `system` or `home`.",
    "core_modules": "Whether glixos-core's defaults are part of the host; `false` for a machine that was taken over as it was.",
    "auto_apply": "Kept for repositories of glix; glixd switches no system by itself.",
    "registry_url": "A registry of short names that this host asks besides those of the daemon's settings.",
    "system": "The Nix system of the host, such as `x86_64-linux`.",
    "primary_user": "Whose home a package of scope `home` goes to when its entry does not say it.",
    "state_version": "The `home.stateVersion` of the homes of this host.",
    "allow_unfree": "Packages of this manifest that may have an unfree licence.",
    "allow_insecure": "Packages of this manifest that may have known vulnerabilities.",
    "allow_broken": "Packages of this manifest that may be marked as broken.",
}


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {
        "README.md": HEAD + _index(),
        "operations.md": HEAD + _operations(),
        "values.md": HEAD + _values(),
        "errors.md": HEAD + _errors(),
        "settings.md": HEAD + _settings(),
        "glixctl.md": HEAD + _glixctl(),
        "manifest.md": HEAD + _manifest(),
        "dbus.md": HEAD + _dbus(),
        f"{MANAGER_INTERFACE}.xml": introspection.manager(),
        f"{TRANSACTION_INTERFACE}.xml": introspection.transaction(),
    }


def write(folder: Path) -> None:
    """Write all pages to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


def _index() -> str:
    return f"""\
# Reference

- [Operations](operations.md): everything that the daemon can be asked, on both wires, and the [values](values.md) it answers with
- [Errors and exit codes](errors.md)
- [Settings](settings.md) of the daemon
- [glixctl](glixctl.md): verbs and flags; also as manual pages in `docs/man`
- [What `--json` prints](json.md)
- [The manifest](manifest.md): `hosts/HOST/glix.toml`
- [D-Bus](dbus.md), with the introspection of the [manager]({MANAGER_INTERFACE}.xml) and of a [transaction]({TRANSACTION_INTERFACE}.xml)
"""


# -- operations --------------------------------------------------------------------------------------------------


def _operations() -> str:
    queries = [row for row in api.OPERATIONS.values() if row.kind is api.Kind.QUERY]
    mutations = [row for row in api.OPERATIONS.values() if row.kind is api.Kind.MUTATION]
    return "\n".join(
        [
            "# Operations",
            "",
            "One table makes the methods of D-Bus and those of JSON-RPC. On the bus the required parameters are arguments in the",
            "order given here, and all others go by name into the last argument, `a{sv} options`; on the socket all go by name,",
            "or the required ones alone in their order. A query answers with its result. A mutation answers at once with its",
            'transaction: an object path on the bus, `{"transaction": ID}` on the socket; what becomes of it, its errors included,',
            "is in the transaction.",
            "",
            f"A message has at most {MAX_BUS_MESSAGE // 1024} KiB on the bus and {MAX_JSON_MESSAGE // 1024} KiB on the socket, a",
            f"request at most {MAX_REFERENCES} references. An unknown parameter is refused by name.",
            "",
            "Any operation may fail as [errors](errors.md) says; `InvalidArgument` and `NotAuthorised` are common to all.",
            "",
            "## Queries",
            "",
            *(line for row in queries for line in _operation(row)),
            "## Mutations",
            "",
            "Every mutation takes these besides its own:",
            "",
            *_parameters(api.MutationParameters, WITH_EVERY_MUTATION),
            "",
            *(line for row in mutations for line in _operation(row)),
            "## States of a transaction",
            "",
            *(f"- `{state}`{', final' if state.final else ''}" for state in State),
            "",
        ]
    )


def _values() -> str:
    return "\n".join(
        [
            "# Values",
            "",
            "What [operations](operations.md) answer with, and what that consists of. What is absent is left out.",
            "[json.md](json.md) has the schemas of those that glixctl prints.",
            "",
            *(line for model in sorted(_LINKED, key=lambda model: model.__name__) for line in _value(model)),
        ]
    )


def _operation(row: api.Operation) -> Iterator[str]:
    yield from (f"### {row.name}", "", row.summary, "")
    taken = ", ".join(f"{kind} {name}" for name, kind in introspection.in_arguments(row))
    given = "o transaction" if row.kind is api.Kind.MUTATION else "a{sv} result"
    yield from (f"`{row.name}({taken}) → {given}`, guarded by the policy `{row.policy}`.", "")
    own = [
        name for name in row.parameters.model_fields if row.kind is api.Kind.QUERY or name not in WITH_EVERY_MUTATION
    ]
    if own:
        yield from (*_parameters(row.parameters, own), "")
    if row.kind is api.Kind.QUERY:
        yield from (f"Answers with [{row.result.__name__}](values.md#{row.result.__name__.lower()}).", "")


def _parameters(model: type[api.Value], names: Iterable[str]) -> Iterator[str]:
    yield from _table(
        ("parameter", "JSON", "D-Bus", "default", "meaning"),
        (
            (
                f"`{name}`",
                _json_type(field.annotation),
                f"`{signature(field.annotation)}`",
                "required" if field.is_required() else _default(field),
                field.description or "",
            )
            for name, field in model.model_fields.items()
            if name in names
        ),
    )


def _value(model: type[api.Value]) -> Iterator[str]:
    yield from (f"### {model.__name__}", "", (model.__doc__ or "").strip(), "")
    rows = [
        (f"`{name}`", _json_type(field.annotation), f"`{signature(field.annotation)}`", field.description or "")
        for name, field in model.model_fields.items()
    ]
    if rows:
        yield from (*_table(("member", "JSON", "D-Bus", "meaning"), rows), "")


def _models(names: Iterable[str]) -> list[type[api.Value]]:
    """The models of those names and all that they consist of, by name."""
    found: dict[str, type[api.Value]] = {}
    waiting: list[Any] = [getattr(api, name) for name in names]
    while waiting:
        model = waiting.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            waiting += [part for field in model.model_fields.values() for part in _parts(field.annotation)]
    return [found[name] for name in sorted(found)]


def _parts(annotation: Any) -> Iterator[type[api.Value]]:
    if isinstance(annotation, type) and issubclass(annotation, api.Value):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _parts(argument)


def _json_type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _json_type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_json_type(argument) for argument in arguments if argument is not types.NoneType)
    if origin in (tuple, list):
        return f"array of {_json_type(arguments[0])}"
    if origin is dict:
        return f"object of {_json_type(arguments[1])}"
    return _json_name(annotation)


def _json_name(annotation: Any) -> str:
    if issubclass(annotation, api.Value):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})" if annotation in _LINKED else "object"
    if issubclass(annotation, enum.Enum):
        return " or ".join(f'`"{member.value}"`' for member in annotation)
    return {bool: "boolean", int: "integer", float: "number", str: "string"}.get(annotation, "any")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}, []):
        return ""
    return f"`{_spelt(value)}`"


# -- errors ------------------------------------------------------------------------------------------------------


def _errors() -> str:
    errors = _table(
        ("error", "JSON-RPC", "exit code", "meaning"),
        ((f"`{code}`", str(json_code(code)), str(row.exit_code), row.meaning) for code, row in ERRORS.items()),
    )
    exits = _table(("exit code", "meaning"), ((str(code), EXITS[code]) for code in Exit.all().values()))
    return "\n".join(
        [
            "# Errors and exit codes",
            "",
            f"On the bus an error is called `{ERROR_PREFIX}` and its name. On the socket it has a code, a sentence, and",
            "`data` with `name`, `hint` and `details`. In a transaction that failed it is the member `error`.",
            "",
            *errors,
            "",
            "## Exit codes of glixctl",
            "",
            *exits,
            "",
        ]
    )


# -- settings ----------------------------------------------------------------------------------------------------


def _settings() -> str:
    rows = (
        (f"`{name}`", _setting_default(field), field.description or "Whose daemon this is: user or system.")
        for name, field in Settings.model_fields.items()
    )
    return "\n".join(
        [
            "# Settings of the daemon",
            "",
            "The file is TOML: `/etc/glixd/config.toml` in system mode, `$XDG_CONFIG_HOME/glixd/config.toml` in user mode. Unknown",
            f"keys are refused. An argument beats a variable, named `{PREFIX}` and the key in capitals; a variable beats the file.",
            "",
            *_table(("key", "default", "meaning"), rows),
            "",
            "## Defaults of a new repository",
            "",
            *_table(
                ("input", "URL"),
                (
                    ("`nixpkgs`", f"`{DEFAULT_NIXPKGS_URL}`"),
                    ("`glixos-core`", f"`{DEFAULT_CORE_URL}`"),
                    ("`home-manager`", f"`{DEFAULT_HOME_MANAGER_URL}`"),
                ),
            ),
            "",
            "## Variables that glixctl reads",
            "",
            *_table(("variable", "meaning"), ((f"`{name}`", meaning) for name, meaning in ENVIRONMENT.items())),
            "",
        ]
    )


def _setting_default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "depends on the mode"
    return "" if field.default is None else f"`{_spelt(field.default)}`"


# -- glixctl -----------------------------------------------------------------------------------------------------


def _glixctl() -> str:
    lines = [
        "# glixctl",
        "",
        "Flags stand in any order, before or after the verb. Every verb takes these:",
        "",
        *_flags(cli.parser_of("ping", commands.load("ping")), _COMMON),
        "",
    ]
    for title, verbs in commands.TASKS.values():
        lines += [f"## {title}", ""]
        for verb in verbs:
            for name, command in commands.members(verb):
                lines += _verb(name, command)
    return "\n".join(lines)


def _verb(name: str, command: commands.Command) -> Iterator[str]:
    parser = cli.parser_of(name, command)
    yield from (f"### glixctl {name}", "", f"{command.SUMMARY[:1].upper()}{command.SUMMARY[1:]}.", "")
    for paragraph in getattr(command, "ABOUT", ()):
        yield from (paragraph, "")
    own = list(_flags(parser, lambda parser, action: not _COMMON(parser, action)))
    if own:
        yield from (*own, "")
    yield "```console"
    yield from (f"$ glixctl {example}" for example, _ in command.EXAMPLES)
    yield from ("```", "")


def _in_common(parser: argparse.ArgumentParser, action: argparse.Action) -> bool:
    common = next(group for group in parser._action_groups if group.title == "with every verb")
    return action in common._group_actions


Chooser = Callable[[argparse.ArgumentParser, argparse.Action], bool]
_COMMON: Final[Chooser] = _in_common


def _flags(parser: argparse.ArgumentParser, chosen: Chooser) -> Iterator[str]:
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and "--help" not in action.option_strings and chosen(parser, action):
            yield f"- {_usage(action)}: {action.help or ''}"


def _usage(action: argparse.Action) -> str:
    value = "|".join(map(str, action.choices)) if action.choices is not None else str(action.metavar or action.dest)
    if action.option_strings:
        words = value if action.nargs != 0 else ""
        return ", ".join(f"`{f'{flag} {words}'.strip()}`" for flag in action.option_strings)
    repeated = f"{value} …" if action.nargs in ("+", "*") else value
    return f"`{repeated}`" if action.nargs in (None, "+") else f"`[{repeated}]`"


# -- the manifest ------------------------------------------------------------------------------------------------


def _manifest() -> str:
    return "\n".join(
        [
            "# The manifest",
            "",
            "`hosts/HOST/glix.toml` has the packages of one host. A folder below `hosts` is a host when it has one.",
            "",
            "```toml",
            f"schema = {manifest.SCHEMA}",
            "",
            "[settings]",
            'default_scope = "system"',
            "",
            "[packages.firefox]",
            'flake = "nixpkgs#firefox"',
            "",
            "[packages.greeting]",
            f'flake = "{DEFAULT_CORE_URL}?dir=examples/pkg-greeting"',
            'scope = "home"',
            "",
            "[packages.greeting.config]",
            'message = "Good morning"',
            "```",
            "",
            f"`schema` is {manifest.SCHEMA}. Unknown keys are kept and ignored, so that a newer glixd may add some. What Nix and Python would read",
            "differently is refused: dates, floats, integers beyond 64 bits, control characters and a byte order mark.",
            "",
            "## `[settings]`",
            "",
            *_keys(manifest.Settings, SETTING_KEYS),
            "",
            "## `[packages.NAME]`",
            "",
            f"A name matches `{api.PACKAGE_NAME.pattern}`; that of a host matches `{api.HOST_NAME.pattern}`.",
            "",
            *_keys(manifest.Package, PACKAGE_KEYS),
            "",
        ]
    )


def _keys(record: Any, meanings: Mapping[str, str]) -> Iterator[str]:
    hints = typing.get_type_hints(record)
    made = record.__dataclass_fields__
    yield from _table(
        ("key", "type", "default", "meaning"),
        (
            (f"`{name}`", _toml_type(hints[name]), _toml_default(made[name]), meaning)
            for name, meaning in meanings.items()
        ),
    )


def _toml_type(hint: Any) -> str:
    present = [part for part in typing.get_args(hint) if part is not types.NoneType] or [hint]
    origin = typing.get_origin(hint)
    if origin is tuple:
        return "array of strings"
    if origin not in (None, typing.Union, types.UnionType):
        return "table of strings"
    return {bool: "boolean", str: "string"}.get(present[0], "string")


def _toml_default(member: Any) -> str:
    if member.name == "flake":
        return "required"
    value = member.default
    if isinstance(value, str | bool):
        return f"`{_spelt(value)}`"
    return ""


# -- D-Bus -------------------------------------------------------------------------------------------------------


def _dbus() -> str:
    properties = [
        (f"`{each.name}`", f"`{each.signature}`", each.description)
        for each in (*introspection.MANAGER_PROPERTIES, *introspection.TRANSACTION_PROPERTIES)
    ]
    managed = len(introspection.MANAGER_PROPERTIES)
    return "\n".join(
        [
            "# D-Bus",
            "",
            f"The name is `{BUS_NAME}`: on the session bus in user mode, on the system bus in system mode.",
            "",
            f"## `{MANAGER_INTERFACE}`",
            "",
            f"The object `{OBJECT_PATH}`. Its methods are the [operations](operations.md); the signal `Changed(s host)` says that",
            "the manifest of a host changed (at once, then ten times a second at most), and `Staged(s host)` that an update of a",
            "host is built and can be switched to.",
            f"[Introspection]({MANAGER_INTERFACE}.xml).",
            "",
            *_table(("property", "type", "meaning"), properties[:managed]),
            "",
            f"## `{TRANSACTION_INTERFACE}`",
            "",
            f"The objects `{TRANSACTION_PATH}/ID`. `Cancel(a{{sv}} options)` stops it before its commit point; the signal",
            "`Progress(a{sv} event)` goes to those alone who watch it: whoever started it, and callers of `Watch`. An object stays",
            f"for a while after its end; `GetTransaction` knows it longer. [Introspection]({TRANSACTION_INTERFACE}.xml).",
            "",
            *_table(("property", "type", "meaning"), properties[managed:]),
            "",
            "Both have the standard interfaces Properties, Introspectable and Peer, the manager ObjectManager too.",
            "",
        ]
    )


# -- tables ------------------------------------------------------------------------------------------------------


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def _spelt(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple():
            return "[]"
        case _:
            return str(value)


_LINKED: Final = frozenset(
    _models(
        {row.result.__name__ for row in api.OPERATIONS.values() if row.kind is api.Kind.QUERY}
        | {"Transaction", "ProgressEvent"}
    )
)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
