# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong around the daemon ends in a recovery, or in an error that says what is wrong; and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.clockjump import YEAR, Clock
from tests.support.daemon import RpcError, RunningDaemon, Site, glixctl_command
from tests.support.repositories import EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.nix]

MANIFEST: Final = "hosts/laptop/glix.toml"
HELLO: Final = (EXAMPLES / "pkg-hello/flake.nix").read_text()


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that can be moved."""
    return Clock(tmp_path)


@pytest.mark.parametrize("jump", [-40 * YEAR, -3600, 3600, 40 * YEAR])
def test_a_clock_that_jumps_between_changes_changes_nothing_else(site: Site, clock: Clock, jump: int) -> None:
    with RunningDaemon(site, extra=clock.environment) as daemon:
        first = daemon.done("Add", refs=["nixpkgs#hello"])
        clock.set(jump)
        second = daemon.done("Add", refs=["nixpkgs#firefox"])
        clock.set(0)
        third = daemon.done("Disable", names=["hello"])
        assert second["created"][:4] != first["created"][:4] or abs(jump) < YEAR, "the clock did not jump"
        listed = [one["id"] for one in daemon.call("ListTransactions")["transactions"]]
        assert listed == [third["id"], second["id"], first["id"]]
        assert site.commits()[-3:] == [
            site.git("log", "-1", "--format=%s", one["commit"]) for one in (first, second, third)
        ]
        assert daemon.done("Rollback", steps=1)["state"] == "succeeded"
        assert "enabled = false" not in site.committed(MANIFEST)
    site.git("fsck", "--strict")


def test_transactions_stay_in_order_when_the_clock_goes_back_between_two_daemons(site: Site, clock: Clock) -> None:
    with RunningDaemon(site, extra=clock.environment) as daemon:
        first = daemon.done("Add", refs=["nixpkgs#hello"])
    clock.set(-3600)
    with RunningDaemon(site, extra=clock.environment) as daemon:
        second = daemon.done("Add", refs=["nixpkgs#firefox"])
        listed = [one["id"] for one in daemon.call("ListTransactions")["transactions"]]
        assert listed == [second["id"], first["id"]]


@pytest.mark.parametrize("jump", [-40 * YEAR, 40 * YEAR])
def test_a_clock_that_jumps_during_a_change_ends_no_waiting_and_no_change(site: Site, clock: Clock, jump: int) -> None:
    with RunningDaemon(site, extra=clock.environment) as daemon, daemon.connect() as client:
        with site.locked():
            transaction = client.call("Add", refs=["nixpkgs#hello"])["transaction"]
            client.reach(transaction, "running")
            waiting = client.send("Wait", transaction=transaction, timeout=60.0)
            clock.set(jump)
            assert daemon.call("Ping")
        ended = client.answer(waiting)
        assert (ended["state"], ended["commit"]) == ("succeeded", site.git("rev-parse", "HEAD"))


# -- environments ----------------------------------------------------------------------------------------------------

HOSTILE: Final = {
    "git": {
        "GIT_DIR": "/nowhere",
        "GIT_WORK_TREE": "/nowhere",
        "GIT_INDEX_FILE": "/nowhere/index",
        "GIT_OBJECT_DIRECTORY": "/nowhere/objects",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": "/nowhere",
        "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
        "GIT_NAMESPACE": "elsewhere",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TRACE": "2",
        "GIT_EXEC_PATH": "/nowhere",
        "GIT_DEFAULT_HASH": "sha256",
    },
    "nix": {
        "NIX_CONFIG": "this is no setting",
        "NIX_PATH": "nixpkgs=/nowhere",
        "NIX_USER_CONF_FILES": "/nowhere/nix.conf",
        "NIXPKGS_ALLOW_UNFREE": "1",
        "NIXPKGS_CONFIG": "/nowhere",
        "NIX_SHOW_STATS": "1",
    },
    "locale": {"LC_ALL": "tr_TR.ISO-8859-9", "LANG": "nonsense", "LANGUAGE": "de", "TZ": ":/etc/passwd"},
    "zone": {"TZ": "Nonsense/Zone" * 100},
    "python": {
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONHASHSEED": "1",
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSTARTUP": "/nowhere.py",
    },
    "long": {f"LONG_{number}": "x" * 100_000 for number in range(8)},
    "bytes": {"LATIN": os.fsdecode(b"caf\xe9\xff"), "GLIX_NONSENSE": os.fsdecode(b"\xff\n\x01")},
    "home": {"HOME": "", "XDG_CONFIG_HOME": "relative", "XDG_CACHE_HOME": "relative"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_environment_changes_nothing(site: Site, name: str) -> None:
    with RunningDaemon(site, extra=HOSTILE[name]) as daemon:
        done = daemon.done("Add", refs=["nixpkgs#hello"])
        assert done["commit"] == site.git("rev-parse", "HEAD")
        assert daemon.done("Update", inputs=["nixpkgs"])["state"] == "succeeded"
    assert site.git("status", "--porcelain") == ""
    site.git("fsck", "--strict")


def test_without_a_home_the_daemon_and_its_client_work_in_the_place_that_is_named(site: Site) -> None:
    environment = site.environment(
        {"XDG_STATE_HOME": os.fspath(site.root / "state"), "XDG_CONFIG_HOME": os.fspath(site.repository.parent)}
    )
    del environment["HOME"]
    command = glixctl_command("--dir", os.fspath(site.repository), "add", "nixpkgs#hello")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[packages.hello]" in site.committed(MANIFEST)


# -- programs --------------------------------------------------------------------------------------------------------

BROKEN: Final = {
    "missing": None,
    "failing": "#!/bin/sh\necho 'it is broken today' >&2\nexit 7\n",
    "garbage": "#!/bin/sh\nprintf '\\377\\302{garbage\\001\\n['\nexit 0\n",
    "silent": "#!/bin/sh\nexit 0\n",
}
TELLING: Final = {"UnsupportedHere", "LockFailed", "EvaluationFailed", "ReadOnly"}
"""The errors that say which program does not do its work."""


def _path_with(folder: Path, name: str, text: str | None) -> str:
    """A PATH on which every program stands but `name`, which is `text` or missing."""
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            link = folder / program.name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(program)
    for program in folder.glob(f"{name}*"):
        program.unlink()
    if text is not None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return os.fspath(folder)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_nix_that_does_not_work_is_named_and_nothing_changes(site: Site, tmp_path: Path, kind: str) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["nixpkgs#hello"])
    path = _path_with(tmp_path / "programs", "nix", BROKEN[kind])
    with RunningDaemon(site, extra={"PATH": path}) as daemon:
        daemon.run("Regenerate")  # takes note of what people committed
        trace = site.trace()
        errors = {
            "lock": daemon.failed("Add", refs=["path:./pkgs/x"]),
            "name": daemon.failed("Add", refs=["nixpkgs#firefox"]),
            "update": daemon.failed("Update", inputs=["nixpkgs"]),
        }
        assert {name: error["name"] for name, error in errors.items() if error["name"] not in TELLING} == {}
        assert site.trace() == trace
        assert daemon.done("Disable", names=["hello"])["commit"], "what needs no nix works without it"
        assert daemon.health()["state"] == "failed", "what nix does not say is not known"
    with RunningDaemon(site) as daemon:
        assert daemon.done("Add", refs=["path:./pkgs/x"])["commit"]


def test_a_nix_that_hangs_can_be_cancelled(site: Site, tmp_path: Path) -> None:
    site.commit({"pkgs/x/flake.nix": HELLO})
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    path = _path_with(
        tmp_path / "programs", "nix", f"#!/bin/sh\ntrap '' INT\necho >{begun}\nwhile :; do sleep 1000; done\n"
    )
    with RunningDaemon(site, extra={"PATH": path}) as daemon, daemon.connect() as client:
        transaction = client.call("Add", refs=["path:./pkgs/x"])["transaction"]
        begun.read_text()
        assert daemon.call("Cancel", transaction=transaction) is not None
        ended = client.wait(transaction)
        assert (ended["state"], ended["error"]["name"]) == ("cancelled", "Cancelled")
    assert "pkgs/x" not in site.committed("flake.nix")


@pytest.mark.parametrize("kind", BROKEN)
def test_a_git_that_does_not_work_is_named_and_nothing_changes(site: Site, tmp_path: Path, kind: str) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["nixpkgs#hello"])
    path = _path_with(tmp_path / "programs", "git", BROKEN[kind])
    before = site.git("rev-parse", "HEAD")
    work = {name: digest for name, digest in site.trace().items() if not name.startswith(".git/")}
    with RunningDaemon(site, extra={"PATH": path}) as daemon:
        assert daemon.failed("Disable", names=["hello"])["name"] in TELLING
        with pytest.raises(RpcError) as refused:
            daemon.call("List")
        assert refused.value.name in TELLING
    assert site.git("rev-parse", "HEAD") == before
    assert {name: digest for name, digest in site.trace().items() if not name.startswith(".git/")} == work
    with RunningDaemon(site) as daemon:
        assert daemon.done("Disable", names=["hello"])["commit"]


# -- what lies around in the repository ------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", ["index.lock", "HEAD.lock", "refs/heads/main.lock"])
def test_a_lock_of_somebody_else_is_busy_and_stays(site: Site, daemon: RunningDaemon, lock: str) -> None:
    path = site.repository / ".git" / lock
    path.touch()
    head = site.git("rev-parse", "HEAD")
    error = daemon.failed("Add", refs=["nixpkgs#hello"])
    assert error["name"] == "Busy"
    assert error["details"]["path"] == str(path)
    assert path.exists()
    assert site.git("rev-parse", "HEAD") == head
    path.unlink()
    assert daemon.done("Add", refs=["nixpkgs#hello"])["commit"]


@pytest.mark.parametrize(
    "lock",
    ["packed-refs.lock", "config.lock", "shallow.lock", "refs/glix/tx.lock", "refs/heads/other.lock", "gc.pid.lock"],
)
def test_a_lock_that_is_in_nobodys_way_is_left_alone(site: Site, daemon: RunningDaemon, lock: str) -> None:
    path = site.repository / ".git" / lock
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert daemon.done("Add", refs=["nixpkgs#hello"])["commit"]
    assert path.exists() or "glix" in lock


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_somebody_else_is_changed_whole_or_not_at_all(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["nixpkgs#hello"])
    for folder, _, names in os.walk(site.repository):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, 12345, 12345)
    with RunningDaemon(site) as daemon:
        ended = daemon.run("Disable", names=["hello"])
        assert ended["state"] == "succeeded" or ended["error"]["name"] in TELLING
        assert ("enabled = false" in (site.repository / MANIFEST).read_text()) is (ended["state"] == "succeeded")
        assert daemon.call("History")["entries"]


DAMAGE: Final[dict[str, Callable[[bytes], bytes]]] = {
    "torn": lambda data: data[: len(data) // 2],
    "empty": lambda _data: b"",
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: bytes(byte ^ 0x5A for byte in data),
    "tail": lambda data: data[:-20] + b"x" * 20,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_torn_index_is_written_anew(site: Site, daemon: RunningDaemon, damage: str) -> None:
    daemon.done("Add", refs=["nixpkgs#hello"])
    index = site.repository / ".git" / "index"
    index.write_bytes(DAMAGE[damage](index.read_bytes()))
    assert daemon.done("Add", refs=["nixpkgs#firefox"])["commit"]
    assert site.git("status", "--porcelain") == ""
    site.git("fsck", "--strict")


@pytest.mark.parametrize("damage", ["torn", "zeros", "garbage"])
def test_a_damaged_state_database_starts_anew_with_what_the_commits_tell(site: Site, damage: str) -> None:
    database = site.state / "state.db"
    with RunningDaemon(site) as daemon:
        first = daemon.done("Add", refs=["nixpkgs#hello"], reason="because")
        second = daemon.done("RenameHost", name="laptop", to="desk")
    database.write_bytes(DAMAGE[damage](database.read_bytes()))
    with RunningDaemon(site, host="desk") as daemon:
        listed = daemon.call("ListTransactions")["transactions"]
        told = [(one["id"], one["operation"], one["state"], one["commit"], one["uid"]) for one in listed]
        wanted = [(one["id"], one["operation"], "succeeded", one["commit"], os.getuid()) for one in (second, first)]
        assert told[: len(wanted)] == wanted
        assert daemon.done("Add", refs=["nixpkgs#firefox"])["commit"]
    assert list(site.state.glob("state.db.damaged"))


def test_pages_of_the_state_database_that_are_damaged_while_it_is_open_do_not_stop_a_change(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        for name in ("hello", "firefox", "git"):
            daemon.done("Add", refs=[f"nixpkgs#{name}"])
    database = site.state / "state.db"
    data = bytearray(database.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    database.write_bytes(data)
    with RunningDaemon(site) as daemon:
        assert daemon.done("Disable", names=["git"])["commit"]
        assert len(daemon.call("ListTransactions")["transactions"]) >= 4


@pytest.mark.parametrize("which", ["HEAD", "HEAD^{tree}", f"HEAD:{MANIFEST}"])
def test_a_damaged_object_makes_the_repository_read_only(site: Site, which: str) -> None:
    with RunningDaemon(site) as daemon:
        daemon.done("Add", refs=["nixpkgs#hello"])
    oid = site.git("rev-parse", which)
    path = site.repository / ".git" / "objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:10] + b"damage")
    trace = {name: digest for name, digest in site.trace().items() if not name.startswith(".git/glix")}
    with RunningDaemon(site) as daemon:
        assert daemon.failed("Add", refs=["nixpkgs#firefox"])["name"] == "ReadOnly"
        with pytest.raises(RpcError) as refused:
            daemon.call("List")
        assert refused.value.name == "ReadOnly"
        assert daemon.call("Ping")
    assert {name: digest for name, digest in site.trace().items() if not name.startswith(".git/glix")} == trace


def test_a_build_that_has_no_place_for_its_root_says_so(site: Site, daemon: RunningDaemon) -> None:
    (site.state / "roots").write_text("not a folder")
    error = daemon.failed("Rebuild", action="build")
    assert error["name"] == "ReadOnly"
    assert str(site.state / "roots") in error["message"]
