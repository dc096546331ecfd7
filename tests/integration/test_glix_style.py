# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository as glix wrote them, with a `mkHost` of its own, works unchanged; a core that is too old says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.protocol import DEFAULT_CORE_URL, Exit
from tests.support.daemon import Site, new_site
from tests.support.hermetic import CORE_FILES, PROJECT, HermeticNix, commit_all, copy_git_flake, make_git_flake
from tests.support.repositories import EXAMPLES, GLIX_STYLE, Sources, localised_copy

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"


def repository_of_glix(site: Site, sources: Sources) -> None:
    """Give a site the repository that glix left, locked and committed."""
    localised_copy(GLIX_STYLE, site.repository, sources)
    commit_all(site.repository, "glix add")
    site.nix.lock(site.repository)
    commit_all(site.repository, "Lock")


@pytest.fixture
def glix(tmp_path: Path, nix: HermeticNix, sources: Sources) -> Iterator[Site]:
    """A home with a repository of glix."""
    with new_site(tmp_path / "glix", nix) as site:
        repository_of_glix(site, sources)
        yield site


@pytest.fixture
def old(tmp_path: Path, nix: HermeticNix, sources: Sources) -> Iterator[Site]:
    """The same, with a core that does not say what it understands."""
    library = (PROJECT / "core/lib/default.nix").read_text()
    copy_git_flake(PROJECT, tmp_path / "core", CORE_FILES)
    files = {"core/lib/default.nix": library.replace("manifestFeatures =", "features =")}
    core = make_git_flake(tmp_path / "core", files)
    with new_site(tmp_path / "old", nix) as site:
        repository_of_glix(site, Sources(sources.nixpkgs, core, sources.home_manager, sources.greeting, sources.hello))
        yield site


def test_list_shows_what_glix_installed(glix: Site, sources: Sources) -> None:
    assert [line.split() for line in glix.glixctl("list", "-q").stdout.splitlines()][1:] == [
        ["laptop", "greeting", "home", "enabled", "alice", sources.greeting],
        ["laptop", "pkg-hello", "system", "enabled", sources.hello],
    ]
    info = json.loads(glix.glixctl("info", "--json").stdout)
    assert [one["name"] for one in info["inputs"] if one["managed"]] == ["greeting", "pkg-hello"]


def test_what_glix_installed_evaluates_as_before_after_every_change(glix: Site) -> None:
    glix.commit({"pkgs/x/flake.nix": (EXAMPLES / "pkg-hello/flake.nix").read_text()})
    before = glix.evaluated()
    assert glix.glixctl("add", "firefox").returncode == Exit.DONE
    assert glix.evaluated()["system"] == ["firefox", "git", "glixd", "pkg-hello", "tmux"]
    added = glix.glixctl("add", "path:./pkgs/x", "--scope", "home", "--user", "alice")
    assert added.returncode == Exit.DONE, added.stderr
    assert glix.evaluated()["homes"] == {"alice": ["pkg-greeting", "pkg-hello"]}
    assert glix.glixctl("remove", "x", "firefox").returncode == Exit.DONE
    assert glix.evaluated() == before
    assert glix.glixctl("remove", "greeting").returncode == Exit.DONE
    assert glix.evaluated()["homes"] == {}


def test_outside_of_the_regions_not_a_byte_changes(glix: Site) -> None:
    glix.commit({"pkgs/x/flake.nix": (EXAMPLES / "pkg-hello/flake.nix").read_text()})
    flake, manifest = glix.committed("flake.nix"), glix.committed(MANIFEST)
    assert glix.glixctl("add", "path:./pkgs/x").returncode == Exit.DONE
    assert outside(glix.committed("flake.nix")) == outside(flake)
    assert glix.committed(MANIFEST).startswith(manifest.rstrip("\n"))
    assert glix.glixctl("remove", "x").returncode == Exit.DONE
    assert glix.committed(MANIFEST).rstrip("\n") == manifest.rstrip("\n")


def test_host_of_the_repository_can_be_joined_by_another(glix: Site) -> None:
    added = glix.glixctl("init", "--host", "desk", "--user", "bob", "--system", "x86_64-linux")
    assert added.returncode == Exit.DONE, added.stderr
    assert 'mkHost "desk" "x86_64-linux"' in glix.committed("flake.nix")
    assert glix.glixctl("add", "--host", "desk", "hello").returncode == Exit.DONE
    assert glix.evaluated("desk")["system"] == ["glixd", "hello"]


def test_core_that_does_not_understand_a_change_is_refused_with_what_to_do(old: Site) -> None:
    assert old.glixctl("ping").returncode == Exit.DONE  # at first contact the branch is recorded
    before = old.trace()
    refused = old.glixctl("add", "firefox", "--json")
    assert refused.returncode == Exit.REFUSED
    error = json.loads(refused.stdout)["error"]
    assert error["name"] == "CoreTooOld"
    assert error["details"] == {"missing": ["host-attributes"]}
    assert DEFAULT_CORE_URL in error["hint"]
    assert "glixos-core" in error["hint"]
    assert old.trace() == before


def test_change_that_needs_nothing_new_works_with_an_old_core(old: Site) -> None:
    old.commit({"pkgs/x/flake.nix": (EXAMPLES / "pkg-hello/flake.nix").read_text()})
    assert old.glixctl("remove", "pkg-hello").returncode == Exit.DONE
    assert old.glixctl("add", "path:./pkgs/x").returncode == Exit.DONE
    assert old.evaluated()["system"] == ["git", "glixd", "pkg-hello", "tmux"]


def test_edit_that_lets_the_core_point_to_a_newer_one_is_the_remedy(old: Site, sources: Sources) -> None:
    assert old.glixctl("add", "firefox").returncode == Exit.REFUSED
    flake = old.read("flake.nix")
    core = next(line for line in flake.splitlines() if "/core?" in line)
    old.write({"flake.nix": flake.replace(core, f'      url = "{sources.core}";')})
    taken_over = old.glixctl("regen")
    assert taken_over.returncode == Exit.DONE, taken_over.stderr
    assert "Glix-Adopted: flake.nix" in old.git("log", "-1", "--format=%b").splitlines()
    added = old.glixctl("add", "firefox")
    assert added.returncode == Exit.DONE, added.stderr
    assert old.evaluated()["system"] == ["firefox", "git", "glixd", "pkg-hello", "tmux"]


def outside(flake: str) -> list[str]:
    """The lines of a flake.nix outside of what glixd writes."""
    kept, within = [], False
    for line in flake.splitlines():
        within = within or line.strip().startswith("# >>>")
        if not within:
            kept.append(line)
        within = within and not line.strip().startswith("# <<<")
    return kept
