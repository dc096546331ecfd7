# SPDX-License-Identifier: GPL-3.0-or-later
"""A nix of one's own in a folder: real evaluation, real locks and real builds, without network, daemon or root.

Store hashes depend on the folder, so tests assert on names and never on store paths.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

PROJECT: Final = Path(__file__).resolve().parents[2]
FIXTURES: Final = PROJECT / "tests" / "fixtures"
MINI_NIXPKGS: Final = FIXTURES / "mini-nixpkgs"
MINI_HOME_MANAGER: Final = FIXTURES / "mini-home-manager"

# The settings are in a file and not in NIX_CONFIG, so that a program under test may set NIX_CONFIG for itself.
_NIX_CONF: Final = """\
experimental-features = nix-command flakes
flake-registry = {registry}
sandbox = false
build-users-group =
substituters =
download-attempts = 1
warn-dirty = false
"""
_GIT_CONFIG: Final = """\
[user]
\tname = Test
\temail = test@example.invalid
[init]
\tdefaultBranch = main
[gc]
\tauto = 0
[safe]
\tdirectory = *
"""
# Of the caller's environment, what programs need to run at all. No proxy, no nix setting, no git setting comes along.
_INHERITED: Final = ("PATH", "TMPDIR", "LANG", "LC_ALL", "LOCALE_ARCHIVE")


CORE_FILES: Final = ("flake.nix", "core", "nixos-module", "polkit", "glixd/protocol.py")
"""What nix reads of the project, to evaluate anything but the programs."""
_CACHES: Final = shutil.ignore_patterns("__pycache__", ".git")


class NixError(Exception):
    """A nix command failed; the message is what it wrote."""


@dataclass(frozen=True)
class HermeticNix:
    """A private home, store, state and configuration under `root`."""

    root: Path

    def __post_init__(self) -> None:
        for folder in ("home", "cache", "etc", "store", "state", "log"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        registry = self.root / "etc" / "empty-registry.json"
        registry.write_text('{"flakes":[],"version":2}\n')
        (self.root / "etc" / "nix.conf").write_text(_NIX_CONF.format(registry=registry))
        # nix from 2.26 on reads this file alone, whatever GIT_CONFIG_GLOBAL says.
        self.home.joinpath(".gitconfig").write_text(_GIT_CONFIG)

    @property
    def home(self) -> Path:
        """The HOME of everything that runs in this environment."""
        return self.root / "home"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment for a child process, `extra` last."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        root = os.fspath(self.root)
        return {
            **inherited,
            "HOME": f"{root}/home",
            "XDG_CACHE_HOME": f"{root}/cache",
            "XDG_CONFIG_HOME": f"{root}/home/.config",
            "XDG_DATA_HOME": f"{root}/home/.local/share",
            "XDG_STATE_HOME": f"{root}/home/.local/state",
            "NIX_STORE_DIR": f"{root}/store",
            "NIX_STATE_DIR": f"{root}/state",
            "NIX_LOG_DIR": f"{root}/log",
            "NIX_CONF_DIR": f"{root}/etc",
            "NIX_USER_CONF_FILES": "",
            "NIX_REMOTE": "local",
            "GIT_CONFIG_GLOBAL": f"{root}/home/.gitconfig",
            "GIT_CONFIG_NOSYSTEM": "1",
            **(extra or {}),
        }

    def run(
        self, *argv: str, cwd: Path | None = None, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run any program in the environment, and return how it ended."""
        return subprocess.run(
            argv,
            cwd=cwd or self.root,
            env=self.environment(extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def nix(
        self, *arguments: str, cwd: Path | None = None, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `nix ARGUMENTS`, and return how it ended."""
        return self.run("nix", *arguments, cwd=cwd, extra=extra)

    def eval_json(self, expression: str, *, cwd: Path | None = None) -> Any:
        """Evaluate a Nix expression to plain data."""
        return self._json("eval", "--impure", "--json", "--expr", expression, cwd=cwd)

    def eval_installable(self, installable: str, *, apply: str | None = None, cwd: Path | None = None) -> Any:
        """Evaluate an attribute of a flake (`path#attribute`) to plain data, through the function `apply`."""
        function = () if apply is None else ("--apply", apply)
        return self._json("eval", "--json", "--no-write-lock-file", installable, *function, cwd=cwd)

    def eval_error(self, expression: str) -> str:
        """Evaluate an expression that must fail, and return what nix says."""
        result = self.nix("eval", "--impure", "--json", "--expr", expression)
        if result.returncode == 0:
            raise NixError(f"the expression was expected to fail, and gave {result.stdout}")
        return result.stderr

    def build(self, installable: str, *, cwd: Path | None = None) -> Path:
        """Build one installable, and return its output."""
        (built,) = self._json("build", "--no-link", "--json", installable, cwd=cwd)
        return Path(built["outputs"]["out"])

    def lock(self, folder: Path) -> None:
        """Write the flake.lock of the flake in `folder`."""
        result = self.nix("flake", "lock", f"path:{quoted(folder)}")
        if result.returncode:
            raise NixError(result.stderr)

    def remove(self) -> None:
        """Delete the whole folder, the read-only store included."""
        for folder, _, _ in os.walk(self.root / "store"):
            os.chmod(folder, 0o700)
        shutil.rmtree(self.root)

    def _json(self, *arguments: str, cwd: Path | None) -> Any:
        result = self.nix(*arguments, cwd=cwd)
        if result.returncode:
            raise NixError(result.stderr)
        return json.loads(result.stdout)


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder`, with no configuration but the test's own, and return what it prints."""
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _IDENTITY.items()}
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **identity,
    }
    return subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "gc.auto=0", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


_IDENTITY: Final = {"NAME": "Test", "EMAIL": "test@example.invalid", "DATE": "2026-01-01T00:00:00Z"}


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files by their relative names, making folders as needed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def commit_all(folder: Path, message: str = "Change") -> str:
    """Commit everything in `folder`, making it a repository first if it is none, and return the revision."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def quoted(path: Path) -> str:
    """Return a path as it is written in a URL."""
    return quote(os.fspath(path))


def git_url(folder: Path) -> str:
    """Return the flake reference of the newest commit of a repository on disk."""
    return f"git+file://{quoted(folder)}?ref=main&rev={git(folder, 'rev-parse', 'HEAD')}"


def make_git_flake(folder: Path, files: Mapping[str, str] | None = None) -> str:
    """Turn a folder, with `files` added, into a repository with one more commit; return its flake reference."""
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, files or {})
    commit_all(folder)
    return git_url(folder)


def copy_git_flake(source: Path, folder: Path, names: Iterable[str] = (".",)) -> str:
    """Copy parts of a folder into a repository of their own; return its flake reference."""
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True, ignore=_CACHES)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)
    return make_git_flake(folder)


def core_url(folder: Path) -> str:
    """Make a repository that holds the project's flake and its Nix files alone; return its flake reference.

    Use it with `inputs.nixpkgs.follows = "nixpkgs"`, as generated flakes do: its own nixpkgs is then never fetched.
    A `path:` of the whole working folder would copy virtual environments and caches into the store.
    """
    return copy_git_flake(PROJECT, folder, CORE_FILES)


def nixpkgs_url(folder: Path) -> str:
    """Make a repository of mini-nixpkgs; return its flake reference."""
    return copy_git_flake(MINI_NIXPKGS, folder)


def home_manager_url(folder: Path) -> str:
    """Make a repository of mini-home-manager; return its flake reference."""
    return copy_git_flake(MINI_HOME_MANAGER, folder)
