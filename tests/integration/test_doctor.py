# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor: quiet where all is well, and every check of it turns red when what it looks at is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glixd import api
from glixd.backends.evaluator import OwnEvaluator
from glixd.backends.index import Indexes
from glixd.backends.nix import Nix
from glixd.backends.process import Processes
from glixd.backends.registry import Registries
from glixd.backends.repository import Repository
from glixd.backends.state import Database
from glixd.doctor import MACHINE, REPOSITORY, Doctor, Patient, has_user
from glixd.health import HealthKeeper
from glixd.locking import Locker
from glixd.protocol import Exit
from glixd.resolvers.asking import Facts
from tests.support.daemon import RunningDaemon, Site
from tests.support.hermetic import commit_all, git, write_files
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST = "hosts/laptop/glix.toml"
HELLO = (EXAMPLES / "pkg-hello/flake.nix").read_text()


def made(site: Site, **environment: str) -> Patient:
    """What a daemon on this site would examine."""
    processes = Processes({**site.environment(environment), "HOME": os.fspath(site.home)})
    repository = Repository(site.repository, processes)
    nix = Nix(processes, OwnEvaluator(processes, repository.root, site.root))
    database = Database(site.root / "examined" / "state.db")
    registries = Registries(site.root / "registries", (), {}, age=0, allow_files=False)
    return Patient(
        repository=repository,
        nix=nix,
        locker=Locker(nix),
        facts=Facts(nix, database, Indexes(site.root / "index"), registries),
        health=HealthKeeper(nix, database),
        database=database,
        machine="laptop",
        state=site.root / "examined",
        bus=lambda: None,
        authority=lambda: None,
        has_user=lambda name: name == "alice",
        low_bytes=0,
    )


@pytest.fixture
def patient(site: Site) -> Iterator[Patient]:
    """A patient in good health."""
    whole = made(site)
    yield whole
    whole.repository.close()
    whole.database.close()


def examined(patient: Patient, **asked: bool) -> list[api.Check]:
    return list(Doctor(patient).examine(api.DoctorParameters(**asked)).checks)


def wrong(patient: Patient, **asked: bool) -> list[tuple[str, str]]:
    """The names of the checks that are not content, but for the stand-ins of public flakes, which no other machine has."""
    found = [check for check in examined(patient, **asked) if check.status != api.Status.OK]
    assert [check for check in found if not check.remedy] == []
    return [(check.name, check.status) for check in found if check.name != "portable"]


def edit(site: Site, old: str, new: str, path: str = MANIFEST) -> None:
    assert old in site.read(path)
    site.write({path: site.read(path).replace(old, new)})


def committed(site: Site, more: str) -> None:
    """Put more into the manifest and commit it by hand; the regions follow, as glixd would write them."""
    site.commit({MANIFEST: site.read(MANIFEST) + more})


def test_nothing_is_wrong_with_a_fresh_repository(patient: Patient) -> None:
    checks = examined(patient, verify=True)
    assert {check.status for check in checks if check.name != "portable"} == {api.Status.OK}
    names = {check.__name__.replace("_", "-") for check in (*MACHINE, *REPOSITORY)} | {"repository"}
    assert {check.name for check in checks} == names


def test_examining_changes_nothing(site: Site, patient: Patient) -> None:
    examined(patient)
    trace = site.trace()
    examined(patient, verify=True)
    assert site.trace() == trace


# -- every check of a repository turns red ------------------------------------------------------------------------


def _no_markers(site: Site) -> None:
    site.commit({"flake.nix": site.read("flake.nix").replace("# >>> glix-managed hosts >>>", "")})


def _no_markers_by_hand(site: Site) -> None:
    edit(site, "# <<< glix-managed inputs <<<", "", "flake.nix")


def _drift(site: Site) -> None:
    committed(site, '\n[packages.tool]\nflake = "github:o/tool"\n')


def _drift_by_hand(site: Site) -> None:
    site.write({MANIFEST: site.read(MANIFEST) + '\n[packages.tool]\nflake = "github:o/tool"\n'})


def _unlocked(site: Site) -> None:
    lock = json.loads(site.read("flake.lock"))
    del lock["nodes"]["root"]["inputs"]["nixpkgs"]
    site.commit({"flake.lock": json.dumps(lock)})


def _no_lock(site: Site) -> None:
    site.commit({"flake.lock": "no JSON"})


def _broken_manifest(site: Site) -> None:
    site.commit({MANIFEST: "schema = 1\n[packages.x]\nflake = 5\n"})


def _newer_manifest(site: Site) -> None:
    site.commit({MANIFEST: "schema = 2\n"})


def _broken_by_hand(site: Site) -> None:
    site.write({MANIFEST: "schema = \n"})


def _typo(site: Site) -> None:
    committed(site, '\n[packages.git]\nflake = "nixpkgs#git"\nscpoe = "home"\n')


def _secret(site: Site) -> None:
    committed(site, '\n[packages.git]\nflake = "nixpkgs#git"\nconfig.api_token = "hunter2"\n')


def _stranger(site: Site) -> None:
    committed(site, '\n[packages.git]\nflake = "nixpkgs#git"\nscope = "home"\nuser = "mallory"\n')


def _no_host(site: Site) -> None:
    site.commit({"hosts/common/default.nix": "{ }\n"})


def _bad_name(site: Site) -> None:
    site.commit({"hosts/My_Host/glix.toml": "schema = 1\n"})


def _unknown_to_git(site: Site) -> None:
    site.write({"hosts/pi/glix.toml": "schema = 1\n"})


def _edited(site: Site) -> None:
    site.write({MANIFEST: site.read(MANIFEST) + "# mine\n"})


def _gone(site: Site) -> None:
    (site.repository / "flake.lock").unlink()


def _untracked(site: Site) -> None:
    site.write({"notes.txt": "x"})


def _elsewhere(site: Site) -> None:
    site.git("checkout", "--quiet", "-b", "other")


def _detached(site: Site) -> None:
    site.git("checkout", "--quiet", "--detach")


def _open_to_others(site: Site) -> None:
    (site.repository / ".git").chmod(0o775)


def _damaged_index(site: Site) -> None:
    index = site.repository / ".git" / "index"
    index.write_bytes(index.read_bytes()[:-1] + b"?")


def _held_index(site: Site) -> None:
    (site.repository / ".git" / "index.lock").touch()


def _pending(site: Site) -> None:
    message = "glix add laptop: git\n\nGlix-Transaction: 01hzy7k3m5n8p0q2r4s6t8v0wx"
    site.git("update-ref", "HEAD", site.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", message))


@pytest.mark.parametrize(
    ("wound", "expected", "words"),
    [
        (_no_markers, [("markers", "FAIL")], "glix-managed hosts"),
        (_no_markers_by_hand, [("edits", "WARN"), ("markers", "FAIL")], "glix-managed inputs"),
        (_drift, [("regions", "FAIL")], "glixctl regen"),
        (_drift_by_hand, [("edits", "WARN"), ("regions", "FAIL")], "glixctl adopt"),
        (_unlocked, [("lock", "FAIL")], "flake.lock does not have nixpkgs"),
        (_no_lock, [("regions", "WARN"), ("lock", "FAIL"), ("portable", "FAIL"), ("core", "FAIL")], "no lock file"),
        (
            _broken_manifest,
            [("regions", "WARN"), ("manifest", "FAIL")],
            f"{MANIFEST}:3: packages.x.flake: is an integer",
        ),
        (_newer_manifest, [("regions", "WARN"), ("manifest", "FAIL")], f"{MANIFEST}:1: schema: 2 is not known"),
        (_broken_by_hand, [("edits", "WARN"), ("regions", "WARN"), ("manifest", "FAIL")], f"{MANIFEST}:1"),
        (_typo, [("keys", "WARN")], "packages.git.scpoe; scope may be meant"),
        (_secret, [("secrets", "WARN")], "packages.git.config.api_token looks like a secret"),
        (_stranger, [("users", "FAIL")], "it has no user mallory (packages for that home: git)"),
        (_no_host, [("hosts", "WARN")], "hosts/common has no glix.toml"),
        (_bad_name, [("hosts", "FAIL")], "'My_Host' can't be the name"),
        (_unknown_to_git, [("edits", "WARN"), ("hosts", "WARN")], "git add hosts/pi"),
        (_edited, [("edits", "WARN")], f"{MANIFEST} was edited by hand"),
        (_gone, [("edits", "FAIL")], "flake.lock is gone"),
        (_untracked, [("edits", "WARN")], "1 other files are in no commit: notes.txt"),
        (_elsewhere, [("branch", "WARN")], "HEAD is on other"),
        (_detached, [("branch", "WARN")], "HEAD is detached"),
        (_open_to_others, [("permissions", "FAIL")], "(mode 775)"),
        (_damaged_index, [("index", "FAIL")], "damaged"),
        (_held_index, [("index", "WARN")], "index.lock exists"),
        (_pending, [("published", "WARN")], "do not show the newest commit"),
    ],
)
def test_what_is_wrong_with_a_repository_is_found_and_told(
    site: Site, patient: Patient, wound: Callable[[Site], None], expected: list[tuple[str, str]], words: str
) -> None:
    assert wrong(patient) == []
    wound(site)
    found = [check for check in examined(patient) if check.status != api.Status.OK]
    told = [(check.name, check.status) for check in found]
    if wound is not _damaged_index:  # without an index git has no idea of the files
        assert [one for one in told if one != ("portable", "WARN")] == expected
    assert set(expected) <= set(told)
    assert any(words in f"{check.message} {check.remedy}" for check in found)
    assert "hunter2" not in str(found)


def test_a_broken_manifest_is_told_with_path_and_line(site: Site, patient: Patient) -> None:
    _broken_manifest(site)
    (check,) = [check for check in examined(patient) if check.name == "manifest"]
    assert (check.path, check.line) == (MANIFEST, 3)
    assert check.remedy


def test_without_a_repository_it_is_that_which_fails(site: Site, patient: Patient) -> None:
    site.repository.rename(site.root / "elsewhere")
    assert wrong(patient) == [("repository", "FAIL")]
    site.repository.mkdir()
    site.git("init", "--quiet")
    assert [name for name, _ in wrong(patient)] == ["repository"]


def test_a_folder_of_somebody_else_fails(site: Site, patient: Patient) -> None:
    if os.geteuid() == 0:
        os.chown(site.repository, 12345, -1)
        assert ("permissions", "FAIL") in wrong(patient)
    site.repository.chmod(0o777)
    assert ("permissions", "FAIL") in wrong(patient)


def test_the_users_of_another_host_are_none_of_this_machine(site: Site, patient: Patient) -> None:
    _stranger(site)
    assert wrong(replace(patient, machine="other")) == []
    assert has_user("root")
    assert not has_user("no-such-user")


def test_a_host_that_does_not_evaluate_fails(patient: Patient) -> None:
    patient.database.set_health("laptop", api.Health(state="failed", commit="c0ffee", message="attribute x is missing"))
    assert wrong(patient) == [("evaluation", "FAIL")]


def test_an_edit_that_conflicts_with_a_change_fails(site: Site, patient: Patient) -> None:
    _edited(site)
    edited = site.read(MANIFEST).encode()
    note = site.repository / ".git" / "glix" / "diverged.json"
    note.write_text(json.dumps({MANIFEST: hashlib.sha256(edited).hexdigest()}))
    assert wrong(patient) == [("edits", "FAIL")]


def test_an_input_on_this_machine_alone_is_told(patient: Patient) -> None:
    found = [check for check in examined(patient) if check.name == "portable"]
    assert {check.status for check in found} == {api.Status.WARN}
    assert any(check.message.startswith("the input nixpkgs is at git+file:") for check in found)


def test_a_core_that_understands_too_little_is_told(patient: Patient) -> None:
    revision = json.loads(patient.repository.snapshot().text("flake.lock") or "")["nodes"]["glixos-core"]["locked"][
        "rev"
    ]
    patient.database.remember(f"core {revision}", '["follows"]')
    assert wrong(patient) == [("core", "WARN")]


def _input(name: str, url: str) -> str:
    """An input that somebody wrote into flake.nix."""
    return f'    {name} = {{ url = "{url}"; inputs.nixpkgs.follows = "nixpkgs"; }};\n'


# -- locking once more --------------------------------------------------------------------------------------------


def test_a_lock_that_does_not_fit_is_found_by_locking_once_more(site: Site, patient: Patient, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_files(other, {"flake.nix": HELLO})
    git(other, "init", "--quiet")
    commit_all(other, "First")
    extra = _input("extra", f"git+file://{other}")
    site.commit({"flake.nix": site.read("flake.nix").replace("inputs = {", f"inputs = {{\n{extra}", 1)})
    told = dict(wrong(patient))
    assert told.keys() <= {"core", "lock"}, "an old nix evaluates nothing then, a newer one locks in memory"
    found = [check for check in examined(patient, verify=True) if check.name == "lock-verified"]
    assert [(check.status, "extra" in check.message) for check in found] == [("FAIL", True)]


def test_inputs_that_moved_on_are_named(site: Site, patient: Patient, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_files(other, {"flake.nix": HELLO})
    git(other, "init", "--quiet")
    pinned = commit_all(other, "First")
    inputs = (
        f"inputs = {{\n{_input('loose', f'git+file://{other}')}{_input('fast', f'git+file://{other}?rev={pinned}')}"
    )
    site.write({"flake.nix": site.read("flake.nix").replace("inputs = {", inputs, 1)})
    site.nix.lock(site.repository)
    site.commit({"flake.nix": site.read("flake.nix"), "flake.lock": site.read("flake.lock")})
    assert wrong(patient, verify=True) == []
    write_files(other, {"flake.nix": HELLO + "# newer\n"})
    commit_all(other, "Second")
    found = [check for check in examined(patient, verify=True) if check.name == "lock-verified"]
    assert [check.message for check in found] == ["not pinned, and moved on since it was locked: loose"]
    assert found[0].status == api.Status.WARN


# -- every check of a machine turns red ----------------------------------------------------------------------------


def test_a_machine_without_nix_or_git_fails(site: Site, patient: Patient) -> None:
    bin_ = site.root / "bin"
    bin_.mkdir()
    bare = Processes({**site.environment(), "PATH": os.fspath(bin_)})
    nowhere = replace(
        patient,
        nix=Nix(bare, OwnEvaluator(bare, site.repository, site.root)),
        repository=Repository(site.repository, bare),
    )
    found = {check.name: check for check in examined(nowhere)}
    for name in ("nix", "flakes", "git", "trusted-users"):
        assert found[name].status == api.Status.FAIL
        assert "not installed" in found[name].message
        assert found[name].remedy


def test_a_nix_that_evaluates_nothing_fails(site: Site) -> None:
    (site.root / "file").touch()
    patient = made(site, NIX_STATE_DIR=os.fspath(site.root / "file"))
    found = {check.name: check.status for check in examined(patient)}
    assert found["nix"] == api.Status.OK
    assert found["flakes"] == api.Status.FAIL
    patient.repository.close()
    patient.database.close()


@pytest.mark.parametrize("users", ["root @wheel", "*", "root alice @wheel *"])
def test_a_nix_that_trusts_many_is_told(site: Site, users: str) -> None:
    folder = site.root / "etc"
    folder.mkdir()
    own = (site.nix.root / "etc" / "nix.conf").read_text()
    (folder / "nix.conf").write_text(f"{own}trusted-users = {users}\n")
    patient = made(site, NIX_CONF_DIR=os.fspath(folder))
    assert wrong(patient) == [("trusted-users", "WARN")]
    patient.repository.close()
    patient.database.close()


def test_a_full_disk_fails_and_one_that_is_almost_full_is_told(site: Site, patient: Patient) -> None:
    assert wrong(replace(patient, low_bytes=2**60)) == [("disk", "WARN")]
    huge = Repository(site.repository, Processes(site.environment()), needed_bytes=2**60)
    assert wrong(replace(patient, repository=huge)) == [("disk", "FAIL")]
    huge.close()


def test_a_bus_that_is_gone_is_told(patient: Patient) -> None:
    assert wrong(replace(patient, bus=lambda: "the bus is gone")) == [("bus", "WARN")]


def test_a_state_database_that_is_damaged_or_not_written_fails(site: Site, patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "folder" / "state.db").mkdir(parents=True)
    unwritten = Database(tmp_path / "folder" / "state.db")
    assert wrong(replace(patient, database=unwritten)) == [("state", "FAIL")]
    unwritten.close()
    path = tmp_path / "damaged" / "state.db"
    database = Database(path)
    for number in range(50):
        database.remember(f"key {number}", "x" * 500)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    database.close()
    data = bytearray(path.read_bytes())
    data[4096 * 4 : 4096 * 6] = b"\xff" * 8192
    path.write_bytes(data)
    damaged = Database(path)
    assert ("state", "FAIL") in wrong(replace(patient, database=damaged))
    damaged.close()


# -- glixctl ---------------------------------------------------------------------------------------------------------


def told(done: subprocess.CompletedProcess[str]) -> dict[str, list[Any]]:
    checks: dict[str, list[Any]] = {}
    for check in json.loads(done.stdout)["checks"]:
        checks.setdefault(check["name"], []).append(check)
    return checks


@pytest.fixture
def known(site: Site) -> None:
    """Let the primary user be one that this machine has."""
    site.commit({MANIFEST: site.read(MANIFEST).replace('"alice"', '"root"')})


def test_glixctl_prints_a_line_for_each_check_and_ends_with_1_when_one_fails(
    site: Site, daemon: RunningDaemon, known: None
) -> None:
    well = site.glixctl("doctor")
    assert well.returncode == Exit.DONE, well.stdout
    assert well.stdout.startswith("OK    daemon")
    assert "FAIL" not in well.stdout
    _broken_manifest(site)
    ill = site.glixctl("doctor")
    assert ill.returncode == Exit.FAILED
    assert f"FAIL  manifest       {MANIFEST}:3: packages.x.flake" in ill.stdout
    assert "→ Correct hosts/laptop/glix.toml" in ill.stdout
    assert told(site.glixctl("doctor", "--json"))["manifest"][0]["line"] == 3
    quiet = site.glixctl("doctor", "--quiet").stdout
    assert "OK " not in quiet
    assert "FAIL" in quiet


def test_fix_writes_what_glixd_writes_and_looks_again(site: Site, daemon: RunningDaemon, known: None) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    site.commit({MANIFEST: site.read(MANIFEST) + '\n[packages.x]\nflake = "path:./pkgs/x"\n'})
    assert told(site.glixctl("doctor", "--json"))["regions"][0]["status"] == "FAIL"
    fixed = site.glixctl("doctor", "--fix", "--json")
    assert fixed.returncode == Exit.DONE
    checks = told(fixed)
    assert checks["regions"][0]["status"] == "OK"
    assert checks["fix"][0]["message"] == "Regenerate: rewrote flake.nix"
    assert site.commits()[-1] == "glix regenerate all-hosts"
    assert site.glixctl("doctor", "--fix").returncode == Exit.DONE
    assert site.commits()[-1] == "glix regenerate all-hosts"


def test_fix_locks_an_input_that_the_lock_lost(site: Site, daemon: RunningDaemon, known: None) -> None:
    _unlocked(site)
    assert site.glixctl("doctor").returncode == Exit.FAILED
    assert site.glixctl("doctor", "--fix").returncode == Exit.DONE
    assert "nixpkgs" in site.lock_nodes()["root"]["inputs"]


def test_fix_takes_no_edit_over(site: Site, daemon: RunningDaemon, known: None) -> None:
    _drift_by_hand(site)
    head = site.git("rev-parse", "HEAD")
    fixed = site.glixctl("doctor", "--fix")
    assert fixed.returncode == Exit.FAILED
    assert "nothing was mended" in fixed.stdout
    assert site.git("rev-parse", "HEAD") == head


def test_a_damaged_index_is_written_anew(site: Site, daemon: RunningDaemon, known: None) -> None:
    _damaged_index(site)
    assert told(site.glixctl("doctor", "--json"))["index"][0]["status"] == "FAIL"
    site.glixctl("doctor", "--fix")
    assert told(site.glixctl("doctor", "--json"))["index"][0]["status"] == "OK"
    assert site.git("status", "--porcelain") == ""


def test_a_daemon_that_does_not_answer_is_a_finding(site: Site) -> None:
    done = site.glixctl("doctor", "--mode", "system")
    assert done.returncode == Exit.FAILED
    assert done.stdout.startswith("FAIL  daemon  ")
    assert "→ " in done.stdout
