# SPDX-License-Identifier: GPL-3.0-or-later
"""A dry run of any mutation changes no byte of the repository, and says exactly what the real run then does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from glixd import api
from glixd.api import Kind
from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site
from tests.support.hermetic import git, make_git_flake, write_files
from tests.support.repositories import EXAMPLES, Sources

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST: Final = "hosts/laptop/glix.toml"
UPLOAD: Final = "0" * 32
HELLO: Final = (EXAMPLES / "pkg-hello/flake.nix").read_text()


def _edit(site: Site) -> None:
    """Edit managed files by hand."""
    site.write({MANIFEST: site.read(MANIFEST) + '\n[packages.git]\nflake = "nixpkgs#git" # by hand\n'})
    site.write({"flake.nix": site.read("flake.nix").replace("My machines", "Our machines")})


def _new_folder(site: Site) -> None:
    """Commit another content of a folder that is an input."""
    site.commit({"pkgs/y/flake.nix": HELLO + "# newer\n"})


def _moved_source(site: Site) -> None:
    """Commit an input that has moved on since it was locked; what a folder's input is locked at depends on nix."""
    source = site.root / "moving"
    make_git_flake(source, {"flake.nix": "{ outputs = _: { }; }"})
    flake = site.read("flake.nix").replace(
        "inputs = {", f'inputs = {{\n    moving.url = "git+file://{source}?ref=main";', 1
    )
    site.write({"flake.nix": flake})
    site.nix.lock(site.repository)
    site.commit({"flake.nix": flake, "flake.lock": site.read("flake.lock")})
    make_git_flake(source, {"README": "newer\n"})


def _brought(site: Site) -> None:
    """A commit of a clone that changes the manifest, brought and not pushed yet."""
    clone = site.root / "clone"
    git(site.root, "clone", "--quiet", str(site.repository), str(clone))
    head = git(clone, "rev-parse", "HEAD")
    make_git_flake(clone, {MANIFEST: (clone / MANIFEST).read_text() + '\n[packages.perl]\nflake = "nixpkgs#perl"\n'})
    uploads = site.state / "uploads"
    uploads.mkdir(mode=0o700, exist_ok=True)
    git(clone, "bundle", "create", "--quiet", str(uploads / f"{os.getuid()}-{UPLOAD}"), f"{head}..HEAD", "HEAD")


def _nothing(_site: Site) -> None:
    """The repository as it is."""


Before = Callable[[Site], None]

CASES: Final[dict[str, list[tuple[dict[str, Any], Before]]]] = {
    "Init": [({"host": "desk", "user": "bob", "system": "aarch64-linux"}, _nothing)],
    "Add": [
        ({"refs": ["firefox"]}, _nothing),
        ({"refs": ["ripgrep", "path:./pkgs/x"], "scope": "home", "user": "alice"}, _nothing),
        ({"refs": ["firefox"]}, _edit),
        ({"refs": ["firefox"]}, _new_folder),
    ],
    "Remove": [({"names": ["hello", "y"]}, _nothing), ({"names": ["y"]}, _edit)],
    "Enable": [({"names": ["tmux"]}, _nothing)],
    "Disable": [({"names": ["hello", "y"]}, _nothing)],
    "Set": [
        ({"name": "hello", "changes": {"scope": "home", "user": "alice"}}, _nothing),
        ({"name": "y", "changes": {"flake": "path:./pkgs/x", "config.colour": "red"}}, _nothing),
    ],
    "Move": [({"names": ["hello", "y"], "scope": "home"}, _nothing)],
    "SetHost": [({"changes": {"default_scope": "home", "system": "aarch64-linux"}}, _nothing)],
    "RemoveHost": [({"name": "pi"}, _nothing)],
    "RenameHost": [({"name": "pi", "to": "pico"}, _nothing)],
    "Update": [({"inputs": ["moving"]}, _moved_source), ({}, _moved_source)],
    "Adopt": [({"message": "By hand"}, _edit)],
    "Push": [({"upload": UPLOAD}, _brought)],
    "Rollback": [({"steps": 2}, _nothing)],
    "Apply": [
        (
            {
                "operations": [
                    {"operation": "Remove", "names": ["y"]},
                    {"operation": "Add", "refs": ["firefox", "path:./pkgs/x"]},
                    {"operation": "Enable", "names": ["tmux"]},
                ]
            },
            _nothing,
        )
    ],
    "Regenerate": [({}, _edit)],
}
"""What is tried of each mutation, on a repository that has hello, a disabled tmux, y from a folder of its own, and the host pi."""


@pytest.fixture
def stocked(site: Site, daemon: RunningDaemon) -> Site:
    """The repository that the cases speak of."""
    site.commit({"pkgs/x/flake.nix": HELLO, "pkgs/y/flake.nix": HELLO})
    daemon.done("Add", refs=["hello", "tmux", "path:./pkgs/y"])
    daemon.done("Disable", names=["tmux"])
    daemon.done("Init", host="pi", user="bob", system="aarch64-linux")
    return site


def test_every_mutation_has_a_case_here() -> None:
    mutations = {name for name, row in api.OPERATIONS.items() if row.kind is Kind.MUTATION}
    mutations -= {
        "CollectGarbage",
        "Rebuild",
        "RememberGeneration",
    }  # which make no commit, and have dry runs of their own in tests of theirs
    assert set(CASES) == mutations, "try each mutation, in the cases above"


@pytest.mark.parametrize(
    ("operation", "parameters", "before"),
    [(name, parameters, before) for name, cases in CASES.items() for parameters, before in cases],
)
def test_dry_run_changes_nothing_and_the_real_run_does_what_it_said(
    stocked: Site, daemon: RunningDaemon, tmp_path: Path, operation: str, parameters: dict[str, Any], before: Before
) -> None:
    before(stocked)
    daemon.run("Regenerate", dry_run=True)  # whatever comes first takes note of what people committed
    trace = stocked.trace()
    head = stocked.git("rev-parse", "HEAD")
    dry = daemon.done(operation, **parameters, dry_run=True)
    assert stocked.trace() == trace
    assert dry["dry_run"]
    assert "commit" not in dry

    done = daemon.done(operation, **parameters)
    assert done["commit"] == stocked.git("rev-parse", "HEAD")
    assert stocked.git("rev-parse", "HEAD~1") == head
    assert stocked.trace() != trace, "the digest of the repository would not have shown a change"
    assert done["outcome"] == dry["outcome"]
    assert done["digest"] == dry["digest"]
    assert done["outcome"]["diff"]
    patched = _patched(stocked, head, dry["outcome"]["diff"], tmp_path / "patched")
    assert patched == _tree(stocked, "HEAD", tmp_path / "new")


def test_dry_run_of_a_tag_says_what_is_tagged_and_tags_nothing(stocked: Site, daemon: RunningDaemon) -> None:
    built = daemon.done("Rebuild", host="pi", action="dry-build")
    asked = {"build": built["id"], "generation": 7}
    trace, path = stocked.trace(), built["outcome"]["rebuild"]["output"]
    dry = daemon.done("RememberGeneration", **asked, dry_run=True)
    assert stocked.trace() == trace
    assert dry["outcome"]["summary"].endswith(f" as glix/gen/pi/7, with {path}")

    done = daemon.done("RememberGeneration", **asked)
    assert (done["outcome"], done["digest"], done["host"]) == (dry["outcome"], dry["digest"], "pi")
    assert stocked.git("rev-parse", "glix/gen/pi/7^{commit}") == built["outcome"]["rebuild"]["commit"]
    tag = stocked.git("cat-file", "tag", "glix/gen/pi/7")
    assert f"Glix-Store-Path: {path}\n" in tag
    assert f"Glix-Transaction: {built['id']}" in tag
    trace = stocked.trace()
    assert not daemon.done("RememberGeneration", **asked)["outcome"]["changed"]
    assert stocked.trace() == trace


def test_dry_run_of_the_first_init_makes_nothing(bare_site: Site, sources: Sources, tmp_path: Path) -> None:
    with RunningDaemon(bare_site) as daemon:
        parameters = bare_site.init_parameters(sources)
        dry = daemon.done("Init", **parameters, dry_run=True)
        assert not bare_site.repository.exists()
        assert not list(bare_site.repository.parent.glob(".glixos*"))
        done = daemon.done("Init", **parameters)
        assert done["outcome"] == dry["outcome"]
        (tmp_path / "patched").mkdir()
        _apply(tmp_path / "patched", dry["outcome"]["diff"])
        assert _files(tmp_path / "patched") == _tree(bare_site, "HEAD", tmp_path / "new")


def test_dry_run_of_what_fails_fails_in_the_same_way(stocked: Site, daemon: RunningDaemon) -> None:
    for operation, parameters in (
        ("Add", {"refs": ["hello"]}),
        ("Add", {"refs": ["nosuchthing"]}),
        ("Add", {"refs": ["path:./pkgs/none"]}),
        ("Remove", {"names": ["firefox"]}),
        ("Init", {"host": "laptop"}),
    ):
        trace = stocked.trace()
        dry = daemon.failed(operation, **parameters, dry_run=True)
        assert dry == daemon.failed(operation, **parameters), operation
        assert stocked.trace() == trace


def test_client_prints_the_diff_of_a_dry_run(stocked: Site) -> None:
    done = stocked.glixctl("add", "firefox", "--dry-run")
    assert done.returncode == Exit.DONE
    assert '+flake = "nixpkgs#firefox"' in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1].startswith("dry run: ")


def _patched(site: Site, commit: str, diff: str, folder: Path) -> dict[str, str]:
    """The files of a commit with a diff applied to them."""
    _tree(site, commit, folder)
    _apply(folder, diff)
    return _files(folder)


def _tree(site: Site, commit: str, folder: Path) -> dict[str, str]:
    """The files of a commit, which are written to `folder`."""
    names = site.git("ls-tree", "-r", "--name-only", commit).splitlines()
    write_files(folder, {name: site.committed(name, commit) for name in names})
    return _files(folder)


def _apply(folder: Path, diff: str) -> None:
    patch = folder.with_suffix(".diff")
    patch.write_text(diff)
    git(folder, "apply", str(patch))


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
