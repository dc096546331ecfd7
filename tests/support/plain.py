# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of manifests made by git alone, and the parts that change it: everything of a mutation but nix."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from glixd.api import Caller, Scope
from glixd.backends.evaluator import OwnEvaluator
from glixd.backends.git import Git
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation, Processes
from glixd.backends.repository import Repository
from glixd.draft import Job
from glixd.drafting import Drafter, templates
from glixd.locking import Locker
from glixd.model.change import Add, Base, Init, Remove, Request, Resolved
from glixd.model.operations import new_flake, plan_host, regenerated
from glixd.model.plans import Plans
from glixd.transaction import Result, Transactor
from tests.support.hermetic import commit_all, git, write_files

HOST: Final = "laptop"
SYSTEM: Final = "x86_64-linux"
MANIFEST: Final = f"hosts/{HOST}/glix.toml"
INPUTS: Final = {
    "nixpkgs": "github:NixOS/nixpkgs/nixos-unstable",
    "glixos-core": "github:glixos/glixd",
    "home-manager": "github:nix-community/home-manager",
}
INIT: Final = Init(HOST, "alice", SYSTEM, INPUTS["nixpkgs"], INPUTS["glixos-core"], INPUTS["home-manager"])
CALLER: Final = Caller(os.getuid(), "alice", "socket:1")

_numbers = itertools.count(1)


def lock_text(inputs: Mapping[str, str] = INPUTS) -> str:
    """A flake.lock in which each input stands at a revision made of its name."""
    nodes: dict[str, Any] = {"root": {"inputs": {name: name for name in inputs}}}
    for name, url in inputs.items():
        owner, repo, *ref = url.removeprefix("github:").split("/")
        original = {"type": "github", "owner": owner, "repo": repo, **({"ref": ref[0]} if ref else {})}
        revision = name.encode().hex().ljust(40, "0")[:40]
        nodes[name] = {"original": original, "locked": {**original, "rev": revision, "narHash": "sha256-", "ref": None}}
        nodes[name]["locked"].pop("ref")
    return json.dumps({"nodes": nodes, "root": "root", "version": 7}, indent=2, sort_keys=True) + "\n"


def plain_files() -> dict[str, str]:
    """The files of a fresh repository with one host, as `init` writes them, with a lock that nobody fetched."""
    planned = plan_host(None, INIT, templates())
    base = Base(new_flake(INIT, templates()), None, {}, {}, SYSTEM)
    return {**planned.files, "flake.nix": regenerated(base, planned.manifests), "flake.lock": lock_text()}


def make_plain_repository(folder: Path, extra: Mapping[str, str] | None = None, *, object_format: str = "sha1") -> str:
    """Make such a repository in `folder`, by hand, with `extra` files in its one commit; the commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", f"--object-format={object_format}", "--initial-branch=main", "--template=")
    write_files(folder, {**plain_files(), **(extra or {})})
    return commit_all(folder, "By hand")


def processes(folder: Path) -> Processes:
    """The door to programs, with an environment as the daemon makes it."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return Processes(
        {"PATH": os.environ["PATH"], "HOME": os.fspath(home), "XDG_CONFIG_HOME": f"{home}/.config", "LC_ALL": "C.UTF-8"}
    )


def package(name: str) -> Resolved:
    """A package of the host's own nixpkgs, resolved."""
    return Resolved(name, name, f"nixpkgs#{name}", "nixpkgs", None, name, trusted=True)


def add(*names: str, host: str = HOST) -> Add:
    """The request to add packages of the host's own nixpkgs to the system."""
    return Add(host, tuple(map(package, names)), Scope.SYSTEM, None, None, follows=True)


def remove(*names: str, host: str = HOST) -> Remove:
    """The request to remove packages."""
    return Remove(host, names)


@dataclass
class Workshop:
    """The parts of a daemon that carry a mutation, on one repository."""

    root: Path
    state: Path
    make: Callable[..., Repository] = Repository
    owner_adopts: bool = True
    options: dict[str, Any] = field(default_factory=lambda: {"needed_bytes": 0, "needed_inodes": 0})

    def __post_init__(self) -> None:
        self.processes = processes(self.state)
        self.repository = self.make(self.root, self.processes, **self.options)
        self.locker = Locker(Nix(self.processes, OwnEvaluator(self.processes, self.root, self.state)))
        drafter = Drafter(self.repository, self.locker, Plans(), default_system=SYSTEM, owner_adopts=self.owner_adopts)
        self.transactor = Transactor(self.repository, drafter, machine=HOST)

    @property
    def git(self) -> Git:
        """The door to git."""
        return self.repository.git

    def job(self, request: Request, **options: Any) -> Job:
        """A job for the request, with an id of its own."""
        return Job(f"test{os.getpid()}x{next(_numbers)}", request, "0" * 64, CALLER, **options)

    def run(self, request: Request, **options: Any) -> Result:
        """Carry a request through."""
        return self.transactor.run(self.job(request, **options))

    def recover(self) -> None:
        """What a daemon does when it starts."""
        self.repository.check_index()
        with self.repository.locked(Cancellation()):
            pass

    def close(self) -> None:
        """End what runs."""
        self.repository.close()
