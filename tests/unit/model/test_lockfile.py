# SPDX-License-Identifier: GPL-3.0-or-later
"""flake.lock: what is read from it for every kind of source, and what is left when inputs are taken out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.errors import Refused
from glixd.model import lockfile
from glixd.model.flakeref import FlakeRef
from glixd.model.lockfile import LockedInput, LockFile
from glixd.protocol import ErrorCode

REV = "0123456789abcdef0123456789abcdef01234567"
HASH = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def lock(nodes: dict[str, Any], *, version: int = 7, root: str = "root", inputs: dict[str, Any] | None = None) -> str:
    """A flake.lock whose root has these nodes as inputs of the same names, unless others are given."""
    given_inputs = {name: name for name in nodes} if inputs is None else inputs
    return json.dumps({"nodes": {**nodes, root: {"inputs": given_inputs}}, "root": root, "version": version})


def node(original: dict[str, Any], **locked: Any) -> dict[str, Any]:
    return {"original": original, "locked": {"type": original.get("type"), **locked}}


ORIGINALS: list[tuple[dict[str, Any], str | None]] = [
    ({"type": "github", "owner": "NixOS", "repo": "nixpkgs"}, "github:NixOS/nixpkgs"),
    ({"type": "github", "owner": "o", "repo": "r", "ref": "v1"}, "github:o/r/v1"),
    ({"type": "github", "owner": "o", "repo": "r", "ref": "feature/x"}, "github:o/r/feature/x"),
    ({"type": "github", "owner": "o", "repo": "r", "rev": REV}, f"github:o/r/{REV}"),
    ({"type": "github", "owner": "o", "repo": "r", "dir": "sub/flake"}, "github:o/r?dir=sub/flake"),
    (
        {"type": "github", "owner": "o", "repo": "r", "ref": "v1", "dir": "s", "host": "git.example.org"},
        "github:o/r/v1?dir=s&host=git.example.org",
    ),
    ({"type": "gitlab", "owner": "group%2Fsub", "repo": "r"}, "gitlab:group%2Fsub/r"),
    ({"type": "sourcehut", "owner": "~user", "repo": "r"}, "sourcehut:~user/r"),
    ({"type": "indirect", "id": "nixpkgs"}, "nixpkgs"),
    ({"type": "indirect", "id": "nixpkgs", "ref": "nixos-23.05"}, "nixpkgs/nixos-23.05"),
    ({"type": "indirect", "id": "nixpkgs", "rev": REV}, f"nixpkgs/{REV}"),
    ({"type": "path", "path": "./pkgs/x"}, "path:./pkgs/x"),
    ({"type": "path", "path": "/srv/flake"}, "path:/srv/flake"),
    ({"type": "git", "url": "https://example.org/r"}, "git+https://example.org/r"),
    ({"type": "git", "url": "https://example.org/r", "ref": "v1"}, "git+https://example.org/r?ref=v1"),
    ({"type": "git", "url": "ssh://git@example.org/r", "rev": REV}, f"git+ssh://git@example.org/r?rev={REV}"),
    ({"type": "git", "url": "file:///srv/r", "ref": "main", "rev": REV}, f"git+file:///srv/r?ref=main&rev={REV}"),
    ({"type": "git", "url": "git://example.org/r"}, "git://example.org/r"),
    ({"type": "git", "url": "https://example.org/r", "dir": "sub"}, "git+https://example.org/r?dir=sub"),
    ({"type": "tarball", "url": "https://example.org/x.tar.gz"}, "https://example.org/x.tar.gz"),
    ({"type": "tarball", "url": "https://example.org/x.tar.gz", "dir": "s"}, "https://example.org/x.tar.gz?dir=s"),
    ({"type": "hg", "url": "https://example.org/r"}, None),
    ({"type": "something new"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("original", "expected"), ORIGINALS, ids=[str(expected) for _, expected in ORIGINALS])
def test_a_node_is_told_as_people_spell_it(original: dict[str, Any], expected: str | None) -> None:
    found = LockFile.parse(lock({"x": node(original)})).inputs["x"].url
    assert found == expected == lockfile.url_of(original)
    if found is not None:
        assert FlakeRef.parse(found).url.removeprefix("flake:") == found, "what is told can be added again"


def test_every_input_of_the_root_is_found_by_name_in_order() -> None:
    text = lock(
        {
            "zed": node({"type": "github", "owner": "o", "repo": "zed"}, rev=REV, lastModified=1700000000),
            "local": node({"type": "path", "path": "./pkgs/local"}, narHash=HASH, lastModified=1),
        }
    )
    assert list(LockFile.parse(text).inputs.values()) == [
        LockedInput("local", "path:./pkgs/local", HASH, None, "pkgs/local"),
        LockedInput("zed", "github:o/zed", REV, "2023-11-14T22:13:20Z", None),
    ]


def test_the_name_of_an_input_is_the_roots_and_not_that_of_its_node() -> None:
    text = lock(
        {"nixpkgs_2": node({"type": "indirect", "id": "nixpkgs"}, rev=REV), "nixpkgs": node({}, rev="other")},
        inputs={"nixpkgs": "nixpkgs_2"},
    )
    found = LockFile.parse(text)
    assert list(found.inputs) == ["nixpkgs"]
    assert found.revision("nixpkgs") == REV


def test_an_input_that_follows_another_has_no_revision_of_its_own() -> None:
    text = lock({"nixpkgs": node({"type": "indirect", "id": "nixpkgs"}, rev=REV)}, inputs={"a": ["nixpkgs"], "b": []})
    found = LockFile.parse(text)
    assert found.inputs["a"] == LockedInput("a", None, None, None, None)
    assert found.inputs["b"].revision is None


def test_only_a_folder_of_the_repository_is_one() -> None:
    text = lock(
        {
            "own": node({"type": "path", "path": "./a/b"}),
            "foreign": node({"type": "path", "path": "/a/b"}),
            "git": node({"type": "git", "url": "file:///r", "path": "./a"}),
        }
    )
    folders = {name: entry.folder for name, entry in LockFile.parse(text).inputs.items()}
    assert folders == {"own": "a/b", "foreign": None, "git": None}


def test_without_a_lock_nothing_is_locked() -> None:
    assert LockFile.parse(None) == LockFile()
    assert LockFile().revision("nixpkgs") is None


@pytest.mark.parametrize("version", [5, 6, 7])
def test_the_versions_that_nix_writes_are_read(version: int) -> None:
    assert LockFile.parse(lock({"x": node({}, rev=REV)}, version=version)).revision("x") == REV


def test_the_root_may_have_another_name_and_no_inputs() -> None:
    assert LockFile.parse(lock({"x": node({}, rev=REV)}, root="top")).revision("x") == REV
    assert LockFile.parse('{"nodes": {"root": {}}, "root": "root", "version": 7}').inputs == {}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "7", "null", '"text"', "\x00", "<<<<<<< HEAD\n{}", "[" * 100_000),
        *("{}", '{"nodes": []}', '{"nodes": {}, "version": 7}', '{"nodes": {"root": {}}, "root": "root"}'),
        '{"nodes": {"root": {}}, "root": "root", "version": 8}',
        '{"nodes": {"root": {}}, "root": "root", "version": "7"}',
        '{"nodes": {"root": {}}, "root": "other", "version": 7}',
        '{"nodes": {"root": []}, "root": "root", "version": 7}',
        '{"nodes": {"root": {}}, "root": ["root"], "version": 7}',
        '{"nodes": {"root": {"inputs": []}}, "root": "root", "version": 7}',
        '{"nodes": {"root": {"inputs": {"x": "x"}}, "x": 5}, "root": "root", "version": 7}',
        '{"nodes": {"root": {"inputs": {"x": "x"}}, "x": {"locked": 5}}, "root": "root", "version": 7}',
        '{"nodes": {"root": {"inputs": {"x": "x"}}, "x": {"original": []}}, "root": "root", "version": 7}',
    ],
)
def test_what_is_no_lock_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(Refused) as caught:
        LockFile.parse(text)
    assert caught.value.code is ErrorCode.MANIFEST_INVALID
    assert caught.value.details["path"] == "flake.lock"
    assert "git checkout" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "{}", '{"nodes": {"root": {"inputs": []}}, "root": "root", "version": 7}'])
def test_nothing_is_taken_out_of_what_is_no_lock(text: str) -> None:
    with pytest.raises(Refused):
        lockfile.without(text, ["x"])


@pytest.mark.parametrize("seconds", [0, 1, 86400, -5, "1700000000", 1.5, 1 << 39, 1 << 60, None, True])
def test_a_time_that_is_none_is_left_out(seconds: object) -> None:
    assert lockfile.modified_of({"lastModified": seconds}) is None


def test_inputs_are_left_out_of_the_root_and_all_else_stays() -> None:
    text = lock({name: node({"type": "indirect", "id": name}, rev=REV) for name in ("a", "b", "c")})
    less = lockfile.without(text, ["b", "absent"])
    expected = json.loads(text)
    del expected["nodes"]["root"]["inputs"]["b"]
    assert json.loads(less) == expected
    assert less.endswith("}\n")
    assert list(LockFile.parse(less).inputs) == ["a", "c"]
    assert list(LockFile.parse(text).inputs) == ["a", "b", "c"], "what was read before is as it was"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from("abc"), JSON),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("abc") | JSON),
)
def test_whatever_a_lock_holds_it_is_read_or_refused(nodes: dict[str, Any], inputs: dict[str, Any]) -> None:
    text = lock(nodes, inputs=inputs)
    try:
        assert set(LockFile.parse(text).inputs) == set(inputs)
    except Refused as error:
        assert error.code is ErrorCode.MANIFEST_INVALID  # noqa: PT017 - either is right


def at(*revisions: str, **more: Any) -> str:
    """A lock of the inputs a, b, c, … at these revisions; one without a revision is not there."""
    found = {name: node({}, rev=revision) for name, revision in zip("abc", revisions, strict=False) if revision}
    return lock({**found, **more})


@pytest.mark.parametrize(
    ("now", "then", "before", "expected"),
    [
        (at("2", "9"), at("2", "1"), at("1", "1"), at("1", "9")),
        (at("", "9"), at("", "1"), at("1", "1"), at("1", "9")),
        (at("1", "9"), at("1", "1"), at("", "1"), at("", "9")),
        (at("1", "9"), at("2", "1"), at("1", "1"), at("1", "9")),
        (at("3", "1"), at("2", "1"), at("1", "1"), None),
        (at("", "1"), at("2", "1"), at("1", "1"), None),
        (at("3", "1"), at("", "1"), at("1", "1"), None),
    ],
)
def test_step_is_taken_back_without_what_came_after_it(now: str, then: str, before: str, expected: str | None) -> None:
    found = lockfile.stepped_back(now, then, before)
    assert (found and json.loads(found)) == (expected and json.loads(expected))


def test_step_back_never_leaves_an_input_without_its_node() -> None:
    user = {**node({}, rev="1"), "inputs": {"a": "a"}}
    assert lockfile.stepped_back(at("1", d=user), at("1"), at("")) is None


def fingerprints(text: str) -> dict[str, str]:
    return {name: lockfile.fingerprint(text, name) for name in LockFile.parse(text).inputs}


def changed_by(**changes: dict[str, Any]) -> set[str]:
    """The inputs of a small lock whose fingerprint is another one with these nodes in it."""
    nodes: dict[str, Any] = {
        "nixpkgs": node(ORIGINALS[0][0], rev=REV),
        "tool": {**node(ORIGINALS[1][0], rev=REV), "inputs": {"nixpkgs": ["nixpkgs"], "dep": "dep"}},
        "dep": node(ORIGINALS[13][0], rev=REV),
        "same": {**node(ORIGINALS[4][0], rev=REV), "inputs": {"base": ["tool", "dep"]}},
        "alone": node(ORIGINALS[11][0]),
    }
    inputs = {name: name for name in nodes if name != "dep"}
    before, after = fingerprints(lock(nodes, inputs=inputs)), fingerprints(lock({**nodes, **changes}, inputs=inputs))
    return {name for name, fingerprint in before.items() if after[name] != fingerprint}


def test_fingerprint_of_an_input_is_all_that_it_evaluates_with_and_nothing_else() -> None:
    assert changed_by(alone=node(ORIGINALS[11][0], narHash=HASH)) == {"alone"}
    assert changed_by(nixpkgs=node(ORIGINALS[0][0], rev="1" * 40)) == {"nixpkgs", "tool"}
    assert changed_by(dep=node(ORIGINALS[13][0], rev="1" * 40)) == {"tool", "same"}, "also through follows"
    assert changed_by(same={**node(ORIGINALS[1][0], rev=REV), "inputs": {"base": ["tool", "dep"]}}) == {"same"}, "dir"


def test_inputs_of_one_revision_have_fingerprints_of_their_own() -> None:
    folders = [node({"type": "path", "path": path}) for path in ("./a", "./b")]
    found = fingerprints(lock({"a": folders[0], "b": folders[1], "c": folders[0]}))
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("target", [["a"], ["a", "self"], ["nowhere"], ["tool", "nowhere"], "nowhere", 5])
def test_lock_that_follows_in_a_circle_or_nowhere_has_a_fingerprint(target: Any) -> None:
    circle = {"a": {"inputs": {"self": ["a", "self"]}}, "tool": {"inputs": {"x": target}}}
    assert len(lockfile.fingerprint(lock(circle), "tool")) == 64
