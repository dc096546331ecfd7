# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits as transactions: a clone through the daemon, commits in it, and their way onto the branch."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import MAX_UPLOAD, UPLOAD_PIECE, Exit
from tests.support.daemon import RpcError, RunningDaemon, Site
from tests.support.hermetic import git, write_files

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HOST_FILE = "hosts/laptop/default.nix"
MANIFEST = "hosts/laptop/glix.toml"
QUIET = {"GLIXD_INDEX": "false"}


@pytest.fixture
def daemon(site: Site) -> Iterator[RunningDaemon]:
    with RunningDaemon(site, extra=QUIET) as running:
        yield running


@pytest.fixture
def clone(site: Site, daemon: RunningDaemon) -> Path:
    """A clone that glixctl made."""
    folder = site.home / "clone"
    done = site.glixctl("clone", str(folder))
    assert done.returncode == Exit.DONE, done.stderr
    return folder


def commit(folder: Path, files: dict[str, str], message: str = "Mine") -> str:
    write_files(folder, files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def push(site: Site, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return site.glixctl("push", "--folder", str(folder), *more)


def with_line(site: Site, line: str) -> str:
    """The file of the host with a line at its end."""
    return site.committed(HOST_FILE) + f"# {line}\n"


def leftovers(site: Site) -> list[str]:
    folder = site.state / "uploads"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- the way there -----------------------------------------------------------------------------------------------


def test_a_clone_shows_the_branch_and_knows_no_path_of_the_repository(site: Site, clone: Path) -> None:
    assert git(clone, "rev-parse", "HEAD") == site.git("rev-parse", "HEAD")
    assert git(clone, "branch", "--show-current") == "main"
    assert git(clone, "status", "--porcelain") == ""
    assert str(site.repository) not in (clone / ".git" / "config").read_text()


def test_a_clone_tells_a_script_where_it_is(site: Site, daemon: RunningDaemon) -> None:
    assert daemon.call("Ping")
    folder = site.home / "other"
    done = site.glixctl("clone", "--json", str(folder))
    assert json.loads(done.stdout) == {"folder": str(folder), "branch": "main", "commit": site.git("rev-parse", "HEAD")}


def test_a_folder_with_something_in_it_is_no_place_for_a_clone(site: Site, daemon: RunningDaemon) -> None:
    write_files(site.home / "full", {"mine": "x"})
    done = site.glixctl("clone", str(site.home / "full"))
    assert (done.returncode, "not empty" in done.stderr) == (Exit.USAGE, True)
    assert [path.name for path in (site.home / "full").iterdir()] == ["mine"]


def test_a_bundle_comes_in_pieces_of_which_none_is_too_long(site: Site, daemon: RunningDaemon) -> None:
    big = b"".join(bytes([number % 251]) * 7 + bytes(str(number), "ascii") for number in range(60_000))
    (site.repository / "big").write_bytes(big)
    site.git("add", "big")
    site.git("commit", "--quiet", "--message", "Big")
    whole, parameters = b"", dict[str, Any]()
    while True:
        piece = daemon.call("GetBundle", **parameters)
        data = base64.b64decode(piece["data"])
        assert 0 < len(data) <= UPLOAD_PIECE
        whole += data
        if piece.get("next") is None:
            break
        parameters = {"commit": piece["commit"], "offset": piece["next"]}
    assert len(whole) == piece["size"] > UPLOAD_PIECE
    bundle = site.home / "bundle"
    bundle.write_bytes(whole)
    assert piece["commit"] in git(site.home, "bundle", "list-heads", str(bundle))


# -- pushing -----------------------------------------------------------------------------------------------------


def test_commits_come_onto_the_branch_with_their_authors_and_who_brought_them(site: Site, clone: Path) -> None:
    before = site.git("rev-parse", "HEAD")
    commit(clone, {HOST_FILE: with_line(site, "one")}, "First\n\nBecause.")
    commit(clone, {"shared/new.nix": "{ }\n"}, "Second")
    done = push(site, clone, "--reason", "as agreed")
    assert done.returncode == Exit.DONE, done.stderr
    assert "pushed 2 commits" in done.stdout
    told = site.git(
        "log", "--reverse", "--format=%s|%an|%cn|%(trailers:key=Glix-Uid,valueonly,separator=)", f"{before}..HEAD"
    )
    assert told.splitlines() == ["First|Test|glixd|0", "Second|Test|glixd|0"]
    assert site.read(HOST_FILE).endswith("# one\n")
    assert site.read("shared/new.nix") == "{ }\n"
    assert site.git("status", "--porcelain") == ""
    assert site.git("fsck", "--strict") == ""
    assert git(clone, "rev-parse", "HEAD") == site.git("rev-parse", "HEAD"), "the clone follows"
    assert git(clone, "status", "--porcelain") == ""
    assert leftovers(site) == []


def test_history_says_which_transaction_brought_a_commit_and_a_rollback_steps_over_it(site: Site, clone: Path) -> None:
    site.glixctl("add", "firefox")
    commit(clone, {"notes": "x\n"}, "Notes")
    assert push(site, clone).returncode == Exit.DONE
    listed = site.glixctl("history", "--json").stdout
    assert listed.count('"transaction"') >= 2
    assert site.glixctl("rollback").returncode == Exit.DONE
    assert site.read("notes") == "x\n"
    assert "firefox" not in site.read(MANIFEST)


def test_where_the_branch_moved_on_commits_are_put_on_top_and_merged(site: Site, clone: Path) -> None:
    site.glixctl("add", "firefox")
    theirs = site.commit({HOST_FILE: "# theirs\n" + site.committed(HOST_FILE)})
    commit(clone, {HOST_FILE: git(clone, "show", f"HEAD:{HOST_FILE}") + "\n# mine\n"}, "Mine")
    done = push(site, clone)
    assert done.returncode == Exit.DONE, done.stderr
    assert site.git("rev-parse", "HEAD~1") == theirs
    assert site.read(HOST_FILE).startswith("# theirs\n")
    assert site.read(HOST_FILE).endswith("# mine\n")
    assert "firefox" in site.read(MANIFEST)
    assert git(clone, "rev-parse", "HEAD") == site.git("rev-parse", "HEAD")


def test_a_conflict_is_shown_leaves_nothing_behind_and_is_resolved_by_a_rebase(site: Site, clone: Path) -> None:
    site.commit({HOST_FILE: with_line(site, "theirs")})
    commit(clone, {HOST_FILE: git(clone, "show", f"HEAD:{HOST_FILE}") + "\n# mine\n"})
    before = site.trace()
    done = push(site, clone)
    assert done.returncode == Exit.REFUSED
    assert HOST_FILE in done.stderr
    assert "git rebase glixd/main" in done.stderr
    assert {path: text for path, text in site.trace().items() if "glix/" not in path} == {
        path: text for path, text in before.items() if "glix/" not in path
    }
    assert leftovers(site) == []
    with pytest.raises(subprocess.CalledProcessError):
        git(clone, "rebase", "glixd/main")
    write_files(clone, {HOST_FILE: site.committed(HOST_FILE) + "# mine\n"})
    git(clone, "add", HOST_FILE)
    git(clone, "-c", "core.editor=true", "rebase", "--continue")
    assert push(site, clone).returncode == Exit.DONE
    assert site.read(HOST_FILE).endswith("# theirs\n# mine\n")


def test_an_edit_of_a_manifest_writes_the_regions_too(site: Site, clone: Path, sources: Any) -> None:
    table = f'\n[packages.hello]\nflake = "{sources.hello}"\nscope = "system"\n'
    commit(clone, {MANIFEST: site.committed(MANIFEST) + table}, "By hand")
    done = push(site, clone)
    assert done.returncode == Exit.DONE, done.stderr
    assert '"hello"' in site.committed("flake.nix")
    assert "hello" in site.lock_nodes()
    assert site.evaluated()["system"] == ["pkg-hello"]
    assert site.commits()[-2] == "By hand"


def test_a_dry_run_shows_everything_together_and_changes_nothing(site: Site, clone: Path) -> None:
    commit(clone, {"a": "1\n"})
    commit(clone, {"a": "2\n", "b": "x\n"})
    head, mine = site.git("rev-parse", "HEAD"), git(clone, "rev-parse", "HEAD")
    done = push(site, clone, "--dry-run")
    assert done.returncode == Exit.DONE, done.stderr
    assert "+2" in done.stdout
    assert "+1" not in done.stdout.replace("+1,", "").replace("+1 @@", "")
    assert (site.git("rev-parse", "HEAD"), git(clone, "rev-parse", "HEAD")) == (head, mine)
    assert push(site, clone).returncode == Exit.DONE


def test_what_is_there_already_is_nothing_to_do(site: Site, clone: Path) -> None:
    assert push(site, clone).returncode == Exit.NOTHING_TO_DO
    site.commit({"notes": "same\n"})
    commit(clone, {"notes": "same\n"}, "The same")
    assert push(site, clone).returncode == Exit.NOTHING_TO_DO


def test_what_is_not_committed_in_the_clone_stays_there(site: Site, clone: Path) -> None:
    commit(clone, {"a": "1\n"})
    write_files(clone, {HOST_FILE: "open edit\n"})
    done = push(site, clone)
    assert done.returncode == Exit.DONE
    assert "stays here" in done.stderr
    assert (clone / HOST_FILE).read_text() == "open edit\n"
    assert site.read("a") == "1\n"


def test_modes_deletions_and_renames_come_along(site: Site, clone: Path) -> None:
    site.commit({"old": "text\n" * 20, "gone": "x\n"})
    assert site.glixctl("clone", str(site.home / "second")).returncode == Exit.DONE
    second = site.home / "second"
    (second / "script").write_text("#!/bin/sh\n")
    (second / "script").chmod(0o755)
    git(second, "mv", "old", "new")
    git(second, "rm", "--quiet", "gone")
    git(second, "add", "script")
    git(second, "commit", "--quiet", "--message", "Move")
    assert push(site, second).returncode == Exit.DONE
    assert site.git("ls-tree", "HEAD", "script").startswith("100755")
    assert not (site.repository / "gone").exists()
    assert site.read("new") == "text\n" * 20
    assert site.git("status", "--porcelain") == ""


def test_another_folder_is_no_clone(site: Site, daemon: RunningDaemon) -> None:
    done = push(site, site.home)
    assert (done.returncode, "glixctl clone FOLDER" in done.stderr) == (Exit.USAGE, True)


# -- what is refused ---------------------------------------------------------------------------------------------


def forged(folder: Path) -> None:
    commit(folder, {"a": "x\n"}, "Mine\n\nGlix-Trust: trusted")


def submodule(folder: Path) -> None:
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{git(folder, 'rev-parse', 'HEAD')},inner")
    git(folder, "commit", "--quiet", "--message", "Inner")


def link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/shadow")
    git(folder, "add", "link")
    git(folder, "commit", "--quiet", "--message", "Link")


def merge(folder: Path) -> None:
    commit(folder, {"a": "x\n"})
    git(folder, "checkout", "--quiet", "-b", "side", "HEAD~1")
    commit(folder, {"b": "x\n"})
    git(folder, "merge", "--quiet", "--no-edit", "main")


def escape(folder: Path) -> None:
    commit(folder, {"a": "x\n"}, "Red \x1b[31m")


def newline(folder: Path) -> None:
    commit(folder, {"a\nb": "x\n"})


def broken(folder: Path) -> None:
    commit(folder, {MANIFEST: "schema = 2\n"})


def bomb(folder: Path) -> None:
    commit(folder, {"zeros": "\0" * (MAX_UPLOAD + 1)})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (forged, "Glix-"),
        (submodule, "link or a submodule"),
        (link, "link or a submodule"),
        (merge, "is a merge"),
        (escape, "can't be printed"),
        (newline, "no plain text"),
        (broken, "schema"),
        (bomb, "MiB"),
    ],
)
def test_what_can_not_be_kept_is_refused_and_leaves_nothing_behind(
    site: Site, clone: Path, make: Callable[[Path], None], words: str
) -> None:
    head = site.git("rev-parse", "HEAD")
    make(clone)
    done = push(site, clone)
    assert done.returncode not in (Exit.DONE, Exit.NOTHING_TO_DO)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert site.git("rev-parse", "HEAD") == head
    assert site.git("status", "--porcelain") == ""
    assert not any(name.startswith("opened") for name in leftovers(site))


def sent(daemon: RunningDaemon, data: bytes) -> str:
    upload: str = daemon.call("Upload", data=base64.b64encode(data).decode())["upload"]
    return upload


def test_what_is_no_bundle_is_refused(site: Site, daemon: RunningDaemon) -> None:
    assert daemon.failed("Push", upload=sent(daemon, b"no bundle at all"))["message"].startswith("What was brought")
    assert daemon.failed("Push", upload="0" * 32)["name"] == "InvalidArgument"


def test_commits_that_share_no_history_are_refused(site: Site, daemon: RunningDaemon, tmp_path: Path) -> None:
    write_files(tmp_path / "other", {"a": "x"})
    git(tmp_path / "other", "init", "--quiet")
    commit(tmp_path / "other", {"b": "y"})
    git(tmp_path / "other", "bundle", "create", "--quiet", str(tmp_path / "bundle"), "HEAD")
    error = daemon.failed("Push", upload=sent(daemon, (tmp_path / "bundle").read_bytes()))
    assert "no history" in error["message"]


@pytest.mark.parametrize(
    ("parameters", "argument"),
    [
        ({"data": "***"}, "data"),
        ({"data": "QQ==", "offset": 5}, "offset"),
        ({"data": "QQ==", "upload": "0" * 32}, "upload"),
        ({"data": "QQ==", "upload": "../../etc/passwd"}, "upload"),
    ],
)
def test_a_piece_that_does_not_fit_is_refused(daemon: RunningDaemon, parameters: dict[str, Any], argument: str) -> None:
    with pytest.raises(RpcError) as refused:
        daemon.call("Upload", **parameters)
    assert refused.value.name == "InvalidArgument"
    assert argument in refused.value.message


def test_uploads_have_a_limit_and_a_new_one_takes_the_place_of_the_one_before(
    site: Site, daemon: RunningDaemon
) -> None:
    piece = base64.b64encode(bytes(UPLOAD_PIECE)).decode()
    with daemon.connect() as client:
        first = client.call("Upload", data=piece)["upload"]
        second = client.call("Upload", data=piece)
        with pytest.raises(RpcError) as gone:
            client.call("Upload", data=piece, upload=first, offset=UPLOAD_PIECE)
        assert gone.value.name == "InvalidArgument"
        upload, size = second["upload"], second["size"]
        while size + UPLOAD_PIECE <= MAX_UPLOAD:
            size = client.call("Upload", data=piece, upload=upload, offset=size)["size"]
        with pytest.raises(RpcError) as full:
            client.call("Upload", data=piece, upload=upload, offset=size)
        assert full.value.name == "TooLarge"
    assert leftovers(site) == []
