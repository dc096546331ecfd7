# SPDX-License-Identifier: GPL-3.0-or-later
"""The fake GitHub serves what nix asks GitHub for: default branches, branches, tags, commits and archives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_github import FakeGitHub
from tests.support.hermetic import HermeticNix

pytestmark = pytest.mark.nix


def says(text: str) -> dict[str, str]:
    return {"flake.nix": f'{{ outputs = {{ self }}: {{ says = "{text}"; }}; }}'}


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGitHub]:
    """A GitHub with one repository of three commits."""
    with FakeGitHub(tmp_path_factory.mktemp("github")) as server:
        server.add_repository("owner", "tool", says("one"), tag="v1.0")
        server.add_repository("owner", "tool", says("two"))
        server.add_repository("owner", "tool", says("three"), branch="feature/next")
        yield server


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("github:owner/tool", "two"),
        ("github:Owner/Tool", "two"),
        ("github:owner/tool/v1.0", "one"),
        ("github:owner/tool?ref=v1.0", "one"),
        ("github:owner/tool?ref=main", "two"),
        ("github:owner/tool?ref=feature/next", "three"),
    ],
)
def test_reference_leads_to_its_commit(nix: HermeticNix, github: FakeGitHub, reference: str, expected: str) -> None:
    result = nix.nix("eval", "--json", "--refresh", f"{reference}#says", extra=github.environment())
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected


def test_commit_can_be_pinned(nix: HermeticNix, github: FakeGitHub) -> None:
    commit = github.add_repository("owner", "pinned", says("first"))
    github.add_repository("owner", "pinned", says("second"))
    result = nix.nix("eval", "--json", f"github:owner/pinned?rev={commit}#says", extra=github.environment())
    assert json.loads(result.stdout) == "first"


def test_unknown_repository_tag_and_host_are_refused(nix: HermeticNix, github: FakeGitHub) -> None:
    for reference in ("github:owner/nosuch", "github:owner/tool?ref=v9", "gitlab:owner/tool"):
        result = nix.nix("flake", "metadata", "--json", reference, extra=github.environment())
        assert result.returncode != 0
    refused = {(request.host, request.status) for request in github.requests if request.status != 200}
    assert {("api.github.com", 404), ("api.github.com", 422), ("gitlab.com", 0)} <= refused


def test_stopped_server_answers_no_more(tmp_path: Path, nix: HermeticNix) -> None:
    with FakeGitHub(tmp_path / "github") as server:
        server.add_repository("gone", "tool", says("one"))
        environment = server.environment()
    result = nix.nix("flake", "metadata", "github:gone/tool", extra=environment)
    assert result.returncode != 0
    with pytest.raises(RuntimeError):
        server.environment()
