# SPDX-License-Identifier: GPL-3.0-or-later
"""What private sources need: credentials that systemd gave to the unit, each for the forge it is for and no other.

    netrc               machines with their logins; a `default` entry would be for everybody, and is refused
    access-tokens       lines HOST=TOKEN, as nix.conf has them
    ssh-key.HOST        a private key for that host
    ssh-known-hosts     the keys of these hosts

They reach nix through its environment and files of its own user, and no line that leaves this process has one in it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

HIDDEN: Final = "[hidden]"
SHORTEST: Final = 6
"""Characters of the shortest text that is hidden; shorter ones would tear words apart."""
_FORGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9._/-]+)?", re.ASCII)
_NETRC_SECRETS: Final = ("password", "account")


class BadCredential(ValueError):
    """A credential is not of its form; the message names it, never what is in it."""


class Credentials(NamedTuple):
    """What the unit was given."""

    environment: Mapping[str, str] = MappingProxyType({})
    secrets: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """The text without any secret."""
        for secret in self.secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text


def read_credentials(folder: Path | None, private: Path) -> Credentials:
    """The credentials of a folder; what ssh reads is written to the folder `private`, as it wants it."""
    if folder is None or not folder.is_dir():
        return Credentials()
    settings, environment, secrets = [], {}, []
    if text := _text(folder / "netrc"):
        secrets += _netrc_secrets(text)
        settings.append(f"netrc-file = {folder / 'netrc'}")
    if text := _text(folder / "access-tokens"):
        tokens = _tokens(text)
        secrets += [token.rpartition(":")[2] for token in tokens.values()]  # gitlab says what kind of token it is
        settings.append("access-tokens = " + " ".join(f"{host}={token}" for host, token in tokens.items()))
    if settings:
        environment["NIX_CONFIG"] = "experimental-features = nix-command flakes\n" + "\n".join(settings) + "\n"
    keys = sorted(folder.glob("ssh-key.*"))
    if keys:
        environment["GIT_SSH_COMMAND"] = _ssh(keys, folder / "ssh-known-hosts", private)
        secrets += [line for key in keys for line in _text(key).splitlines() if not line.startswith("-----")]
    long = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)
    return Credentials(environment, tuple(long))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise BadCredential(f"the credential {path.name} is no text") from None


def _tokens(text: str) -> dict[str, str]:
    tokens = {}
    for word in text.split():
        host, equals, token = word.partition("=")
        if not (equals and token and _FORGE.fullmatch(host)):
            raise BadCredential("the credential access-tokens has to consist of HOST=TOKEN, one a line")
        tokens[host] = token
    return tokens


def _netrc_secrets(text: str) -> list[str]:
    words = shlex.split(text, comments=True)
    if "default" in words[0:1] or any(
        word == "default" and words[place - 1] not in ("machine", "login", *_NETRC_SECRETS)
        for place, word in enumerate(words)
    ):
        raise BadCredential("the credential netrc has a default entry, which would be for every host; name machines")
    return [words[place + 1] for place, word in enumerate(words[:-1]) if word in _NETRC_SECRETS]


def _ssh(keys: list[Path], known_hosts: Path, private: Path) -> str:
    """The ssh that git runs: each key for its host alone, no agent, no question."""
    lines = []
    for key in keys:
        host = key.name.removeprefix("ssh-key.")
        if not _FORGE.fullmatch(host) or "/" in host or ":" in host:
            raise BadCredential("the name of the credential ssh-key.HOST has to end in the name of a host")
        own = private / key.name
        shutil.copyfile(key, own, follow_symlinks=True)
        own.chmod(0o600)
        lines += [f"Host {host}", f"  IdentityFile {own}", "  IdentitiesOnly yes"]
    lines += [
        "Host *",
        "  IdentityFile none",
        "  IdentityAgent none",
        "  BatchMode yes",
        "  StrictHostKeyChecking yes",
        f"  UserKnownHostsFile {known_hosts if known_hosts.exists() else os.devnull}",
    ]
    config = private / "ssh-config"
    config.write_text("\n".join(lines) + "\n")
    return f"ssh -F {shlex.quote(os.fspath(config))}"
