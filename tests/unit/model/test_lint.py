# SPDX-License-Identifier: GPL-3.0-or-later
"""What looks like a mistake in a manifest: unknown keys with the one that may be meant, and secrets, never their value."""

from __future__ import annotations

import pytest

from glixd.model import lint
from glixd.model.manifest import Manifest

TEXT = """\
schema = 1
setings = 3
[settings]
primry_user = "alice"
zzz = 1
[packages.git]
flake = "nixpkgs#git"
scpoe = "home"
[packages.git.config]
anything = "goes"
"""


def test_unknown_keys_are_told_with_their_line_and_what_may_be_meant() -> None:
    assert [tuple(key) for key in lint.unknown_keys(TEXT)] == [
        ("setings", 2, "settings"),
        ("settings.primry_user", 4, "primary_user"),
        ("settings.zzz", 5, None),
        ("packages.git.scpoe", 8, "scope"),
    ]


@pytest.mark.parametrize("text", ["schema = 1\n", 'schema = 1\n[packages.git]\nflake = "nixpkgs#git"\npin = "v1"\n'])
def test_a_manifest_without_a_mistake_has_none(text: str) -> None:
    assert list(lint.unknown_keys(text)) == []
    assert list(lint.secrets(Manifest.parse(text, "x"))) == []


@pytest.mark.parametrize(
    ("key", "value", "suspicious"),
    [
        ("password", "hunter2", True),
        ("db_password", "hunter2", True),
        ("API_KEY", "abc", True),
        ("client-secret", "abc", True),
        ("token", "abc", True),
        ("password_file", "/run/secrets/db", False),
        ("password", "/run/secrets/db", False),
        ("secret", "/etc/secret", False),
        ("password", "", False),
        ("keyboard", "us", False),
        ("colour", "red", False),
        ("anything", "ghp_0123456789abcdefghijABCDEFGHIJ012345", True),
        ("anything", "-----BEGIN OPENSSH PRIVATE KEY-----", True),
        ("anything", "AKIA0123456789ABCDEF", True),
    ],
)
def test_a_secret_is_known_by_its_key_or_by_its_looks(key: str, value: str, suspicious: bool) -> None:
    text = f'schema = 1\n[packages.x]\nflake = "nixpkgs#x"\n[packages.x.config]\n{key} = "{value}"\n'
    assert list(lint.secrets(Manifest.parse(text, "x"))) == ([f"packages.x.config.{key}"] if suspicious else [])


def test_credentials_in_a_reference_are_a_secret() -> None:
    text = 'schema = 1\n[packages.x]\nflake = "git+https://me:pass@example.org/x"\n'
    assert list(lint.secrets(Manifest.parse(text, "x"))) == ["packages.x.flake"]
