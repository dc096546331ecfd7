# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading manifests: what is understood, and what is refused with path, line and reason."""

from __future__ import annotations

import pytest

from glixd.api import Scope
from glixd.errors import Refused
from glixd.model.manifest import Manifest, Package, Settings
from glixd.protocol import ErrorCode

PATH = "hosts/laptop/glix.toml"

FULL = """\
schema = 1
future = [1, { deep = "x" }]

[settings]
default_scope = "home"
auto_apply = true
registry_url = "https://example.org/registry.json"
system = "aarch64-linux"
primary_user = "anna"
state_version = "24.05"
theme = "dark"

[packages.zed]
flake = "github:o/zed"
scope = "system"
enabled = false
pin = "v1"
input = "zed-0a1b2c3d"
follows = false
note = "kept"

[packages."7zip"]
flake = "nixpkgs#_7zz"
user = "berta"

[packages."7zip".config]
message = "two\\nlines\\tand a tab"
"""


def test_a_manifest_is_read_in_full_and_in_order() -> None:
    manifest = Manifest.parse(FULL, PATH)
    assert manifest.settings == Settings(
        Scope.HOME, True, "https://example.org/registry.json", "aarch64-linux", "anna", "24.05"
    )
    assert list(manifest.packages) == ["zed", "7zip"]
    zed, seven = manifest.packages.values()
    assert zed == Package("zed", "github:o/zed", Scope.SYSTEM, False, "v1", None, {}, "zed-0a1b2c3d", False)
    assert seven == Package("7zip", "nixpkgs#_7zz", user="berta", config={"message": "two\nlines\tand a tab"})


def test_defaults_hold_where_nothing_is_said() -> None:
    manifest = Manifest.parse('schema = 1\n[packages.x]\nflake = "nixpkgs#x"\n', PATH)
    package = manifest.packages["x"]
    assert manifest.settings == Settings()
    assert (package.enabled, package.scope, package.follows, package.config) == (True, None, True, {})
    assert manifest.scope_of(package) is Scope.SYSTEM
    assert manifest.user_of(package, "anna") is None
    assert manifest.input_name(package) == "x"


def test_the_user_of_a_home_package_is_its_own_then_the_primary_then_the_default() -> None:
    text = 'schema = 1\n{}[packages.x]\nflake = "f"\nscope = "home"\n{}'
    primary = '[settings]\nprimary_user = "anna"\n'
    for settings, user, expected in [(primary, 'user = "berta"\n', "berta"), (primary, "", "anna"), ("", "", "carl")]:
        manifest = Manifest.parse(text.format(settings, user), PATH)
        assert manifest.user_of(manifest.packages["x"], "carl") == expected
    assert manifest.user_of(manifest.packages["x"]) is None


def test_the_endings_of_windows_and_an_empty_set_of_packages_are_read() -> None:
    assert Manifest.parse("schema = 1\r\n[packages]\r\n", PATH).packages == {}


PACKAGE = 'schema = 1\n\n[packages.x] # here\nflake = "f"\n'

BROKEN: list[tuple[str, int | None, str]] = [
    ("", None, "schema"),
    ("[settings]\n", None, "schema = 1"),
    ("schema = 2\n", 1, "understands schema = 1"),
    ('\nschema = "1"\n', 2, "understands schema = 1"),
    ("schema = true\n", 1, "understands schema = 1"),
    ("schema = 1.0\n", 1, "schema"),
    ("schema = 1\nx =\n", 2, "this is no TOML: Invalid value"),
    ("schema = 1\nx = [\n", 2, ""),
    ("schema = 1\nschema = 1\n", 2, "Cannot overwrite"),
    ("schema = 1\nx = " + "[" * 20_000, None, "nested too deeply"),
    ("schema = 1\nx = " + "1" * 5_000, None, ""),
    ("\ufeffschema = 1\n", 1, "byte order mark"),
    ('schema = 1\r\nx = """\r\na"""\r\n', 2, "CRLF"),
    ("schema = 1\nx = 1.5\n", 2, "float"),
    ("schema = 1\nx = nan\n", 2, "float"),
    ("schema = 1\n[a]\nx = [1, 2.0]\n", 3, "a.x: is a float"),
    ("schema = 1\nx = 2020-01-01\n", 2, "date"),
    ("schema = 1\nx = 2020-01-01T00:00:00Z\n", 2, "date"),
    ("schema = 1\nx = 07:32:00\n", 2, "time"),
    ("schema = 1\nx = 9223372036854775808\n", 2, "64 bits"),
    ("schema = 1\nx = -9223372036854775809\n", 2, "64 bits"),
    ('schema = 1\nx = "a\\u0000b"\n', 2, "control character"),
    ('schema = 1\n"a\\u0000b" = 1\n', None, "control character"),
    ('schema = 1\nx = "\\u001b[31m"\n', 2, "control character"),
    ('schema = 1\nx = "\x7f"\n', 2, ""),
    ('schema = 1\nx = "\x85"\n', 2, "control character"),
    ("schema = 1\nsettings = 1\n", 2, "not a table"),
    ("schema = 1\npackages = []\n", 2, "not a table"),
    ('schema = 1\n[settings]\n\ndefault_scope = "user"\n', 4, "system or home"),
    ("schema = 1\n[settings]\ndefault_scope = 1\n", 3, "system or home"),
    ('schema = 1\n[settings]\nauto_apply = "yes"\n', 3, "true or false"),
    ('schema = 1\n[settings]\nsystem = "x86_64-darwin"\n', 3, "system"),
    ('schema = 1\n[settings]\nsystem = ""\n', 3, "empty"),
    ('schema = 1\n[settings]\nprimary_user = "Anna B"\n', 3, "user name"),
    ("schema = 1\n[settings]\nstate_version = 24\n", 3, "not a string"),
    ("schema = 1\n[settings]\nstate_version = 24.05\n", 3, "not a string"),
    ('schema = 1\n[settings]\nregistry_url = "a\\nb"\n', 3, "control character"),
    ("schema = 1\n[packages]\nx = 1\n", 3, "not a table"),
    ("schema = 1\n\n[packages.x]\n", 3, "flake is missing"),
    ('schema = 1\n[packages."a b"]\nflake = "f"\n', 2, "package name"),
    ('schema = 1\n[packages.""]\nflake = "f"\n', 2, "package name"),
    ('schema = 1\n[packages."x\\n"]\nflake = "f"\n', None, "package name"),
    ('schema = 1\n[packages."é"]\nflake = "f"\n', 2, "package name"),
    ('schema = 1\n[packages."-x"]\nflake = "f"\n', 2, "package name"),
    ('schema = 1\n[packages."../x"]\nflake = "f"\n', 2, "package name"),
    (f'schema = 1\n[packages.{"x" * 129}]\nflake = "f"\n', 2, "package name"),
    ("schema = 1\n[packages.x]\nflake = 1\n", 3, "not a string"),
    ('schema = 1\n[packages.x]\nflake = ""\n', 3, "empty"),
    (f'schema = 1\n[packages.x]\nflake = "{"f" * 513}"\n', 3, "at most 512"),
    (PACKAGE + 'scope = "System"\n', 5, "system or home"),
    (PACKAGE + "enabled = 1\n", 5, "true or false"),
    (PACKAGE + "follows = []\n", 5, "an array"),
    (PACKAGE + "pin = 1\n", 5, "not a string"),
    (PACKAGE + "pin = 2020-01-01\n", 5, "date"),
    (PACKAGE + 'pin = "a\\tb"\n', 5, "control character"),
    (PACKAGE + 'user = "anna"\n', 5, 'scope = "home"'),
    (PACKAGE + 'scope = "home"\nuser = "ro ot"\n', 6, "user name"),
    (PACKAGE + 'input = "nixpkgs"\n', 5, "managed input"),
    (PACKAGE + 'input = "7zip"\n', 5, "managed input"),
    (PACKAGE + "config = 1\n", 5, "not a table"),
    (PACKAGE + '[packages.x.config]\na = "1"\nb = 2\n', 7, "packages.x.config.b: is an integer"),
    (PACKAGE + "[packages.x.config]\nb = true\n", 6, "packages.x.config.b: is true or false"),
    (PACKAGE + "[packages.x.config]\nb = 1.0\n", 6, "packages.x.config.b: is a float"),
    (PACKAGE + "[packages.x.config.deep]\n", 5, "packages.x.config.deep: is a table"),
    (PACKAGE + '[packages.x.config]\nb = "\\r"\n', 6, "control character"),
    (PACKAGE + '[packages.x.config]\nb = "\\u0000"\n', 6, "control character"),
    (PACKAGE + "extra = 1e3\n", 5, "packages.x.extra: is a float"),
    (PACKAGE + "[packages.x.extra]\ndeep = [ 1979-05-27 ]\n", 6, "date"),
]


@pytest.mark.parametrize(("text", "line", "reason"), BROKEN)
def test_a_broken_manifest_is_refused_with_path_line_and_reason(text: str, line: int | None, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        Manifest.parse(text, PATH)
    error = caught.value
    assert error.code is ErrorCode.MANIFEST_INVALID
    assert error.details["path"] == PATH
    assert error.details.get("line") == line
    assert reason in str(error.details["reason"])
    assert error.message.startswith(f"{PATH}:{line}: " if line else f"{PATH}: ")
    assert error.message.isprintable()
    assert error.hint.endswith(f": git checkout -- {PATH}")


def test_ten_thousand_packages_are_read() -> None:
    text = "schema = 1\n" + "".join(f'[packages.p{number}]\nflake = "github:o/p{number}"\n' for number in range(10_000))
    assert list(Manifest.parse(text, PATH).packages)[9_999] == "p9999"
