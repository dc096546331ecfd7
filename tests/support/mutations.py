# SPDX-License-Identifier: GPL-3.0-or-later
"""One case, or several, of every mutation of the table, and the repository that they change.

The repository has hello, a disabled tmux, y from a folder of its own, the host pi and an input that has moved on since it was
locked; a person has work of all kinds under way in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from glixd import api
from glixd.backends.state import Database
from glixd.protocol import State
from glixd.queue import now
from tests.support.beside import NOTHING, Nothing, SwitchedMachine
from tests.support.daemon import HOST, RpcClient
from tests.support.faults import undisturbed
from tests.support.hermetic import HermeticNix, commit_all, git, make_git_flake, write_files
from tests.support.inprocess import World, serve
from tests.support.repositories import EXAMPLES, Sources

MANIFEST: Final = f"hosts/{HOST}/glix.toml"
HELLO: Final = (EXAMPLES / "pkg-hello/flake.nix").read_text()
NEXT: Final[Mapping[str, Any]] = {"refs": ["nixpkgs#git"]}
"""What is added to see that the next change works."""
COMMITTED: Final = {
    "pkgs/x/flake.nix": HELLO,
    "pkgs/y/flake.nix": HELLO,
    "notes/tracked.txt": "as committed\n",
    "notes/staged.txt": "as committed\n",
}
UNDER_WAY: Final = {
    "notes/tracked.txt": "changed by hand\n",
    "notes/staged.txt": "staged by hand\n",
    "notes/new-and-staged.txt": "new\n",
    "notes/untracked.txt": "nobody else has this\n",
    f"hosts/{HOST}/default.nix": "{ } # changed by hand\n",
}
"""What a person has in the work tree and has not committed."""
STAGED: Final = ("notes/staged.txt", "notes/new-and-staged.txt")
GENERATIONS: Final = (1, 2)
MACHINE: Final = SwitchedMachine()
UPLOAD: Final = "0" * 32
"""The name of what a client of this uid has brought."""
BUILT: Final = "0" * 26
"""The transaction that built the system of another machine."""


def _as_it_is(world: World) -> None:
    """Nothing happens before."""


@dataclass(frozen=True)
class Mutation:
    """One way to use one mutation."""

    operation: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    arrange: Callable[[World], None] = _as_it_is
    """What happens to the repository before."""
    next: tuple[str, Mapping[str, Any]] = ("Add", NEXT)
    """What has to work when nothing was changed."""
    beside: Nothing = NOTHING
    """What stands beside the repository."""


def mutations(sources: Sources) -> dict[str, Mutation]:
    """All cases, by a name that says what is special about them."""
    init = {
        "host": HOST,
        "user": "alice",
        "system": "x86_64-linux",
        "nixpkgs": sources.nixpkgs,
        "core": sources.core,
        "home_manager": sources.home_manager,
    }
    return {
        "init": Mutation("Init", init, _no_repository, ("Init", init)),
        "init host": Mutation("Init", {"host": "desk", "user": "bob", "system": "aarch64-linux"}),
        "add": Mutation("Add", {"refs": ["nixpkgs#firefox"]}),
        "add with lock": Mutation("Add", {"refs": ["path:./pkgs/x"]}),
        "add and take over": Mutation("Add", {"refs": ["nixpkgs#firefox"]}, _edit_manifest),
        "remove": Mutation("Remove", {"names": ["hello"]}),
        "remove with lock": Mutation("Remove", {"names": ["y"]}),
        "enable": Mutation("Enable", {"names": ["tmux"]}),
        "disable": Mutation("Disable", {"names": ["hello", "y"]}),
        "set": Mutation("Set", {"name": "y", "changes": {"config.colour": "red"}}),
        "set with lock": Mutation("Set", {"name": "y", "changes": {"flake": "path:./pkgs/x"}}),
        "move": Mutation("Move", {"names": ["hello"], "scope": "home"}),
        "set host": Mutation("SetHost", {"changes": {"default_scope": "home"}}),
        "remove host": Mutation("RemoveHost", {"name": "pi"}),
        "rename host": Mutation("RenameHost", {"name": "pi", "to": "pico"}),
        "update": Mutation("Update", {"inputs": ["moving"]}),
        "adopt": Mutation("Adopt", {"message": "By hand"}, _edit_manifest),
        "push": Mutation("Push", {"upload": UPLOAD}, _upload),
        "rollback": Mutation("Rollback", {"steps": 2}),
        "rollback to a generation": Mutation(
            "Rollback", {"to_generation": GENERATIONS[0]}, _two_generations, beside=MACHINE
        ),
        "batch": Mutation(
            "Apply",
            {
                "operations": [
                    {"operation": "Remove", "names": ["hello"]},
                    {"operation": "Add", "refs": ["nixpkgs#firefox", "nixpkgs#ripgrep"]},
                    {"operation": "Enable", "names": ["tmux"]},
                ]
            },
        ),
        "regenerate": Mutation("Regenerate", {}, _edit_flake),
        "build": Mutation("Rebuild", {"action": "build"}),
        "remember a generation": Mutation(
            "RememberGeneration", {"build": BUILT, "generation": GENERATIONS[0]}, _built_elsewhere
        ),
        "collect garbage": Mutation("CollectGarbage", {}, _old_tags),
    }


def _no_repository(world: World) -> None:
    shutil.rmtree(world.repository)


def _edit_manifest(world: World) -> None:
    path = world.repository / MANIFEST
    path.write_text(path.read_text() + '\n[packages.perl]\nflake = "nixpkgs#perl" # by hand\n')


def _upload(world: World) -> None:
    """Two commits of a clone, one of a file of its own and one of the manifest, brought and not pushed yet."""
    clone = world.root / "clone"
    git(world.root, "clone", "--quiet", os.fspath(world.repository), os.fspath(clone))
    head = git(clone, "rev-parse", "HEAD")
    write_files(clone, {"notes/pushed.txt": "brought\n"})
    commit_all(clone, "Notes")
    manifest = (clone / MANIFEST).read_text() + '\n[packages.perl]\nflake = "nixpkgs#perl"\n'
    write_files(clone, {MANIFEST: manifest})
    commit_all(clone, "Perl")
    uploads = world.state / "uploads"
    uploads.mkdir(mode=0o700, exist_ok=True)
    git(clone, "bundle", "create", "--quiet", os.fspath(uploads / f"{os.getuid()}-{UPLOAD}"), f"{head}..HEAD", "HEAD")
    shutil.rmtree(clone)


def _edit_flake(world: World) -> None:
    path = world.repository / "flake.nix"
    text = path.read_text()
    path.write_text(text.replace("My machines", "Our machines"))
    assert path.read_text() != text


def _old_tags(world: World) -> None:
    """Tags of two generations of this machine, which has the second alone; in a store of its own, since that is swept."""
    for number in GENERATIONS:
        git(world.repository, "tag", f"glix/gen/{HOST}/{number}")
    profiles = Path(world.environment["NIX_STATE_DIR"]) / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    (profiles / "system-2-link").symlink_to("/nowhere")
    (profiles / "system").symlink_to("system-2-link")


def _two_generations(world: World) -> None:
    """Two generations of this machine, whose manifests differ in a package."""

    def script(client: RpcClient) -> None:
        _done(client, "Rebuild", action="switch")
        _done(client, "Add", refs=["nixpkgs#ripgrep"])
        _done(client, "Rebuild", action="switch")

    with MACHINE.standing(world, world) as standing:
        assert undisturbed(lambda: serve(standing, script)) == 0
        MACHINE.settle(standing)


def _built_elsewhere(world: World) -> None:
    """The record of a build for the other machine, which was switched meanwhile."""
    commit, path = git(world.repository, "rev-parse", "HEAD"), f"/nix/store/{'0' * 32}-nixos-system-pi"
    rebuilt = api.Rebuilt(action=api.Action.BUILD, host="pi", commit=commit, activated=False, path=path)
    record = api.Transaction(
        id=BUILT,
        operation="Rebuild",
        host="pi",
        state=State.SUCCEEDED,
        uid=os.getuid(),
        login="alice",
        created=now(),
        finished=now(),
        dry_run=False,
        action=api.Action.BUILD,
        outcome=api.Outcome(summary="built pi", changed=True, rebuild=rebuilt),
    )
    database = Database(world.state / "state.db")
    database.save(record)
    database.close()


def environment_of(nix: HermeticNix) -> dict[str, str]:
    """The whole environment of a daemon."""
    return {name: value for name, value in nix.environment().items() if not name.startswith("XDG_")}


def make_world(world: World, nix: HermeticNix, sources: Sources, run: Callable[..., None]) -> None:
    """Make the repository that the cases speak of; `run` carries a script beside a daemon."""

    def begin(client: RpcClient) -> None:
        _done(client, "Init", **mutations(sources)["init"].parameters)

    def stock(client: RpcClient) -> None:
        _done(client, "Add", refs=["nixpkgs#hello", "nixpkgs#tmux", "path:./pkgs/y"])
        _done(client, "Disable", names=["tmux"])
        _done(client, "Init", host="pi", user="bob", system="aarch64-linux")
        for name in ("firefox", "ripgrep", "git"):  # what nix says of them is remembered
            _done(client, "Add", refs=[f"nixpkgs#{name}"], dry_run=True)

    run(world, begin)
    root, moving = world.repository, nix.root / "moving"
    write_files(root, COMMITTED)
    make_git_flake(moving, {"flake.nix": "{ outputs = _: { }; }"})
    flake = (root / "flake.nix").read_text()
    address = f'moving.url = "git+file://{moving}?ref=main";'
    (root / "flake.nix").write_text(flake.replace("inputs = {", f"inputs = {{\n    {address}", 1))
    nix.lock(root)
    commit_all(root, "By hand")
    run(world, stock)
    make_git_flake(moving, {"README": "newer\n"})
    write_files(root, UNDER_WAY)
    git(root, "add", "--", *STAGED)


def _done(client: RpcClient, operation: str, **parameters: Any) -> None:
    ended = client.run(operation, **parameters)
    assert ended["state"] == "succeeded", ended


def own_store(world: World, folder: Path) -> World:
    """The same world with a nix store of its own, which is empty."""
    return World(world.root, {**world.environment, **environment_of(HermeticNix(folder)), "HOME": os.fspath(folder)})
