# SPDX-License-Identifier: GPL-3.0-or-later
"""The activator itself, as root, with a real nix and a real git: what it carries out, and all that it refuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from glixd.backends.activator import GO, Action, Activated, ActivatorDoor, Order, Status
from glixd.backends.evaluator import EvaluatorProgram, EvaluatorSocket
from glixd.backends.git import Git
from glixd.backends.nix import Nix
from glixd.backends.process import Cancellation, Processes
from glixd.errors import Cancelled, GlixError
from glixd.protocol import ErrorCode
from tests.support.activator import ID, PATIENCE, Programs, order, programs
from tests.support.hermetic import HermeticNix, commit_all, git, write_files
from tests.support.repositories import Sources, generated_flake, generated_host

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HOST = "laptop"


@dataclass
class Systems:
    """A repository with some commits, and the systems that they build to."""

    nix: HermeticNix
    repository: Path
    commits: dict[str, str]
    paths: dict[str, str]
    built: Path
    """What the evaluator noted of its builds."""


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, sources: Sources) -> Systems:
    """One commit a line: each is a system of its own, and the last one is `main`."""
    root = tmp_path_factory.mktemp("systems")
    made = Systems(nix, root / "repository", {}, {}, root / "builder" / "evaluator" / "built")
    write_files(
        made.repository,
        {
            "flake.nix": generated_flake(sources, inputs={}, hosts={HOST: "x86_64-linux"}),
            **generated_host(HOST, "x86_64-linux"),
        },
    )
    nix.lock(made.repository)
    template = (made.repository / f"hosts/{HOST}/default.nix").read_text().rstrip().removesuffix("}")
    for name, text in {
        "first": 'environment.etc.name.text = "first";',
        "broken": 'system.extraActivation = "exit 1";',
        "units": 'system.switchStatus = 4; system.failedUnits = [ "sad.service" ];',
        "reboot": "system.switchStatus = 100;",
        "slow": 'system.extraActivation = "echo begun; read -r line < $ROOT/go";',
        "main": 'environment.etc.name.text = "main";',
    }.items():
        (made.repository / f"hosts/{HOST}/default.nix").write_text(f"{template}  {text}\n}}\n")
        made.commits[name] = commit_all(made.repository, name)
    processes = Processes(nix.environment())
    with programs(root / "builder", made.repository, nix.environment()) as builder:
        evaluator = EvaluatorProgram(EvaluatorSocket(builder.evaluator.path), Git(made.repository, processes))
        for name, commit in made.commits.items():
            built = Nix(processes, evaluator).build(
                commit, HOST, on_line=lambda _line: None, cancellation=Cancellation()
            )
            made.paths[name] = os.fspath(built.path)
    return made


@pytest.fixture
def at_main(systems: Systems, tmp_path: Path) -> Iterator[Programs]:
    """The programs on the repository."""
    with programs(tmp_path, systems.repository, systems.nix.environment(), built=systems.built) as running:
        yield running
        sys.stdout.write((tmp_path / "activator.log").read_text() if (tmp_path / "activator.log").exists() else "")


@pytest.fixture
def moved(systems: Systems) -> Iterator[Any]:
    """Moves the branch to a commit, until the end of the test."""

    def move(name: str) -> None:
        git(systems.repository, "update-ref", "refs/heads/main", systems.commits[name])

    yield move
    move("main")


def activate(at: Programs, asked: Order, lines: list[str] | None = None) -> Activated:
    """Let the door carry an order."""
    said: list[str] = [] if lines is None else lines
    return ActivatorDoor(at.socket, at.results).activate(asked, said.append, Cancellation())


def refusal(at: Programs, asked: Order) -> tuple[ErrorCode, str]:
    """Why an order is refused."""
    with pytest.raises(GlixError) as refused:
        activate(at, asked)
    return refused.value.code, refused.value.message


def raw(at: Programs, data: bytes) -> Any:
    """What the activator answers to bytes that no door would send."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(os.fspath(at.socket))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return json.loads(_read(connection))


def open_to_all(folder: Path) -> None:
    """Let every user come as far as a folder of the test."""
    while folder.stat().st_mode & 0o055 != 0o055:
        folder.chmod(0o755)
        folder = folder.parent


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _read(connection: socket.socket) -> bytes:
    """All that comes; whoever does not read what it was sent resets the connection, after its answer."""
    data, resets = b"", 0
    while resets < 2:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            resets += 1
            continue
        if not part:
            break
        data += part
    return data


def untouched(at: Programs) -> bool:
    """Whether no profile, no system and no result is there."""
    return not (os.path.lexists(at.profile) or os.path.lexists(at.current) or list(at.results.glob("*.json")))


# -- what it carries out -----------------------------------------------------------------------------------------------


def test_a_system_becomes_the_running_one_and_the_result_is_on_the_disk(systems: Systems, at_main: Programs) -> None:
    lines: list[str] = []
    done = activate(at_main, order(systems.paths["main"], systems.commits["main"]), lines)
    assert (done.status, done.generation, done.failed_units, done.reboot_needed) == (Status.DONE, 1, (), False)
    assert "activating the configuration..." in lines
    assert os.path.realpath(at_main.profile) == os.path.realpath(at_main.current) == systems.paths["main"]
    door = ActivatorDoor(at_main.socket, at_main.results)
    assert door.result(ID.format(1)) == done
    kept = json.loads((at_main.results / f"{ID.format(1)}.json").read_text())
    assert (kept["uid"], kept["path"], kept["commit"]) == (0, systems.paths["main"], systems.commits["main"])
    assert list(at_main.wishes.iterdir()) == []
    assert door.result(ID.format(2)) is None


@pytest.mark.parametrize(
    ("action", "generation", "runs"),
    [(Action.TEST, None, True), (Action.BOOT, 1, False), (Action.DRY_ACTIVATE, None, False)],
)
def test_other_actions_touch_what_they_say(
    systems: Systems, at_main: Programs, action: Action, generation: int | None, runs: bool
) -> None:
    done = activate(at_main, order(systems.paths["main"], systems.commits["main"], action=action))
    assert (done.status, done.generation) == (Status.DONE, generation)
    assert os.path.lexists(at_main.profile) == (generation is not None)
    assert os.path.lexists(at_main.current) == runs


@pytest.mark.parametrize(
    ("name", "status"),
    [("units", Status.UNITS_FAILED), ("reboot", Status.REBOOT_NEEDED), ("broken", Status.FAILED)],
)
def test_exit_codes_mean_what_they_mean(
    systems: Systems, at_main: Programs, moved: Any, name: str, status: Status
) -> None:
    moved(name)
    done = activate(at_main, order(systems.paths[name], systems.commits[name]))
    assert (done.status, done.generation, done.reboot_needed) == (status, 1, name == "reboot")
    assert ("activation script failed" in done.tail) == (name == "broken")


def test_a_generation_is_gone_back_to_and_a_failed_switch_is_undone_without_a_question(
    systems: Systems, at_main: Programs, moved: Any
) -> None:
    activate(at_main, order(systems.paths["main"], systems.commits["main"]))
    moved("broken")
    broken = order(systems.paths["broken"], systems.commits["broken"], number=2)
    assert activate(at_main, broken).generation == 2
    at_main.wishes_given = False
    back = replace(broken, path=systems.paths["main"], commit="", generation=1)
    assert activate(at_main, back) == replace(activate(at_main, back), tail=("activating the configuration...",))
    assert os.path.realpath(at_main.profile) == systems.paths["main"]
    assert ActivatorDoor(at_main.socket, at_main.results).result(ID.format(2)).status is Status.FAILED  # type: ignore[union-attr]
    # somebody else goes on from there: what failed long ago is no way back any more
    at_main.wishes_given = True
    moved("units")
    activate(at_main, order(systems.paths["units"], systems.commits["units"], number=3))
    assert refusal(at_main, back) == (
        ErrorCode.CONFLICT,
        "The activator refuses: the transaction was carried out already.",
    )
    # a generation that exists is one that root may wish for by itself, whatever commit it came from
    activate(at_main, order(systems.paths["main"], "", number=4, generation=1))
    assert os.readlink(at_main.profile) == "system-1-link"


def test_a_crash_in_the_middle_is_told_from_what_still_runs(systems: Systems, at_main: Programs, moved: Any) -> None:
    moved("slow")
    os.mkfifo(at_main.root / "go")
    door = ActivatorDoor(at_main.socket, at_main.results)
    begun, ended = threading.Event(), []

    def run() -> None:
        asked = order(systems.paths["slow"], systems.commits["slow"])
        ended.append(door.activate(asked, lambda line: begun.set() if line == "begun" else None, Cancellation()))

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(PATIENCE)
    assert door.result(ID.format(1)) == Activated(Status.RUNNING)
    at_main.activator.kill()
    thread.join(PATIENCE)
    assert ended == [Activated(Status.INTERRUPTED)]
    assert door.result(ID.format(1)) == Activated(Status.INTERRUPTED)
    with (at_main.root / "go").open("w") as go:  # the switch itself goes on, as it would in a unit of its own
        go.write("go\n")


def test_a_caller_that_leaves_before_it_is_allowed_changes_nothing(systems: Systems, at_main: Programs) -> None:
    at_main.wishes_given = False
    cancellation = Cancellation()
    threading.Timer(0.3, cancellation.request).start()
    with pytest.raises(Cancelled):
        ActivatorDoor(at_main.socket, at_main.results).activate(
            order(systems.paths["main"], systems.commits["main"]), lambda _line: None, cancellation
        )
    at_main.wish(ID.format(1))  # it comes too late: nobody is there to say go
    at_main.activator.running[-1].wait(PATIENCE)
    assert untouched(at_main)


# -- what it refuses ---------------------------------------------------------------------------------------------------

GOOD = {
    "transaction": ID.format(1),
    "commit": "a" * 40,
    "path": "/nix/store/x",
    "action": "switch",
    "caller": ":1.42",
    "interactive": False,
}


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 3000 + b"\n",
        json.dumps(GOOD).encode(),  # no line
        json.dumps(GOOD | {"path": "/" + "x" * 5000}).encode() + b"\n",
        json.dumps(GOOD).encode() + b" " * 5000 + b"\n",
        json.dumps({name: value for name, value in GOOD.items() if name != "caller"}).encode() + b"\n",
        json.dumps(GOOD | {"more": 1}).encode() + b"\n",
        json.dumps(GOOD).replace('"action"', '"action": "boot", "action"').encode() + b"\n",
        *(
            json.dumps(GOOD | change).encode() + b"\n"
            for change in (
                {"transaction": "../../../etc/passwd"},
                {"transaction": ID.format(1) + "\n"},
                {"transaction": "01HZY000000000000000000001"},
                {"commit": "HEAD"},
                {"commit": "--help"},
                {"commit": "a" * 41},
                {"path": "relative"},
                {"path": "/nix/store/x\n"},
                {"path": "/nix/store/$(id)"},
                {"path": ["/nix/store/x"]},
                {"action": "rollback"},
                {"action": "switch; id"},
                {"action": None},
                {"caller": "org.freedesktop.systemd1"},
                {"caller": "pid:0"},
                {"caller": "pid:-1"},
                {"caller": "uid:0"},
                {"interactive": 1},
                {"interactive": "yes"},
                {"generation": "1"},
                {"generation": True},
                {"generation": 1.5},
            )
        ),
    ],
)
def test_malformed_orders_are_refused(at_main: Programs, line: bytes) -> None:
    answer = raw(at_main, line)
    assert answer["refused"]["code"] == "Malformed", answer
    assert untouched(at_main)


def test_foreign_paths_are_refused(systems: Systems, at_main: Programs, tmp_path: Path) -> None:
    head, main = systems.commits["main"], systems.paths["main"]
    store = Path(main).parent
    elsewhere = _forged(tmp_path / Path(main).name, tmp_path / "evil")
    package = systems.nix.build(f"{_nixpkgs(systems)}#legacyPackages.x86_64-linux.hello")
    for path in (
        os.fspath(elsewhere),
        os.fspath(package),
        f"{main}/bin/..",
        f"{main}/",
        f"{store}/../{store.name}/{Path(main).name}",
        os.fspath(store),
    ):
        code, _ = refusal(at_main, order(path, head))
        assert code is ErrorCode.INVALID_ARGUMENT, path
    forged_generation = order(main, "", generation=7)
    assert refusal(at_main, forged_generation)[0] is ErrorCode.CONFLICT
    assert untouched(at_main)
    assert not (tmp_path / "evil").exists()


def _forged(folder: Path, evil: Path) -> Path:
    """What looks like a system, and leaves a file behind where anybody switches to it."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "nixos-version").write_text("1")
    (folder / "bin" / "switch-to-configuration").write_text(f"#!/bin/sh\ntouch {evil}\n")
    (folder / "bin" / "switch-to-configuration").chmod(0o755)
    return folder


@pytest.mark.parametrize("action", Action)
def test_a_path_that_the_store_does_not_know_is_refused_even_where_the_evaluator_names_it(
    systems: Systems, tmp_path: Path, action: Action
) -> None:
    head, store = systems.commits["main"], Path(systems.paths["main"]).parent
    forged = _forged(store / f"{'a' * 32}-nixos-system-forged", tmp_path / "evil")
    built = tmp_path / "built"
    built.mkdir()
    (built / f"{head}-host-laptop").write_text(os.fspath(forged))
    with programs(tmp_path / "machine", systems.repository, systems.nix.environment(), built=built) as at:
        code, words = refusal(at, order(os.fspath(forged), head, action=action))
        assert (code, "can't be set" in words or "no such path" in words) == (
            ErrorCode.ACTIVATION_FAILED if action in (Action.SWITCH, Action.BOOT) else ErrorCode.INVALID_ARGUMENT,
            True,
        )
        assert not at.profile.is_symlink()
        assert not at.current.is_symlink()
    assert not (tmp_path / "evil").exists()


def _nixpkgs(systems: Systems) -> str:
    lock = json.loads((systems.repository / "flake.lock").read_text())["nodes"]["nixpkgs"]["locked"]
    return f"git+{lock['url']}?rev={lock['rev']}"


def test_stale_unknown_and_foreign_commits_are_refused(systems: Systems, at_main: Programs) -> None:
    for path, commit in (
        (systems.paths["first"], systems.commits["first"]),
        (systems.paths["main"], systems.commits["first"]),
        (systems.paths["main"], "0" * 40),
    ):
        assert refusal(at_main, order(path, commit)) == (
            ErrorCode.CONFLICT,
            "The activator refuses: the commit is not that of the branch.",
        )
    assert refusal(at_main, order(systems.paths["first"], systems.commits["main"])) == (
        ErrorCode.CONFLICT,
        "The activator refuses: the path is not what the commit evaluates to.",
    )
    assert untouched(at_main)


def test_a_transaction_is_carried_out_once(systems: Systems, at_main: Programs) -> None:
    asked = order(systems.paths["main"], systems.commits["main"])
    activate(at_main, asked)
    assert refusal(at_main, asked) == (
        ErrorCode.CONFLICT,
        "The activator refuses: the transaction was carried out already.",
    )
    assert os.readlink(at_main.profile) == "system-1-link"


def test_callers_that_are_gone_or_no_people_are_refused(systems: Systems, at_main: Programs) -> None:
    main = (systems.paths["main"], systems.commits["main"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    for caller in (f"pid:{gone.pid}", "pid:4194304", ":1.99999"):
        assert "nobody can be asked" in refusal(at_main, order(*main, caller=caller))[1]
    for uid in (1, 500, 65534, 65535, 61500):
        service = subprocess.Popen(["setpriv", f"--reuid={uid}", "sleep", "60"])
        try:
            _until_uid(service.pid, uid)
            code, message = refusal(at_main, order(*main, caller=f"pid:{service.pid}"))
            assert (code, f"uid {uid} is that of a service" in message) == (ErrorCode.NOT_AUTHORISED, True)
        finally:
            service.kill()
            service.wait()
    assert untouched(at_main)


def _until_uid(pid: int, uid: int) -> None:
    """Wait until a process is somebody else's."""
    while f"\nUid:\t{uid}\t" not in Path(f"/proc/{pid}/status").read_text():
        os.sched_yield()


def test_without_polkit_nobody_is_let_through(systems: Systems, at_main: Programs) -> None:
    person = subprocess.Popen(["setpriv", "--reuid=4242", "sleep", "60"])
    try:
        _until_uid(person.pid, 4242)
        asked = order(systems.paths["main"], systems.commits["main"], caller=f"pid:{person.pid}")
        assert refusal(at_main, asked)[0] is ErrorCode.AUTHORISATION_UNAVAILABLE
    finally:
        person.kill()
        person.wait()
    assert untouched(at_main)


def test_root_has_to_say_itself_what_it_wants(systems: Systems, at_main: Programs) -> None:
    at_main.wishes_given = False
    at_main.wish(ID.format(2))  # another one
    code, message = refusal(at_main, order(systems.paths["main"], systems.commits["main"], caller="pid:1"))
    assert (code, "root did not say" in message) == (ErrorCode.NOT_AUTHORISED, True)
    at_main.wishes.chmod(0o777)  # a folder that others can write to says nothing about root
    at_main.wish(ID.format(1))
    code, message = refusal(at_main, order(systems.paths["main"], systems.commits["main"], caller="pid:1"))
    assert (code, "others could say" in message) == (ErrorCode.NOT_AUTHORISED, True)
    assert untouched(at_main)


HOSTILE = """
import json, os, socket, sys
path, orders = sys.argv[1], json.loads(sys.argv[2])
print(os.getuid(), flush=True)
for order in orders:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except PermissionError:
        print(json.dumps("no way in"))
        continue
    connection.sendall(json.dumps(order).encode() + b"\\n" + b"go\\n")
    print(connection.makefile("rb").readline().decode(), end="")
"""


def _hostile(at: Programs, uid: int, orders: list[dict[str, Any]]) -> list[Any]:
    """What another uid is answered that sends orders itself."""
    switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    done = subprocess.run(
        [*switch, "/usr/bin/python3", "-I", "-c", HOSTILE, os.fspath(at.socket), json.dumps(orders)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        cwd="/",
    )
    shown, *answers = done.stdout.splitlines()
    assert shown == str(uid)
    return [json.loads(answer) for answer in answers]


def test_a_hostile_daemon_does_not_become_root(systems: Systems, tmp_path: Path) -> None:
    """It has the uid of the daemon, so it owns the repository, may connect, and may name any process as its caller."""
    daemon = 1  # the user `daemon` of every machine
    repository = tmp_path / "repository"
    subprocess.run(["cp", "-a", os.fspath(systems.repository), os.fspath(repository)], check=True)
    subprocess.run(["chown", "-R", f"{daemon}:{daemon}", os.fspath(repository)], check=True)
    open_to_all(tmp_path)
    git_config = repository / ".git" / "config"
    git_config.write_text(git_config.read_text() + f"[core]\n\tfsmonitor = touch {tmp_path}/root/ran\n")
    with programs(
        tmp_path / "root", repository, systems.nix.environment(), peer="daemon", wishes_given=False, built=systems.built
    ) as at:
        at.folder.chmod(0o755)
        at.socket.chmod(0o666)  # systemd gives it to the daemon's user
        root_now, evil = f"pid:{os.getpid()}", systems.paths["first"]
        base = {"transaction": ID.format(1), "action": "switch", "interactive": True, "caller": root_now}
        head = systems.commits["main"]
        orders: list[dict[str, Any]] = [
            base | {"path": evil, "commit": systems.commits["first"]},
            base | {"path": evil, "commit": head, "caller": ":1.0"},
            base | {"path": evil, "commit": head, "caller": "pid:2"},
            base | {"path": "/etc", "commit": head},
            base | {"path": evil, "commit": "", "generation": 1},
            base | {"path": systems.paths["main"], "commit": head, "caller": "pid:1"},  # all right but for root's wish
        ]
        answers = _hostile(at, daemon, orders)
        assert [list(answer) for answer in answers] == [["refused"]] * len(orders), answers
        assert untouched(at)
        assert not (tmp_path / "root" / "ran").exists()
        # nor does anybody else, who isn't the daemon
        assert [answer["refused"]["message"] for answer in _hostile(at, 4242, orders[-1:])] == [
            "The activator refuses: this socket is for the daemon."
        ]
        at.socket.chmod(0o600)
        assert _hostile(at, 4242, orders[-1:]) == ["no way in"]


def test_nothing_is_begun_before_the_daemon_says_go(systems: Systems, at_main: Programs) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(os.fspath(at_main.socket))
        connection.sendall(order(systems.paths["main"], systems.commits["main"]).line())
        lines = connection.makefile("rb")
        assert json.loads(lines.readline()) == {"allowed": True}
        assert untouched(at_main)
        connection.sendall(b"no\n")
        assert json.loads(lines.readline())["refused"]["code"] == "Cancelled"
    assert GO == b"go\n"
    assert untouched(at_main)


def test_whoever_connects_and_orders_nothing_leaves_no_trace(at_main: Programs) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(os.fspath(at_main.socket))
        wait_until(lambda: bool(at_main.activator.running))
    assert [program.wait(PATIENCE) for program in at_main.activator.running] == [0]
    assert at_main.activator.log.read_bytes() == b""
    assert untouched(at_main)


def test_an_order_takes_the_connection_that_waits_for_it(systems: Systems, at_main: Programs) -> None:
    door = ActivatorDoor(at_main.socket, at_main.results)
    door.knock()
    wait_until(lambda: bool(at_main.activator.running))
    done = door.activate(order(systems.paths["main"], systems.commits["main"]), lambda _line: None, Cancellation())
    assert done.status is Status.DONE
    assert len(at_main.activator.running) == 1


def test_an_order_finds_a_new_activator_where_the_one_that_waited_is_gone(systems: Systems, tmp_path: Path) -> None:
    asked, options = (
        order(systems.paths["main"], systems.commits["main"]),
        {"wishes_given": False, "built": systems.built},
    )
    with programs(tmp_path, systems.repository, systems.nix.environment(), **options) as at:
        at.wish(asked.transaction)
        door = ActivatorDoor(at.socket, at.results)
        door.knock()
        wait_until(lambda: bool(at.activator.running))
        at.activator.kill()
        assert door.activate(asked, lambda _line: None, Cancellation()).status is Status.DONE
        assert len(at.activator.running) == 2


def test_what_the_evaluator_did_not_build_is_not_switched_to_for_root(systems: Systems, tmp_path: Path) -> None:
    with programs(tmp_path, systems.repository, systems.nix.environment()) as at:
        assert refusal(at, order(systems.paths["main"], systems.commits["main"])) == (
            ErrorCode.EVALUATION_FAILED,
            "The activator refuses: the evaluator did not build the commit, so it can't be compared.",
        )
        assert untouched(at)


def test_a_note_of_the_daemon_s_own_is_none_of_the_evaluator(systems: Systems, tmp_path: Path) -> None:
    daemon = 1  # the user `daemon` of every machine
    forged, head = tmp_path / "forged", systems.commits["main"]
    repository = tmp_path / "repository"
    subprocess.run(["cp", "-a", os.fspath(systems.repository), os.fspath(repository)], check=True)
    subprocess.run(["chown", "-R", f"{daemon}:{daemon}", os.fspath(repository)], check=True)
    open_to_all(tmp_path)
    forged.mkdir()
    note = forged / f"{head}-host-{HOST}"
    note.write_text(systems.paths["main"])
    os.chown(note, daemon, daemon)
    asked = order(systems.paths["main"], head)
    options = {"peer": "daemon", "wishes_given": False, "built": forged}
    with programs(tmp_path / "root", repository, systems.nix.environment(), **options) as at:
        at.wish(asked.transaction)
        at.folder.chmod(0o755)
        at.socket.chmod(0o666)  # systemd gives it to the daemon's user
        (answer,) = _hostile(at, daemon, [json.loads(asked.line())])
        assert answer["refused"]["message"] == "The activator refuses: the path is not what the commit evaluates to."
        assert untouched(at)
