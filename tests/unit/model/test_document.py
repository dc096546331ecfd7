# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits of manifests: golden pairs, and properties over generated documents."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.api import Scope
from glixd.errors import GlixError, Refused
from glixd.model.document import add_package, change_package, change_settings, remove_package
from glixd.model.manifest import Manifest, Package
from glixd.protocol import ErrorCode

BASE = """\
# My machine.
schema = 1 # never change

[settings] # defaults
default_scope = "system"

# -- browsers --
[packages.firefox] # the fox
flake = "nixpkgs#firefox" # from the host
# a remark on the next key
enabled = false
# pin = "v1"

# -- games --
[packages."a.b"]
flake = "github:o/a.b"
scope = "home"
[packages."a.b".config]
message = "hi" # shown
unknown = "kept"

[other]
key = [
  [1, 2],
]
"""

Edit = Callable[[str], str]

GOLDEN: list[tuple[str, str, Edit, str]] = [
    (
        "a new table goes to the end, keys in canonical order",
        "schema = 1\n\n[other]\nx = 1\n",
        lambda text: add_package(
            text,
            Package(
                name="gtk+",
                flake="github:o/gtk",
                scope=Scope.HOME,
                enabled=False,
                pin="v1",
                user="anna",
                config={"b": "2", "a b": 'say "hi" ${x}'},
                input="gtk-",
                follows=False,
            ),
        ),
        """\
schema = 1

[other]
x = 1

[packages."gtk+"]
flake = "github:o/gtk"
scope = "home"
enabled = false
user = "anna"
pin = "v1"
input = "gtk-"
follows = false
[packages."gtk+".config]
b = "2"
"a b" = "say \\"hi\\" ${x}"
""",
    ),
    (
        "a file without a final newline gets one before the new table",
        "schema = 1 # end",
        lambda text: add_package(text, Package("x", "nixpkgs#x")),
        'schema = 1 # end\n\n[packages.x]\nflake = "nixpkgs#x"\n',
    ),
    (
        "a blank line at the end is not doubled",
        "schema = 1\n\n",
        lambda text: add_package(text, Package("x", "nixpkgs#x")),
        'schema = 1\n\n[packages.x]\nflake = "nixpkgs#x"\n',
    ),
    (
        "the endings of Windows are kept",
        "schema = 1\r\n",
        lambda text: add_package(text, Package("x", "nixpkgs#x")),
        'schema = 1\r\n\r\n[packages.x]\r\nflake = "nixpkgs#x"\r\n',
    ),
    (
        "a package is added beside inline ones",
        'schema = 1\n[packages]\na = { flake = "nixpkgs#a" }\n',
        lambda text: add_package(text, Package("x", "nixpkgs#x")),
        'schema = 1\n[packages]\na = { flake = "nixpkgs#a" }\n\n[packages.x]\nflake = "nixpkgs#x"\n',
    ),
    (
        "inline packages are extended in place",
        'schema = 1\npackages = { a = { flake = "f" } } # all\n',
        lambda text: add_package(text, Package("x", "nixpkgs#x")),
        'schema = 1\npackages = { a = { flake = "f" }, x = {flake = "nixpkgs#x"}} # all\n',
    ),
    (
        "a removed table takes its own comments and leaves the one above",
        BASE,
        lambda text: remove_package(text, "firefox"),
        BASE.replace(
            '[packages.firefox] # the fox\nflake = "nixpkgs#firefox" # from the host\n'
            '# a remark on the next key\nenabled = false\n# pin = "v1"\n',
            "",
        ),
    ),
    (
        "a removed package takes its config along",
        BASE,
        lambda text: remove_package(text, "a.b"),
        BASE[: BASE.index('[packages."a.b"]')] + "\n" + BASE[BASE.index("[other]") :],
    ),
    (
        "the last table leaves no blank line behind",
        'schema = 1\n\n[packages.x]\nflake = "nixpkgs#x"',
        lambda text: remove_package(text, "x"),
        "schema = 1\n",
    ),
    (
        "tables of one package that are apart are all removed",
        'schema = 1\n[packages.x]\nflake = "f"\n\n[packages.y]\nflake = "g"\n\n[packages.x.config]\na = "1"\n\n[[packages.x.odd]]\nb = 1\n',
        lambda text: remove_package(text, "x"),
        'schema = 1\n\n[packages.y]\nflake = "g"\n',
    ),
    (
        "an inline package is removed",
        'schema = 1\n[packages]\n# one\na = { flake = "nixpkgs#a" }\nb = { flake = "nixpkgs#b" } # two\n',
        lambda text: remove_package(text, "a"),
        'schema = 1\n[packages]\n# one\nb = { flake = "nixpkgs#b" } # two\n',
    ),
    (
        "a changed value keeps the comment on its line",
        BASE,
        lambda text: change_package(text, "firefox", {"flake": "nixpkgs#firefox-esr", "enabled": None}),
        BASE.replace('"nixpkgs#firefox" #', '"nixpkgs#firefox-esr" #').replace("enabled = false\n", ""),
    ),
    (
        "a new key goes below the last one of its table",
        BASE,
        lambda text: change_package(text, "firefox", {"scope": Scope.HOME, "user": "anna"}),
        BASE.replace("enabled = false\n", 'enabled = false\nscope = "home"\nuser = "anna"\n'),
    ),
    (
        "config is merged key by key",
        BASE,
        lambda text: change_package(text, "a.b", {"config": {"message": "ho", "unknown": None, "new": "a\nb"}}),
        BASE.replace('"hi" # shown\nunknown = "kept"\n', '"ho" # shown\nnew = "a\\nb"\n'),
    ),
    (
        "the last key of config takes the table along",
        BASE,
        lambda text: change_package(text, "a.b", {"config": None}),
        BASE.replace('[packages."a.b".config]\nmessage = "hi" # shown\nunknown = "kept"\n', ""),
    ),
    (
        "a first config stands right below its package",
        BASE,
        lambda text: change_package(text, "firefox", {"config": {"k": "v"}}),
        BASE.replace('# pin = "v1"\n', '# pin = "v1"\n[packages.firefox.config]\nk = "v"\n'),
    ),
    (
        "an inline config is edited where it stands",
        'schema = 1\n[packages.x]\nflake = "f"\nconfig = { a = "1" } # inline\n',
        lambda text: change_package(text, "x", {"config": {"a": "2"}}),
        'schema = 1\n[packages.x]\nflake = "f"\nconfig = { a = "2" } # inline\n',
    ),
    (
        "dotted keys are edited where they stand",
        'schema = 1\npackages.x.flake = "f" # dotted\npackages.y.flake = "g"\n',
        lambda text: change_package(text, "x", {"flake": "h"}),
        'schema = 1\npackages.x.flake = "h" # dotted\npackages.y.flake = "g"\n',
    ),
    (
        "a setting is changed in its table",
        BASE,
        lambda text: change_settings(text, {"default_scope": "home", "auto_apply": True}),
        BASE.replace('default_scope = "system"\n', 'default_scope = "home"\nauto_apply = true\n'),
    ),
    (
        "the table of settings is made where there is none",
        "schema = 1\n",
        lambda text: change_settings(text, {"system": "x86_64-linux"}),
        'schema = 1\n\n[settings]\nsystem = "x86_64-linux"\n',
    ),
    (
        "what looks like a header inside a string is none",
        'schema = 1\nnote = """\n[packages.x]\nflake = "no"\n"""\n\n[packages.x]\nflake = "f"\n',
        lambda text: change_package(text, "x", {"flake": "g"}),
        'schema = 1\nnote = """\n[packages.x]\nflake = "no"\n"""\n\n[packages.x]\nflake = "g"\n',
    ),
    (
        "a line that looks like a comment ends a long string",
        'schema = 1\n[packages.x]\nflake = "f"\nnote = """\n[a]\n# text"""\n# below\n',
        lambda text: change_package(text, "x", {"pin": "v1"}),
        'schema = 1\n[packages.x]\nflake = "f"\nnote = """\n[a]\n# text"""\npin = "v1"\n# below\n',
    ),
]


@pytest.mark.parametrize(("before", "edit", "after"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_an_edit_gives_exactly_the_expected_text(before: str, edit: Edit, after: str) -> None:
    assert edit(before) == after


REFUSED: list[tuple[Edit, ErrorCode]] = [
    (lambda text: add_package(text, Package("firefox", "nixpkgs#firefox")), ErrorCode.ALREADY_INSTALLED),
    (lambda text: add_package(text, Package("a/b", "nixpkgs#x")), ErrorCode.INVALID_ARGUMENT),
    (lambda text: add_package(text, Package("x\n", "nixpkgs#x")), ErrorCode.INVALID_ARGUMENT),
    (lambda text: add_package(text, Package("x", "")), ErrorCode.INVALID_ARGUMENT),
    (lambda text: add_package(text, Package("x", "a\nb")), ErrorCode.INVALID_ARGUMENT),
    (lambda text: add_package(text, Package("x", "f", config={"": "v"})), ErrorCode.INVALID_ARGUMENT),
    (lambda text: add_package(text, Package("x", "f", config={"k": "\x00"})), ErrorCode.INVALID_ARGUMENT),
    (lambda text: remove_package(text, "nothing"), ErrorCode.NOT_INSTALLED),
    (lambda text: change_package(text, "nothing", {"pin": "x"}), ErrorCode.NOT_INSTALLED),
    (lambda text: change_package(text, "firefox", {"name": "x"}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: change_package(text, "firefox", {"pin": "\x1b[31m"}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: change_package(text, "firefox", {"pin": {"a": "b"}}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: change_package(text, "firefox", {"config": "x"}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: change_package(text, "firefox", {"config": {"k": "\ud800"}}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: change_settings(text, {"theme": "dark"}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: change_settings(text, {"primary_user": ""}), ErrorCode.INVALID_ARGUMENT),
    (lambda text: remove_package(text + "=", "firefox"), ErrorCode.MANIFEST_INVALID),
]


@pytest.mark.parametrize(("edit", "code"), REFUSED)
def test_a_bad_edit_is_refused_by_code(edit: Edit, code: ErrorCode) -> None:
    with pytest.raises(GlixError) as caught:
        edit(BASE)
    assert caught.value.code is code


def test_a_layout_that_can_not_be_edited_safely_is_refused_with_the_remedy() -> None:
    text = 'schema = 1\n[packages]\na.flake = "f" # dotted\n# more\n'
    with pytest.raises(Refused) as caught:
        change_package(text, "a", {"pin": "v1", "config": {"k": "v"}})
    assert caught.value.code is ErrorCode.CONFLICT
    assert "[packages.a]" in caught.value.hint


def test_an_edit_that_changes_nothing_gives_the_text_itself() -> None:
    assert change_package(BASE, "firefox", {"enabled": False, "pin": None}) is BASE
    assert change_package(BASE, "a.b", {"config": {"message": "hi"}}) is BASE
    assert change_settings(BASE, {"default_scope": "system"}) is BASE


# -- properties --------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\n\t"), max_size=12)
COMMENTS = st.sampled_from(["", "# plain", "# [packages.fake]", '# """', "", "   # indented", "#"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A manifest with packages in the usual layout, comments and blank lines anywhere, either line ending."""
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=5))
    lines = [draw(COMMENTS), "schema = 1", draw(COMMENTS)]
    for name in names:
        key = draw(st.sampled_from([f'"{name}"', f"'{name}'"])) if not re.fullmatch("[A-Za-z0-9_-]+", name) else name
        lines += [draw(COMMENTS), f"[packages.{key}]", draw(COMMENTS), 'flake = "nixpkgs#x"', draw(COMMENTS)]
        if draw(st.booleans()):
            lines += ["extra = [", "  [1],", "  # in an array", "]"]
        if draw(st.booleans()):
            lines += [draw(COMMENTS), f"[ packages . {key} . config ] # c", "k = 'v'", draw(COMMENTS)]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return newline.join(lines) + draw(st.sampled_from(["", newline, newline * 2])), names


@given(documents(), NAMES, st.dictionaries(st.text("abc d.", min_size=1), VALUES, max_size=3))
def test_adding_keeps_the_text_and_removing_gives_it_back(
    document: tuple[str, list[str]], name: str, config: dict[str, str]
) -> None:
    text, names = document
    package = Package(name, "nixpkgs#x", config=config)
    if name in names:
        return
    added = add_package(text, package)
    assert added.startswith(text)
    assert Manifest.parse(added.replace("\r\n", "\n"), "x").packages[name] == package
    assert remove_package(added, name).rstrip("\r\n") == text.rstrip("\r\n")


@given(documents(), st.data())
def test_removing_touches_no_other_line(document: tuple[str, list[str]], data: st.DataObject) -> None:
    text, names = document
    name = data.draw(st.sampled_from(names))
    expected: dict[str, Any] = tomllib.loads(text)
    del expected["packages"][name]
    result = remove_package(text, name)
    assert {"packages": {}, **tomllib.loads(result)} == expected
    assert _is_subsequence(re.findall(r"\S[^\n]*", result), re.findall(r"\S[^\n]*", text))


@given(documents(), st.data(), VALUES)
def test_changing_a_package_keeps_everything_around_it(
    document: tuple[str, list[str]], data: st.DataObject, value: str
) -> None:
    text, names = document
    name = data.draw(st.sampled_from(names))
    result = change_package(text, name, {"pin": "v1", "config": {"k": value}})
    kept = tomllib.loads(text)["packages"]
    expected = {**kept, name: {**kept[name], "pin": "v1", "config": {"k": value}}}
    assert tomllib.loads(result)["packages"] == expected
    assert _is_subsequence(
        [line for line in text.split("\n") if not line.startswith("k = ")], result.split("\n")
    ) or not text.endswith("\n")
    assert ("\r\n" in text) <= (result.count("\n") == result.count("\r\n"))


def _is_subsequence(short: list[str], long: list[str]) -> bool:
    remaining = iter(long)
    return all(line in remaining for line in short)


def test_an_edit_of_ten_thousand_packages_leaves_all_others_alone() -> None:
    tables = [f'[packages.p{number}]\nflake = "github:o/p{number}" # {number}\n\n' for number in range(10_000)]
    text = "schema = 1\n\n" + "".join(tables)
    changed = change_package(text, "p5000", {"enabled": False})
    assert changed == text.replace("# 5000\n", "# 5000\nenabled = false\n")
    assert remove_package(changed, "p5000") == text.replace(tables[5000], "")
