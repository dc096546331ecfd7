# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example of the documents and the man pages is run, by a shell, against a real daemon; the tutorial has a test of its own.

What is on GitHub stands on the loopback interface, and the machine that is switched is a folder. What an example needs to make
sense is made before it; what can't be run here is listed with the reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from glixd.protocol import Exit
from tests.support.daemon import new_site
from tests.support.examples import (
    ID,
    MAN,
    PAGES,
    Example,
    World,
    blocks,
    of_page,
    of_verbs,
    own_flake,
    package,
    publish,
    renew,
)
from tests.support.fake_github import FakeGitHub
from tests.support.hermetic import HermeticNix, commit_all, write_files
from tests.support.private_bus import private_bus
from tests.support.registry_server import document, serving
from tests.support.repositories import GLIX_STYLE, Sources, localised_copy
from tests.support.switching import switchable

pytestmark = [pytest.mark.integration, pytest.mark.nix]

PACKAGES: Final = (
    "# apt-get install python3-venv gcc libc6-dev pkg-config libsystemd-dev python3-dev git nix-bin"
    " nix-setup-systemd polkitd"
)
SWITCHING: Final = "switch-other-machines.md"
FURNISHED: Final = (
    "add-a-package.md",
    "edit-by-hand.md",
    "undo-changes.md",
    "talk-to-the-daemon.md",
    "let-users-install-packages.md",
    SWITCHING,
    "update-automatically.md",
    "edit-the-system-repository.md",
)
FROM_NOTHING: Final = ("README.md", "take-over-a-machine.md")
ATTACHING: Final = "attach-your-own-flake.md"
OF_GLIX: Final = "use-an-existing-glix-repository.md"
"""The pages, by the world in which their reader is."""

INSTALLER: Final = "changes the machine as root; tests/booted runs the installer in a booted Debian"
REMOTE: Final = "nixos-rebuild switch --flake /etc/glixos#pi"
ANOTHER: Final = "switches another machine, by another program"
SYSTEMD: Final = "asks the systemd of a machine that runs glixd; tests/booted has one"
NOT_HERE: Final[Mapping[tuple[str, str], str]] = {
    (
        "install-on-another-system.md",
        PACKAGES,
    ): "needs root and the network",
    ("install-on-another-system.md", "# scripts/install-system"): INSTALLER,
    ("install-on-another-system.md", "scripts/install-system --make-wheels wheels"): "needs the network of PyPI",
    ("install-on-another-system.md", "# scripts/install-system --wheels wheels"): INSTALLER,
    ("install-on-another-system.md", "# scripts/install-system --uninstall"): INSTALLER,
    (
        "install-on-another-system.md",
        "# cp /usr/share/glixd/polkit-rules/50-glixd-wheel.rules /etc/polkit-1/rules.d/",
    ): INSTALLER,
    (
        "let-users-install-packages.md",
        "# glixctl init --host laptop --user alice",
    ): "root's, in system mode: tests/booted",
    ("let-users-install-packages.md", "systemctl status glixd.socket glixd.service"): SYSTEMD,
    (
        "let-users-install-packages.md",
        "journalctl -u glixd.service -u 'glixd-eval@*' -u 'glixd-activate@*' -u glixd-export.service",
    ): SYSTEMD,
    (SWITCHING, f"{REMOTE} --target-host root@pi.local"): ANOTHER,
    (SWITCHING, f"{REMOTE} --target-host root@pi.local --build-host builder.local"): ANOTHER,
    (SWITCHING, "colmena apply --on pi,desktop"): ANOTHER,
    (SWITCHING, "deploy ~/.config/glixos#pi"): ANOTHER,
}
"""What is not run, by page and command, and why."""

USERS: Final = "sed -i 's/^}$/  users.users.alice.isNormalUser = true;\\n}/' ~/.config/glixos/hosts/laptop/default.nix"
EDITED: Final = "echo '# mine' >> ~/.config/glixos/hosts/laptop/{}"
CLEARED: Final = ("glixctl remove firefox git",)
LOST: Final = (
    "cd ~/.config/glixos",
    "sed -i '/mkHost \"pi\"/d' flake.nix",
    "git commit --quiet --message 'By hand' -- flake.nix",
)
ONE_MACHINE: Final = "rebuild --host pi --target-host root@pi.lan"
TWO_MACHINES: Final = "rebuild --target-host pi=root@pi.lan --target-host desk=root@desk.lan"
DESK: Final = ("glixctl host set pi system=x86_64-linux || [ $? = 7 ]", "glixctl init --host desk --user alice")
GARBAGE: Final = ("date +%N > ~/garbage", "nix-store --add ~/garbage")
CLONED: Final = ("rm -rf ~/system", "glixctl clone ~/system")
COMMITTED: Final = (
    "cd ~/system",
    "echo '# mine' >> hosts/laptop/default.nix",
    "git commit --quiet --all --message Mine",
)
NEEDED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    (MAN, "glixctl add firefox"): CLEARED,
    (MAN, "glixctl add firefox git --scope home"): CLEARED,
    (MAN, "glixctl add firefox --dry-run"): CLEARED,
    (MAN, "glixctl enable firefox"): ("glixctl disable firefox",),
    (MAN, "glixctl set greeting pin= enabled=true"): ("glixctl set greeting pin=v1.2 enabled=false",),
    (MAN, "glixctl move firefox --scope system"): ("glixctl move firefox --scope home",),
    (MAN, "glixctl apply -f changes.toml"): CLEARED,
    (MAN, "glixctl apply -f - --dry-run"): CLEARED,
    (MAN, "glixctl init --host pi --user alice --system aarch64-linux"): ("glixctl host remove pi",),
    (MAN, "glixctl adopt"): (EDITED.format("glix.toml"),),
    (MAN, 'glixctl adopt --all --message "Use a newer kernel"'): (EDITED.format("default.nix"),),
    (MAN, "glixctl host set pi system=aarch64-linux"): ("glixctl host set pi system=x86_64-linux",),
    (MAN, "glixctl regen"): LOST,
    (MAN, "glixctl search text editor --limit 50"): ("glixctl search firefox --refresh",),
    (MAN, "glixctl gc --dry-run"): GARBAGE,
    (MAN, "glixctl gc --older-than 30d --keep 3"): GARBAGE,
    (MAN, "glixctl gc --delete-old"): GARBAGE,
    (MAN, "glixctl diff"): (EDITED.format("glix.toml"),),
    ("add-a-package.md", "glixctl search text editor"): ("glixctl search firefox --refresh",),
    ("add-a-package.md", "glixctl add firefox git"): CLEARED,
    ("add-a-package.md", "glixctl add github:owner/repo --pin v1.2"): ("glixctl remove repo",),
    ("add-a-package.md", "glixctl add path:/home/alice/mine --allow-local"): ("glixctl remove mine",),
    ("add-a-package.md", 'glixctl add firefox git ripgrep --reason "a fresh start"'): CLEARED,
    ("add-a-package.md", "glixctl apply -f changes.toml"): (
        "glixctl remove firefox ripgrep",
        "cp ~/changes.toml ~/.config/glixos",
    ),
    ("edit-by-hand.md", "glixctl diff"): (EDITED.format("glix.toml"),),
    ("edit-by-hand.md", "glixctl regen"): LOST,
    ("edit-by-hand.md", 'glixctl adopt --all --message "A newer kernel"'): (EDITED.format("default.nix"),),
    (SWITCHING, "glixctl rebuild build --host pi"): ("glixctl host set pi system=x86_64-linux",),
    (MAN, f"glixctl {ONE_MACHINE}"): ("glixctl host set pi system=x86_64-linux",),
    (MAN, f"glixctl {TWO_MACHINES} --confirm-within 60"): DESK,
    (SWITCHING, f"glixctl {TWO_MACHINES}"): DESK,
    (SWITCHING, "glixctl adopt"): ("echo '# mine' >> ~/.config/glixos/flake.nix",),
    (MAN, "glixctl clone ~/system"): CLONED[:1],
    (MAN, "glixctl push"): (*CLONED, *COMMITTED),
    (MAN, "glixctl push --dry-run"): (*CLONED, *COMMITTED),
    ("edit-the-system-repository.md", "glixctl clone ~/system"): CLONED[:1],
    ("edit-the-system-repository.md", "glixctl push"): COMMITTED,
    ("undo-changes.md", "glixctl apply -f changes.toml"): ("glixctl remove firefox || [ $? = 4 ]",),
    (
        "talk-to-the-daemon.md",
        "busctl --user call org.glixos.Glix1 /org/glixos/Glix1 org.glixos.Glix1.Manager List 'a{sv}' 0",
    ): ("glixctl ping", *CLEARED),
    ("talk-to-the-daemon.md", "glixctl add firefox --json --quiet"): ("glixctl remove firefox",),
}
"""What is done before an example, so that it has something to do."""

WHERE: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    (MAN, "glixctl push"): ("cd ~/system",),
    (MAN, "glixctl push --dry-run"): ("cd ~/system",),
}
"""The folder of an example that says none."""

ENDS: Final[Mapping[tuple[str, str], int]] = {
    (MAN, f"glixctl transaction cancel {ID}"): Exit.REFUSED,  # it has ended already
    (MAN, "glixctl rebuild --home"): Exit.NOT_FOUND,  # alice has a home there, and whoever runs this has none
    **{(MAN, f"glixctl doctor{flag}"): Exit.FAILED for flag in ("", " --verify", " --fix")},  # here is no user alice
    ("let-users-install-packages.md", "glixctl doctor"): Exit.FAILED,
    ("add-a-package.md", "glixctl update repo"): Exit.NOTHING_TO_DO,  # a tag stays where it is
    # There are no such machines here, and it says so; tests/machines switches some.
    **{(MAN, f"glixctl {words}"): Exit.UNREACHABLE for words in (ONE_MACHINE, f"{TWO_MACHINES} --confirm-within 60")},
    **{
        (SWITCHING, f"glixctl {words}"): Exit.UNREACHABLE
        for words in (
            *(f"{ONE_MACHINE}{flags}" for flags in ("", " --dry-run", " --build-host root@builder.lan")),
            f"{ONE_MACHINE} --confirm-within 60",
            f"rebuild boot{ONE_MACHINE.removeprefix('rebuild')}",
            TWO_MACHINES,
        )
    },
    (OF_GLIX, "glixctl update glixos-core"): Exit.NOTHING_TO_DO,  # it is new enough
}
"""How an example ends that does not end with success."""

EXAMPLES: Final = [*of_verbs(), *(example for page in PAGES for example in of_page(page))]


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> Iterator[FakeGitHub]:
    with FakeGitHub(tmp_path_factory.mktemp("github")) as server:
        publish(server, sources)
        yield server


@pytest.fixture(scope="module")
def empty(
    tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, github: FakeGitHub
) -> Iterator[Callable[[], World]]:
    """Makes homes without a repository."""
    with ExitStack() as stack:

        def make() -> World:
            folder = tmp_path_factory.mktemp("empty")
            site = stack.enter_context(new_site(folder, nix, extra=github.environment()))
            machine = folder / "etc-nixos"
            write_files(machine, {"configuration.nix": '{ ... }: { system.stateVersion = "24.05"; }\n'})
            return World(site, {"/etc/nixos": os.fspath(machine)})

        yield make


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, github: FakeGitHub) -> Iterator[World]:
    """Two machines with a history, of which one is this one and has generations, and a registry."""
    folder = tmp_path_factory.mktemp("furnished")
    with ExitStack() as stack:
        site = stack.enter_context(new_site(folder, nix, extra=github.environment()))
        site.extra["DBUS_SESSION_BUS_ADDRESS"] = stack.enter_context(private_bus(site.runtime))
        stack.enter_context(switchable(site))
        server = stack.enter_context(serving())
        server.body = document({"tool": "github:owner/repo"})
        write_files(
            site.home, {".config/glixd/config.toml": f'auto_update = "stage"\n[[registries]]\nurl = "{server.url}"\n'}
        )
        [changes] = blocks(next(page for page in PAGES if page.name == "undo-changes.md"), "toml")
        write_files(site.home, {"changes.toml": changes})
        write_files(site.home / "mine", package("mine"))
        world = World(
            site, {"/home/alice": os.fspath(site.home), "https://example.org/registry.json": server.url}, changes
        )
        furnish(world)
        yield world


def furnish(world: World) -> None:
    """Make the repository that most examples are about."""
    site = world.site
    world.prepare(
        "glixctl init --host laptop --user alice", "glixctl init --host pi --user alice --system aarch64-linux"
    )
    world.prepare("glixctl add firefox --host pi", "glixctl add git hello --host pi")
    world.prepare("glixctl add firefox git --apply")
    first = site.git("rev-parse", "HEAD")
    world.prepare("glixctl add github:alice/greeting --apply", "glixctl add ripgrep", "glixctl remove ripgrep")
    world.prepare("glixctl remove hello --host pi", "nix profile install github:NixOS/nixpkgs/nixos-unstable#tmux")
    transaction = site.glixctl("transaction", "list").stdout.splitlines()[1].split()[0]
    world.words |= {"1a2b3c4": first[:7], "5d6e7f8": site.git("rev-parse", "--short=7", "HEAD"), ID: transaction}
    world.words |= {"11": "1", "12": "2"}


@pytest.fixture
def again(furnished: World) -> Iterator[World]:
    """The same as it was made, whatever was done to it since."""
    site, base = furnished.site, furnished.words["5d6e7f8"]
    yield furnished
    site.git("reset", "--quiet", "--hard", base)
    site.git("clean", "--quiet", "-fd")


def follow(world: World, example: Example) -> None:
    """Run an example, and look at how it ends."""
    key = (example.page, example.command)
    world.prepare("true", *NEEDED.get(key, ()))
    begin = time.monotonic()
    done = world.run(example.command, (*example.before, *WHERE.get(key, ())))
    print(f"{example}: {time.monotonic() - begin:.2f} s\n{done.stdout}{done.stderr}")
    assert done.returncode == ENDS.get(key, Exit.DONE), f"{example}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr


def page(name: str) -> Path:
    return next(path for path in PAGES if path.name == name)


FIRST: Final = [
    example
    for example in of_verbs()
    if example.command.startswith("glixctl init") and "--host pi" not in example.command
]
"""What is run where no repository is."""


@pytest.mark.parametrize("example", FIRST, ids=str)
def test_an_example_that_makes_a_repository_works(empty: Callable[[], World], example: Example) -> None:
    follow(empty(), example)


@pytest.mark.parametrize("example", [example for example in of_verbs() if example not in FIRST], ids=str)
def test_an_example_of_a_verb_works(again: World, example: Example, github: FakeGitHub) -> None:
    if example.command.startswith("glixctl update"):
        renew(github)
    follow(again, example)


@pytest.mark.parametrize("name", FURNISHED)
def test_a_guide_works_in_its_order(again: World, name: str, github: FakeGitHub) -> None:
    renew(github)
    write_files(again.site.repository / "pkgs" / "mine", package("mine"))
    for example in here(name):
        follow(again, example)


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_a_guide_that_begins_with_nothing_works(empty: Callable[[], World], name: str) -> None:
    world = empty()
    for example in here(name):
        follow(world, example)


def test_a_flake_of_ones_own_is_attached_as_the_guide_says(empty: Callable[[], World]) -> None:
    world = empty()
    folder = world.site.home / "my-flake"
    own_flake(page(ATTACHING), folder)
    commit_all(folder)
    world.prepare("cd ~/my-flake", "nix flake lock")
    commit_all(folder, "Lock")
    for example in here(ATTACHING):
        follow(world, example)


def test_a_repository_of_glix_is_used_as_the_guide_says(empty: Callable[[], World], sources: Sources) -> None:
    world = empty()
    folder = world.site.home / "my-flake"
    localised_copy(GLIX_STYLE, folder, sources)
    commit_all(folder, "glix add")
    world.site.nix.lock(folder)
    commit_all(folder, "Lock")
    for example in here(OF_GLIX):
        follow(world, example)


def here(name: str) -> list[Example]:
    """The examples of a page that can be run here."""
    return [example for example in of_page(page(name)) if (example.page, example.command) not in NOT_HERE]


def test_what_is_said_about_examples_is_about_examples_that_exist() -> None:
    there = {(example.page, example.command) for example in EXAMPLES}
    assert {*NOT_HERE, *NEEDED, *WHERE, *ENDS} <= there
    assert len(there) > 100
    assert len(NOT_HERE) <= 13


def test_every_page_with_examples_is_followed_by_a_test() -> None:
    assert {path.name for path in PAGES if here(path.name)} == {*FURNISHED, *FROM_NOTHING, ATTACHING, OF_GLIX}
