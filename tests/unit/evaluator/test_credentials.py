# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials: each for its forge, and hidden in whatever is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixd.evaluator.credentials import HIDDEN, BadCredential, Credentials, read_credentials


def given(folder: Path, **files: str) -> Credentials:
    """The credentials of a unit that has these files; `_` stands for the dots and dashes of names."""
    names = {"netrc": "netrc", "tokens": "access-tokens", "key": "ssh-key.forge.example", "known": "ssh-known-hosts"}
    folder.mkdir()
    for name, text in files.items():
        (folder / names[name]).write_text(text)
    private = folder.with_name("private")
    private.mkdir()
    return read_credentials(folder, private)


def test_without_credentials_nothing_is_set(tmp_path: Path) -> None:
    assert read_credentials(None, tmp_path) == read_credentials(tmp_path / "nosuch", tmp_path) == Credentials()
    assert given(tmp_path / "empty") == Credentials()


def test_tokens_and_netrc_reach_nix_by_its_configuration(tmp_path: Path) -> None:
    found = given(
        tmp_path / "unit", netrc="machine a.example login me password hunter22\n", tokens="github.com=abcdef1\n"
    )
    assert found.environment["NIX_CONFIG"].splitlines() == [
        "experimental-features = nix-command flakes",
        f"netrc-file = {tmp_path}/unit/netrc",
        "access-tokens = github.com=abcdef1",
    ]
    assert found.hide("no hunter22, no abcdef1 here") == f"no {HIDDEN}, no {HIDDEN} here"


def test_the_kind_of_a_gitlab_token_is_no_secret(tmp_path: Path) -> None:
    found = given(tmp_path / "unit", tokens="gitlab.com=OAuth2:secret-1\n")
    assert found.hide("OAuth2 secret-1") == f"OAuth2 {HIDDEN}"


def test_a_key_is_for_its_host_alone_and_no_agent_is_asked(tmp_path: Path) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
    found = given(tmp_path / "unit", key=key, known="forge.example ssh-ed25519 AAAA\n")
    command = found.environment["GIT_SSH_COMMAND"]
    config = Path(command.removeprefix("ssh -F ")).read_text()
    assert config.startswith(f"Host forge.example\n  IdentityFile {tmp_path}/private/ssh-key.forge.example\n")
    assert "Host *\n  IdentityFile none\n  IdentityAgent none\n  BatchMode yes\n" in config
    assert f"UserKnownHostsFile {tmp_path}/unit/ssh-known-hosts" in config
    assert (tmp_path / "private" / "ssh-key.forge.example").stat().st_mode & 0o777 == 0o600
    assert found.hide("c2VjcmV0") == HIDDEN


@pytest.mark.parametrize(
    "text", ["default login x password y", "machine a login b password c\ndefault password d", "# all\ndefault"]
)
def test_a_default_entry_would_be_for_every_host(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadCredential, match="default entry"):
        given(tmp_path / "unit", netrc=text)


def test_a_password_may_be_called_default(tmp_path: Path) -> None:
    assert given(tmp_path / "unit", netrc="machine a login default password default").environment


@pytest.mark.parametrize("text", ["github.com", "=x", "github.com=", "a b=c", "-x=y", "http://github.com=y"])
def test_tokens_have_a_host(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadCredential, match="HOST=TOKEN"):
        given(tmp_path / "unit", tokens=text)
