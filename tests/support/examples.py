# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the documents and of the verbs, and worlds in which each of them makes sense."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from glixctl import commands
from tests.support.daemon import PATIENCE, Site
from tests.support.fake_github import FakeGitHub
from tests.support.hermetic import MINI_NIXPKGS, PROJECT, git, write_files
from tests.support.repositories import Sources

MAN: Final = "man pages"
"""Where the examples of the verbs are shown."""
PAGES: Final = (PROJECT / "README.md", *sorted((PROJECT / "docs" / "how-to").glob("*.md")))
ID: Final = "01hzy7k3m5n8p0q2r4s6t8v0wx"
"""The transaction of the examples."""

_MORE: Final = """    nano = mk "nano" "8.0" { description = "Small text editor"; };
    raspi-firmware = mk "raspi-firmware" "1.0" { description = "Firmware of small machines"; };
    steam = mk "steam" "1.0" {
      description = "Game launcher";
      meta = { unfree = true; license = { shortName = "unfree"; free = false; }; };
    };
"""
_TOOL: Final = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  outputs = { self, nixpkgs }:
    let each = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ]; in
    {
      packages = each (system:
        let made = nixpkgs.legacyPackages.${system}.writeShellScriptBin "NAME" "echo VERSION\\n"; in
        { default = made; tool = made; });
    };
}
"""
_SHELL: Final = ("bash", "--noprofile", "--norc", "-euc")


@dataclass(frozen=True)
class Example:
    """A command line, and where it stands."""

    page: str
    command: str
    before: tuple[str, ...] = ()
    """Lines of the same page that hold for it too: `cd` of its block, and `export`."""

    def __str__(self) -> str:
        return f"{self.page}: {self.command}"


def of_verbs() -> list[Example]:
    """Every example of every verb."""
    found = (command for verb in commands.VERBS for _, command in commands.members(verb))
    return [Example(MAN, f"glixctl {words}") for command in found for words, _ in command.EXAMPLES]


def of_page(page: Path) -> list[Example]:
    """Every command of the console blocks of a page, in their order."""
    exported: list[str] = []
    found = []
    for block in blocks(page, "console"):
        entered: list[str] = []
        for prompt, command in re.findall(r"^([$#]) (.*)$", block, re.MULTILINE):
            if command.startswith("export "):
                exported.append(command)
            elif command.startswith("cd "):
                entered.append(command)
            else:
                shown = f"# {command}" if prompt == "#" else command
                found.append(Example(page.name, shown, (*exported, *entered)))
    return found


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code of a page in one language, without their indentation."""
    fenced = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in fenced]


@dataclass
class World:
    """A home in which examples are run, and what the words in them stand for."""

    site: Site
    words: dict[str, str] = field(default_factory=dict)
    said: str = ""
    """What stands on the standard input of every example."""

    def run(self, command: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command line in a shell, as its reader would."""
        script = "\n".join((*before, self._as_root(command)))
        for word, meant in self.words.items():
            script = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", meant.replace("\\", r"\\"), script)
        return subprocess.run(
            (*_SHELL, script),
            cwd=self.site.home,
            env=self.site.environment({"GIT_CONFIG_GLOBAL": str(self.site.nix.home / ".gitconfig")}),
            input=self.said,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    @staticmethod
    def _as_root(command: str) -> str:
        """The command as root has to say it, who is no machine's primary user."""
        needs_user = os.geteuid() == 0 and "glixctl init" in command and "--user" not in command
        return f"{command} --user alice" if needs_user else command

    def prepare(self, *lines: str) -> None:
        """Run what an example needs; all of it has to work."""
        done = self.run("\n".join(lines))
        assert done.returncode == 0, f"{lines}: {done.stdout}{done.stderr}"


def publish(github: FakeGitHub, sources: Sources) -> None:
    """Put on GitHub what the examples and `init` take from there."""
    nixpkgs = _texts(MINI_NIXPKGS)
    nixpkgs["pkgs.nix"] = nixpkgs["pkgs.nix"].replace("    hello = mk", f"{_MORE}    hello = mk", 1)
    github.add_repository("NixOS", "nixpkgs", nixpkgs, branch="nixos-unstable")
    for owner, name, url in (
        ("glixos", "glixd", sources.core),
        ("nix-community", "home-manager", sources.home_manager),
        ("alice", "greeting", sources.greeting),
    ):
        folder = Path(url.removeprefix("git+file://").partition("?")[0])
        github.add_repository(owner, name, _texts(folder), tag="v1.2")
    for version in ("v1.2", "v1.3"):
        tool = _TOOL.replace("NAME", "repo").replace("VERSION", version)
        github.add_repository("owner", "repo", {"flake.nix": tool}, tag=version)


def renew(github: FakeGitHub) -> None:
    """Let what machines take from GitHub have changed since it was locked."""
    for owner, name, branch in (("NixOS", "nixpkgs", "nixos-unstable"), ("alice", "greeting", "main")):
        bare = github.repository(owner, name)
        tree = git(bare, "rev-parse", f"{branch}^{{tree}}")
        newer = git(bare, "commit-tree", tree, "-p", branch, "-m", "Newer")
        git(bare, "update-ref", f"refs/heads/{branch}", newer)


def package(name: str) -> Mapping[str, str]:
    """The flake of a package of one's own."""
    return {"flake.nix": _TOOL.replace("NAME", name).replace("VERSION", "mine")}


def own_flake(page: Path, folder: Path) -> None:
    """The flake that a reader of the page has when they did what its Nix says, and their machine's configuration."""
    inputs, outputs = blocks(page, "nix")
    own = inputs.replace(
        "inputs = {\n", '  inputs = {\n  home-manager = { url = "github:nix-community/home-manager"; };\n'
    )
    write_files(
        folder,
        {
            "flake.nix": "{\n" + textwrap.indent(own + outputs, "  ") + "}\n",
            "hosts/laptop/default.nix": '{ ... }: { users.users.alice.isNormalUser = true; system.stateVersion = "24.11"; }\n',
        },
    )


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and ".git" not in path.parts)
