# SPDX-License-Identifier: GPL-3.0-or-later
"""Tidying the object store: what is loose is packed, packs are merged, old waste goes, and nothing else ever does."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glixd.backends.git import RefUpdate
from glixd.backends.packs import GRACE, Packs, Tidied
from glixd.backends.process import Cancellation
from glixd.errors import Cancelled, Failed
from glixd.protocol import ErrorCode
from tests.support.hermetic import git
from tests.support.plain import Workshop, add

OLD = time.time() - GRACE - 3600


@pytest.fixture
def packs(workshop: Workshop) -> Packs:
    """The packs of the repository, tidied wherever there is room at all."""
    return Packs(workshop.git, many=3, needed=(0, 0))


def tidy(packs: Packs) -> Tidied:
    return packs.tidy(Cancellation())


def objects(root: Path) -> set[str]:
    """The name of every object, whatever refers to it."""
    return set(git(root, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").splitlines())


def written(root: Path, text: str, *, old: bool = False) -> str:
    """An object that nothing refers to."""
    argv = ["git", "-C", os.fspath(root), "hash-object", "-w", "--stdin"]
    oid = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout.strip()
    if old:
        os.utime(loose(root, oid), (OLD, OLD))
    return oid


def loose(root: Path, oid: str) -> Path:
    return root / ".git" / "objects" / oid[:2] / oid[2:]


def pack_files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".git" / "objects" / "pack").iterdir())


def healthy(root: Path) -> None:
    """Nothing is damaged or missing, and nothing of a tidying is left."""
    argv = ["git", "-C", os.fspath(root), "fsck", "--strict", "--no-dangling", "--no-progress"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (root / ".git" / "glix" / "packing").exists()
    assert not [name for name in pack_files(root) if name.startswith("tmp_")]


def test_what_is_referred_to_is_packed_and_reads_as_before(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    for number in range(5):
        workshop.run(add(f"package-{number}"))
    before, history = objects(root), git(root, "log", "--patch")
    count = packs.loose()
    assert tidy(packs) == Tidied(packed=count)
    assert packs.loose() == 0
    assert objects(root) == before
    assert git(root, "log", "--patch") == history
    healthy(root)
    assert workshop.run(add("after")).commit
    assert tidy(packs).packed > 0
    healthy(root)


def test_nothing_to_do_is_done_in_no_time_and_leaves_no_trace(workshop: Workshop, packs: Packs) -> None:
    tidy(packs)
    before = pack_files(workshop.root)
    assert tidy(packs) == Tidied()
    assert pack_files(workshop.root) == before


def test_what_a_person_staged_or_gave_up_lately_is_kept(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    git(root, "checkout", "--quiet", "-b", "short")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "given up")
    lost = git(root, "rev-parse", "HEAD")
    git(root, "checkout", "--quiet", "main")
    git(root, "branch", "--quiet", "-D", "short")
    (root / "staged.txt").write_text("staged")
    git(root, "add", "staged.txt")
    (root / "staged.txt").unlink()
    waste = written(root, "nobody refers to this")
    tidy(packs)
    assert git(root, "show", ":staged.txt") == "staged"
    assert git(root, "cat-file", "-t", lost) == "commit"
    assert loose(root, waste).exists()
    healthy(root)


def test_what_nothing_refers_to_goes_when_it_is_old(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    young, old = written(root, "young"), written(root, "old", old=True)
    assert tidy(packs).pruned == 1
    assert loose(root, young).exists()
    assert not loose(root, old).exists()
    healthy(root)


def test_nothing_is_pruned_while_a_change_holds_the_repository(workshop: Workshop, packs: Packs) -> None:
    old = written(workshop.root, "old", old=True)
    with workshop.repository.locked():
        done = tidy(packs)
    assert done.packed > 0
    assert done.pruned == 0
    assert loose(workshop.root, old).exists()


class Meddled(Packs):
    """Packs in whose repository something happens between looking for waste and deleting it."""

    meddle: Callable[[], object]

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        self.meddle()
        with super()._alone() as alone:
            yield alone


def test_waste_stays_where_a_change_was_made_meanwhile(workshop: Workshop) -> None:
    root = workshop.root
    old = written(root, "old", old=True)
    packs = Meddled(workshop.git, needed=(0, 0))
    packs.meddle = lambda: workshop.run(add("meanwhile"))
    assert tidy(packs).pruned == 0
    assert loose(root, old).exists()
    healthy(root)


def test_waste_stays_where_another_branch_moved_meanwhile(workshop: Workshop) -> None:
    root = workshop.root
    git(root, "branch", "other")
    old = written(root, "old", old=True)
    commit = git(root, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "elsewhere")
    packs = Meddled(workshop.git, needed=(0, 0))
    packs.meddle = lambda: git(root, "update-ref", "refs/heads/other", commit)
    assert tidy(packs).pruned == 0
    assert loose(root, old).exists()


def test_waste_that_is_written_again_meanwhile_stays(workshop: Workshop) -> None:
    root = workshop.root
    old = written(root, "old", old=True)
    packs = Meddled(workshop.git, needed=(0, 0))
    packs.meddle = lambda: written(root, "old")
    assert tidy(packs).pruned == 0
    assert loose(root, old).exists()


def test_small_packs_become_one_with_everything_in_it(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    counts = []
    for number in range(7):
        workshop.run(add(f"package-{number}"))
        before = objects(root)
        tidy(packs)
        assert objects(root) == before
        counts.append(sum(name.endswith(".idx") for name in pack_files(root)))
        healthy(root)
    assert counts == [1, 2, 1, 2, 1, 2, 1]
    assert workshop.git.ref("HEAD") == git(root, "rev-parse", "HEAD")


def test_packs_that_somebody_keeps_are_not_merged(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    folder = root / ".git" / "objects" / "pack"
    tidy(packs)
    (kept,) = folder.glob("*.idx")
    kept.with_suffix(".keep").write_text("")
    for number in range(3):
        workshop.run(add(f"package-{number}"))
        tidy(packs)
    assert kept.exists()
    assert len(list(folder.glob("*.idx"))) == 2


def test_packs_of_waste_keep_it_when_they_are_merged(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    git(root, "checkout", "--quiet", "-b", "short")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "given up")
    lost = git(root, "rev-parse", "HEAD")
    tidy(packs)
    git(root, "checkout", "--quiet", "main")
    git(root, "branch", "--quiet", "-D", "short")
    git(root, "reflog", "expire", "--expire=now", "--all")
    for number in range(3):
        workshop.run(add(f"package-{number}"))
        tidy(packs)
    assert git(root, "cat-file", "-t", lost) == "commit"


def test_repository_with_sha256_is_tidied_too(tmp_path: Path) -> None:
    from tests.support.plain import make_plain_repository

    root = tmp_path / "long"
    make_plain_repository(root, object_format="sha256")
    workshop = Workshop(root, tmp_path / "state")
    try:
        workshop.run(add("firefox"))
        old = written(root, "old", old=True)
        done = tidy(Packs(workshop.git, needed=(0, 0)))
        assert done.packed > 5
        assert done.pruned == 1
        assert not loose(root, old).exists()
        healthy(root)
    finally:
        workshop.close()


def test_it_waits_for_a_gc_of_a_person(workshop: Workshop, packs: Packs) -> None:
    (workshop.root / ".git" / "gc.pid").write_text(f"{os.getpid()} here")
    with pytest.raises(Failed) as refused:
        tidy(packs)
    assert refused.value.code is ErrorCode.BUSY
    assert pack_files(workshop.root) == []


def test_without_room_nothing_is_begun(workshop: Workshop) -> None:
    with pytest.raises(Failed) as refused:
        Packs(workshop.git, needed=(1 << 62, 0)).tidy(Cancellation())
    assert refused.value.code is ErrorCode.NO_SPACE
    assert pack_files(workshop.root) == []


def test_damaged_loose_object_is_not_hidden_in_a_pack(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    blob = git(root, "rev-parse", "HEAD:flake.nix")
    before = sorted((root / ".git" / "objects").rglob("*"))
    path = loose(root, blob)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    with pytest.raises(Failed):
        tidy(packs)
    assert [one for one in before if not one.exists()] == []
    assert pack_files(root) == []
    assert not (root / ".git" / "glix" / "packing").exists()


def test_object_under_a_wrong_name_is_not_packed(workshop: Workshop, packs: Packs) -> None:
    """git packs a loose object as it is; what the pack then says of itself does not fit the name."""
    root = workshop.root
    blob, other = git(root, "rev-parse", "HEAD:flake.nix"), written(root, "something else")
    loose(root, blob).unlink()
    os.link(loose(root, other), loose(root, blob))
    with pytest.raises(Failed):
        tidy(packs)
    assert loose(root, blob).exists()
    assert pack_files(root) == []


class Stopped(Packs):
    """Packs whose tidying is cancelled before one of its steps."""

    def __init__(self, *arguments: object, before: str, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._before = before

    def _place(self, index: Path) -> None:
        if self._before == "place":
            raise Cancelled("now")
        super()._place(index)
        if self._before == "delete":
            raise Cancelled("now")


@pytest.mark.parametrize("moment", ["place", "delete"])
def test_stopped_in_the_middle_nothing_is_lost_and_the_next_time_finishes(workshop: Workshop, moment: str) -> None:
    root = workshop.root
    before, count = objects(root), Packs(workshop.git).loose()
    with pytest.raises(Cancelled):
        tidy(Stopped(workshop.git, needed=(0, 0), before=moment))
    assert objects(root) == before
    healthy(root)
    packs = Packs(workshop.git, needed=(0, 0))
    assert packs.loose() == count
    assert tidy(packs).packed == count
    assert objects(root) == before
    healthy(root)


def test_pack_of_a_killed_tidying_without_an_index_is_taken_away(workshop: Workshop, packs: Packs) -> None:
    root = workshop.root
    own, folder = root / ".git" / "glix" / "packing" / "pack", root / ".git" / "objects" / "pack"
    own.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    (own / "pack-1234.pack").write_bytes(b"PACK")
    os.link(own / "pack-1234.pack", folder / "pack-1234.pack")
    (folder / "pack-5678.pack").write_bytes(b"somebody else is at it")
    tidy(packs)
    assert not (folder / "pack-1234.pack").exists()
    assert (folder / "pack-5678.pack").exists()


def test_temporary_files_of_gits_that_died_long_ago_go(workshop: Workshop, packs: Packs) -> None:
    folder = workshop.root / ".git" / "objects"
    (folder / "pack").mkdir(exist_ok=True)
    (folder / "aa").mkdir(exist_ok=True)
    left = [folder / "aa" / "tmp_obj_left", folder / "pack" / "tmp_pack_left"]
    alive = [folder / "aa" / "tmp_obj_alive", folder / "pack" / "tmp_idx_alive"]
    for path in (*left, *alive):
        path.write_bytes(b"")
    for path in left:
        os.utime(path, (OLD, OLD))
    tidy(packs)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in alive)


@pytest.fixture
def many(workshop: Workshop) -> Workshop:
    """A repository with a history."""
    for number in range(20):
        workshop.run(add(f"package-{number}"))
    return workshop


def test_readers_find_everything_while_it_goes_from_loose_to_packed(many: Workshop, packs: Packs) -> None:
    """A reader that has looked the packs up already looks again."""
    commits = git(many.root, "rev-list", "HEAD").split()
    assert all(many.git.read(f"{oid}^{{tree}}") for oid in commits[::2])
    tidy(packs)
    assert all(many.git.read(f"{oid}^{{tree}}") for oid in commits)
    assert all(many.git.read(f"{oid}:flake.nix") for oid in commits)


def test_change_and_tidying_at_once_are_both_done(many: Workshop, packs: Packs) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        for number in range(10):
            future = pool.submit(tidy, packs)
            base = git(many.root, "rev-parse", "HEAD")
            result = many.run(add(f"beside-{number}"))
            assert git(many.root, "rev-parse", "HEAD~1") == base
            assert result.commit == git(many.root, "rev-parse", "HEAD")
            future.result()
    tidy(packs)
    assert packs.loose() == 0
    healthy(many.root)
    assert many.git.update_refs([RefUpdate("refs/heads/other", git(many.root, "rev-parse", "HEAD"), None)], keep=())
