# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles of nix become references that glixd understands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glixctl import profile
from glixctl.errors import UsageError

HELLO = {
    "active": True,
    "attrPath": "legacyPackages.x86_64-linux.hello",
    "originalUrl": "flake:nixpkgs",
    "url": "github:NixOS/nixpkgs/0123456789abcdef0123456789abcdef01234567",
}
TOOL = {"attrPath": "packages.x86_64-linux.default", "originalUrl": "github:owner/tool"}
OTHER = {"attrPath": "packages.x86_64-linux.extra", "originalUrl": "github:owner/tool"}
NESTED = {
    "attrPath": "legacyPackages.x86_64-linux.python3Packages.requests",
    "originalUrl": "github:NixOS/nixpkgs/nixos-25.05",
}
BARE = {"active": True, "storePaths": ["/nix/store/00000000000000000000000000000000-old-1.0"]}
OFF = {**HELLO, "active": False}


def write(folder: Path, document: object) -> str:
    (folder / "manifest.json").write_text(json.dumps(document))
    return str(folder)


@pytest.mark.parametrize("elements", [[HELLO, TOOL], {"hello": HELLO, "tool": TOOL}])
def test_lists_and_named_elements_are_both_read(tmp_path: Path, elements: object) -> None:
    assert profile.packages(write(tmp_path, {"elements": elements})) == (["nixpkgs#hello", "github:owner/tool"], [])


def test_attributes_stay_and_defaults_go(tmp_path: Path) -> None:
    found, _ = profile.packages(write(tmp_path, {"elements": [OTHER, NESTED]}))
    assert found == ["github:owner/tool#extra", "nixpkgs#python3Packages.requests"]


def test_what_came_from_no_flake_is_named_and_left_out(tmp_path: Path) -> None:
    assert profile.packages(write(tmp_path, {"elements": [BARE]})) == ([], BARE["storePaths"])


def test_an_inactive_element_does_not_count(tmp_path: Path) -> None:
    assert profile.packages(write(tmp_path, {"elements": [OFF]})) == ([], [])


@pytest.mark.parametrize("document", ["[]", "{", '{"elements": 5}', "null"])
def test_a_broken_profile_is_refused_by_its_path(tmp_path: Path, document: str) -> None:
    (tmp_path / "manifest.json").write_text(document)
    with pytest.raises(UsageError, match=r"manifest\.json can't be read"):
        profile.packages(str(tmp_path))


def test_a_folder_without_a_profile_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no profile") as refused:
        profile.packages(str(tmp_path))
    assert "--from-profile PATH" in refused.value.hint


def test_the_profile_of_a_newer_nix_is_found(tmp_path: Path) -> None:
    newer = tmp_path / "state" / "nix" / "profile"
    newer.mkdir(parents=True)
    environment = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    assert profile.default_profile(environment) == str(newer)
    (tmp_path / ".nix-profile").mkdir()
    assert profile.default_profile(environment) == str(tmp_path / ".nix-profile")
