# SPDX-License-Identifier: GPL-3.0-or-later
"""Committing what people edited by hand: exactly that, with their words, and nothing that is broken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from glixd.errors import Refused
from glixd.model.change import ALL_HOSTS, Adopt
from glixd.protocol import ErrorCode, Exit
from tests.support.daemon import Answer, RunningDaemon, Site
from tests.support.hermetic import git, write_files
from tests.support.plain import MANIFEST, Workshop, add, make_plain_repository

pytestmark = [pytest.mark.integration, pytest.mark.nix]

GIT_PACKAGE = '\n[packages.git]\nflake = "nixpkgs#git" # by hand\n'


def adopted(site: Site) -> list[str]:
    """What the last commit says that it took over."""
    lines = site.git("log", "-1", "--format=%b").splitlines()
    return [line.removeprefix("Glix-Adopted: ") for line in lines if line.startswith("Glix-Adopted: ")]


def refused(daemon: RunningDaemon, **parameters: object) -> Answer:
    """The error of an adoption that must fail and leave no trace."""
    daemon.run("Regenerate", dry_run=True)  # whatever comes first takes note of what people committed
    trace = daemon.site.trace()
    error = daemon.failed("Adopt", **parameters)
    assert daemon.site.trace() == trace
    return error


def test_edits_of_managed_files_are_committed_with_their_message(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"shared/base.nix": "{ }\n"})
    flake, manifest = site.read("flake.nix").replace("My machines", "Our machines"), site.read(MANIFEST) + GIT_PACKAGE
    site.write({"flake.nix": flake, MANIFEST: manifest, "shared/base.nix": "{ } # mine\n", "new.txt": "new\n"})
    done = daemon.done("Adopt", message="A better name")
    assert sorted(adopted(site)) == ["flake.nix", MANIFEST]
    assert (site.committed("flake.nix"), site.committed(MANIFEST)) == (flake, manifest)
    assert site.git("log", "-1", "--format=%B").split("\n\n")[1] == "A better name"
    assert site.git("log", "-1", "--format=%s") == f"glix adopt all-hosts: flake.nix, {MANIFEST}"
    assert site.git("status", "--porcelain").split() == ["M", "shared/base.nix", "??", "new.txt"]
    assert site.evaluated()["system"] == ["git"]
    assert sorted(done["warnings"]) == [f"Took over the edit of {path}." for path in ("flake.nix", MANIFEST)]


def test_all_means_every_tracked_file_and_no_new_one(site: Site, daemon: RunningDaemon) -> None:
    binary = bytes(range(256)) * 40
    site.commit({"shared/base.nix": "{ }\n", "notes/a b.txt": "one\n", "gone.txt": "gone\n", "run.sh": "#!/bin/sh\n"})
    (site.repository / "run.sh").chmod(0o755)
    (site.repository / "picture").write_bytes(b"\0")
    site.git("add", "--all")
    site.git("commit", "--quiet", "--message", "More")
    site.write({"shared/base.nix": "{ } # mine\n", "notes/a b.txt": "two\n", "run.sh": "#!/bin/sh\nexit\n", "new": ""})
    (site.repository / "picture").write_bytes(binary)
    (site.repository / "gone.txt").unlink()
    assert site.glixctl("adopt").returncode == Exit.NOTHING_TO_DO, "none of them is managed"
    done = site.glixctl("adopt", "--all", "-m", "Everything")
    assert (done.returncode, done.stdout.split(" — ")[0]) == (
        Exit.DONE,
        "took over the edits of gone.txt, notes/a b.txt, picture and 2 more",
    )
    assert adopted(site) == ["gone.txt", "notes/a b.txt", "picture", "run.sh", "shared/base.nix"]
    assert site.git("status", "--porcelain") == "?? new"
    assert site.git("ls-tree", "HEAD", "run.sh").startswith("100755 ")
    shown = ["git", "-C", os.fspath(site.repository), "show", "HEAD:picture"]
    assert subprocess.run(shown, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout == binary
    assert "gone.txt" not in site.git("ls-tree", "--name-only", "HEAD").splitlines()
    assert site.evaluated()["system"] == []


def test_nothing_edited_is_no_commit(site: Site) -> None:
    assert site.glixctl("ping").returncode == Exit.DONE
    trace = site.trace()
    for words in (("adopt",), ("adopt", "--all")):
        done = site.glixctl(*words)
        assert (done.returncode, done.stderr) == (Exit.NOTHING_TO_DO, "")
    assert site.trace() == trace


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("[packages.git]\nflake = 7\n", 2),
        ("[packages.git]\n", 1),
        ("[packages.git\n", 1),
        ('[packages.git]\nflake = "path:./no#a..b"\n', None),
    ],
)
def test_broken_manifest_is_refused_with_path_and_line(
    site: Site, daemon: RunningDaemon, broken: str, line: int | None
) -> None:
    before = site.read(MANIFEST)
    site.write({MANIFEST: before + "\n" + broken})
    error = refused(daemon, everything=True)
    assert error["name"] == "ManifestInvalid"
    expected = f"{MANIFEST}:{before.count(chr(10)) + 1 + line}: " if line else MANIFEST
    assert error["message"].startswith(expected), error["message"]


def test_manifest_of_a_schema_that_nobody_knows_is_refused(site: Site, daemon: RunningDaemon) -> None:
    site.write({MANIFEST: site.read(MANIFEST).replace("schema = 1", "schema = 2")})
    assert refused(daemon)["message"].startswith(f"{MANIFEST}:")
    assert "schema = 1" in refused(daemon)["message"]


def test_managed_file_that_is_gone_is_refused_with_how_it_comes_back(site: Site, daemon: RunningDaemon) -> None:
    (site.repository / MANIFEST).unlink()
    error = refused(daemon, everything=True)
    assert (error["name"], error["hint"]) == ("ManagedFileEdited", f"Put it back with: git checkout -- {MANIFEST}")


def test_markers_that_are_gone_are_refused(site: Site, daemon: RunningDaemon) -> None:
    site.write({"flake.nix": site.read("flake.nix").replace("# <<< glix-managed hosts <<<", "")})
    assert refused(daemon)["name"] == "ManagedRegionBroken"


def test_regions_are_written_anew_from_the_manifests(site: Site, daemon: RunningDaemon) -> None:
    flake = site.read("flake.nix")
    site.write({"flake.nix": flake.replace('"laptop" "x86_64-linux"', '"laptop" "riscv64-linux"') + "# mine\n"})
    daemon.done("Adopt")
    assert site.committed("flake.nix") == flake + "# mine\n"
    assert site.read("flake.nix") == flake + "# mine\n"


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", '"quoted"', "no\udcfftext"])
def test_file_whose_name_is_no_plain_text_is_left_to_git(site: Site, daemon: RunningDaemon, name: str) -> None:
    odd = Path(os.fsencode(site.repository / name).decode(errors="surrogateescape"))
    odd.write_text("one\n")
    site.git("add", "--all")
    site.git("commit", "--quiet", "--message", "Odd")
    odd.write_text("two\n")
    assert refused(daemon, everything=True)["name"] == "ManagedFileEdited"
    daemon.done("Add", refs=["hello"])


def test_link_in_the_place_of_a_file_is_left_to_git(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"shared/base.nix": "{ }\n"})
    (site.repository / "shared/base.nix").unlink()
    (site.repository / "shared/base.nix").symlink_to("/etc/passwd")
    assert refused(daemon, everything=True)["name"] == "ReadOnly"
    daemon.done("Add", refs=["hello"])
    assert "root:" not in site.git("show", "HEAD:shared/base.nix")


def test_part_of_a_file_that_a_person_staged_stays_theirs(site: Site, daemon: RunningDaemon) -> None:
    site.commit({"shared/base.nix": "{ }\n"})
    site.write({"shared/base.nix": "{ } # staged\n", MANIFEST: site.read(MANIFEST) + GIT_PACKAGE})
    site.git("add", "shared/base.nix")
    daemon.done("Adopt")
    assert site.git("status", "--porcelain") == "M  shared/base.nix"


def test_daemon_of_a_system_takes_edits_over_only_when_asked(tmp_path: Path) -> None:
    make_plain_repository(tmp_path / "repository")
    workshop = Workshop(tmp_path / "repository", tmp_path / "state", owner_adopts=False)
    manifest = (tmp_path / "repository" / MANIFEST).read_text() + GIT_PACKAGE
    write_files(tmp_path / "repository", {MANIFEST: manifest})
    try:
        with pytest.raises(Refused) as edited:
            workshop.run(add("hello"))
        assert edited.value.code is ErrorCode.MANAGED_FILE_EDITED
        assert workshop.run(Adopt(ALL_HOSTS, None, everything=False)).commit
        assert git(tmp_path / "repository", "show", f"HEAD:{MANIFEST}") == manifest.strip()
        assert workshop.run(add("hello")).commit
    finally:
        workshop.close()
