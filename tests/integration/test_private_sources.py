# SPDX-License-Identifier: GPL-3.0-or-later
"""Private sources: credentials of the evaluator's unit reach their forge, and nothing and nobody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.backends.evaluator import ChildEvaluators, EvaluatorProgram, Leaf
from glixd.backends.git import Git
from glixd.backends.objects import REGULAR
from glixd.backends.process import Completed, Processes
from glixd.errors import Failed
from glixd.evaluator.jobs import Job, Kind
from tests.support.fake_github import FakeGitHub
from tests.support.hermetic import HermeticNix

pytestmark = [pytest.mark.integration, pytest.mark.nix]

TOKEN = "ghp-canary-8d1f77c2e0"
OTHER = "netrc-canary-51b0a9"


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGitHub]:
    """A forge with a repository for everybody and one for those who know the token."""
    with FakeGitHub(tmp_path_factory.mktemp("github"), private={"closed": TOKEN}) as server:
        for owner in ("open", "closed"):
            server.add_repository(owner, "tool", {"flake.nix": '{ outputs = { self }: { says = "hello"; }; }'})
        yield server


def lock(
    nix: HermeticNix, github: FakeGitHub, state: Path, owner: str, credentials: Path | None, name: str = "tool"
) -> Completed:
    """Lock a flake of that owner, with an evaluator whose unit has these credentials."""
    given = {"CREDENTIALS_DIRECTORY": os.fspath(credentials)} if credentials else {}
    processes = Processes({**nix.environment(), **github.environment(), **given})
    evaluator = EvaluatorProgram(ChildEvaluators(processes, state), Git(state, processes))
    flake = f'{{ inputs.tool.url = "github:{owner}/{name}"; outputs = _: {{ }}; }}'
    return evaluator.run(Job(Kind.LOCK), {"flake.nix": Leaf(REGULAR, flake.encode())})


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """What systemd puts there for the unit."""
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "access-tokens").write_text(f"github.com={TOKEN}\n")
    (folder / "netrc").write_text(f"machine elsewhere.example login me password {OTHER}\n")
    return folder


def test_a_private_repository_is_locked_with_its_token_alone(
    nix: HermeticNix, github: FakeGitHub, credentials: Path, tmp_path: Path
) -> None:
    assert lock(nix, github, tmp_path / "without", "closed", None).status != 0
    github.requests.clear()
    done = lock(nix, github, tmp_path / "with", "closed", credentials)
    assert done.status == 0, done.stderr.decode()
    assert b'"owner": "closed"' in done.stdout
    proofs = {(request.host, request.authorisation) for request in github.requests if request.authorisation}
    assert {host for host, _ in proofs} <= {"api.github.com", "github.com", "codeload.github.com"}
    assert all(proof.endswith(f" {TOKEN}") for _, proof in proofs)


def test_no_credential_is_found_anywhere_afterwards(
    nix: HermeticNix, github: FakeGitHub, credentials: Path, tmp_path: Path
) -> None:
    told = []
    for owner, name in (("closed", "tool"), ("closed", "nosuch"), ("open", "tool")):
        state = tmp_path / f"{owner}-{name}"
        done = lock(nix, github, state, owner, credentials, name)
        told.append(done.stdout + done.stderr)
    for canary in (TOKEN, OTHER):
        assert not any(canary.encode() in text for text in told)
        for place in (nix.root, *(path for path in tmp_path.iterdir() if path != credentials)):
            assert subprocess.run(["grep", "-rqF", canary, place], check=False).returncode == 1, place


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("netrc", f"default login me password {OTHER}\n", "default entry"),
        ("access-tokens", f"{TOKEN}\n", "HOST=TOKEN"),
        ("ssh-key.a b", "x\n", "the name of a host"),
    ],
)
def test_a_credential_for_everybody_or_of_another_form_is_refused_without_telling_it(
    nix: HermeticNix, github: FakeGitHub, credentials: Path, tmp_path: Path, name: str, text: str, why: str
) -> None:
    (credentials / name).write_text(text)
    with pytest.raises(Failed, match=why) as failed:
        lock(nix, github, tmp_path / "state", "open", credentials)
    assert TOKEN not in failed.value.message
    assert OTHER not in failed.value.message
