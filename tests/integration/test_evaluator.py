# SPDX-License-Identifier: GPL-3.0-or-later
"""The evaluator: the same answers as nix in the daemon itself, with another uid, within limits, and nobody left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glixd.backends.evaluator import (
    ChildEvaluators,
    Evaluator,
    EvaluatorProgram,
    EvaluatorSocket,
    Leaf,
    OwnEvaluator,
)
from glixd.backends.git import Git
from glixd.backends.nix import Nix
from glixd.backends.objects import REGULAR
from glixd.backends.process import Cancellation, Processes
from glixd.errors import Cancelled, Failed
from glixd.evaluator.jobs import Job, Kind, request_line
from glixd.protocol import ErrorCode
from tests.support.hermetic import HermeticNix, commit_all, git, write_files
from tests.support.repositories import Sources, generated_flake, generated_host

pytestmark = [pytest.mark.integration, pytest.mark.nix]

HOST = "laptop"
PATIENCE = 60.0
PACKAGES = '\n[packages.hello]\nflake = "nixpkgs#hello"\nscope = "system"\n'


@dataclass
class World:
    """A repository, and the two who run nix on it."""

    nix: HermeticNix
    repository: Path
    state: Path
    processes: Processes
    git: Git
    commit: str

    def own(self) -> OwnEvaluator:
        """nix as this very user."""
        return OwnEvaluator(self.processes, self.repository, self.state / "own")

    def program(self, *arguments: str) -> EvaluatorProgram:
        """The program, as a child; `arguments` are more of its own."""
        return EvaluatorProgram(ChildEvaluators(self.processes, self.state / "program", arguments=arguments), self.git)

    def expression(self, body: str, *arguments: str, timeout: float = 0.0) -> Any:
        """What the program makes of an expression."""
        done = self.program(*arguments).run(Job(Kind.EXPRESSION, self.commit, body=body, timeout=timeout))
        assert done.status == 0, done.stderr.decode()
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, nix: HermeticNix, sources: Sources) -> Iterator[World]:
    """A repository of two commits."""
    root = tmp_path_factory.mktemp("world")
    repository = root / "repository"
    flake = generated_flake(sources, inputs={}, hosts={HOST: "x86_64-linux"})
    host = generated_host(HOST, "x86_64-linux", packages=PACKAGES)
    write_files(repository, {"flake.nix": flake, "old.txt": "of an older commit", **host})
    nix.lock(repository)
    commit_all(repository)
    (repository / "old.txt").unlink()
    commit = commit_all(repository)
    processes = Processes(nix.environment())
    made = World(nix, repository, root, processes, Git(repository, processes), commit)
    yield made
    made.git.close()


def both(world: World) -> list[Evaluator]:
    """The two."""
    return [world.own(), world.program()]


def test_both_answer_alike(world: World) -> None:
    answers = []
    for evaluator in both(world):
        nix = Nix(world.processes, evaluator)
        lines: list[bytes] = []
        built = nix.build(world.commit, HOST, on_line=lines.append, cancellation=Cancellation())
        assert (built.path / "sw" / "bin" / "hello").exists()
        files = {"flake.nix": Leaf(REGULAR, (world.repository / "flake.nix").read_bytes())}
        facts = Job(Kind.EXPRESSION, world.commit, body="{ inherit (flake) rev revCount narHash lastModified; }")
        answers.append(
            (
                nix.evaluate_host(world.commit, HOST),
                nix.package_names(world.commit, "x86_64-linux"),
                built,
                nix.lock(files),
                evaluator.run(facts).stdout,
            )
        )
        assert any(line.startswith(b"@nix {") for line in lines)
    assert answers[0] == answers[1]
    assert json.loads(answers[0][-1])["revCount"] == 2


def test_both_fail_alike_and_name_no_folder_of_their_own(world: World) -> None:
    told = []
    for evaluator in both(world):
        nix = Nix(world.processes, evaluator)
        with pytest.raises(Failed) as evaluation:
            nix.evaluate_host(world.commit, "nosuch")
        with pytest.raises(Failed) as build:
            nix.build(world.commit, "nosuch", on_line=lambda _line: None, cancellation=Cancellation())
        with pytest.raises(Failed) as lock:
            nix.lock({"flake.nix": Leaf(REGULAR, b'{ inputs.x.url = "path:./nosuch"; outputs = _: { }; }')})
        told.append([error.value.code for error in (evaluation, build, lock)])
        said = f"{evaluation.value.message} {build.value.message} {lock.value.message}"
        assert "scratch" not in said
    assert told[0] == told[1] == [ErrorCode.EVALUATION_FAILED, ErrorCode.EVALUATION_FAILED, ErrorCode.LOCK_FAILED]


def test_files_of_older_commits_stay_at_home(world: World, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "copy")
    copy = tmp_path / "copy"
    subprocess.run(
        ["git", "index-pack", "--stdin"], cwd=copy, input=world.git.pack(world.commit), capture_output=True, check=True
    )
    assert git(copy, "rev-list", "--count", world.commit) == "2"
    assert git(copy, "cat-file", "-p", f"{world.commit}:flake.nix")
    old = git(world.repository, "rev-parse", f"{world.commit}~1:old.txt")
    with pytest.raises(subprocess.CalledProcessError):
        git(copy, "cat-file", "-e", old)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_what_does_not_end_is_ended(world: World) -> None:
    with pytest.raises(Failed) as failed:
        world.expression("let fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2); in fib 60", timeout=2.0)
    assert failed.value.code is ErrorCode.TIMED_OUT
    with pytest.raises(Failed) as failed:
        world.expression(
            "let fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2); in fib 60", "--timeout", "1", timeout=600.0
        )
    assert failed.value.code is ErrorCode.TIMED_OUT
    assert _left(world) == []


def test_what_takes_all_memory_gets_no_more_than_its_share(world: World) -> None:
    bomb = "builtins.length (builtins.concatLists (builtins.genList (x: builtins.genList (y: y) 1000000) 500))"
    done = world.program("--memory", "96").run(Job(Kind.EXPRESSION, world.commit, body=bomb))
    assert done.status != 0
    assert _left(world) == []
    assert world.expression("1 + 1", "--memory", "96") == 2


def test_nothing_is_built_while_something_is_only_looked_at(world: World) -> None:
    drv = 'derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo 1 > $out" ]; }'
    done = world.program().run(Job(Kind.EXPRESSION, world.commit, body=f"import ({drv})"))
    assert done.status != 0
    assert b"allow-import-from-derivation" in done.stderr


# -- stopping ----------------------------------------------------------------------------------------------------------


def _slow(world: World, tmp_path: Path, name: str) -> str:
    """A commit whose system says that it has begun to build, and does not end."""
    copy = tmp_path / name
    subprocess.run(["cp", "-a", os.fspath(world.repository), os.fspath(copy)], check=True)
    host = copy / f"hosts/{HOST}/default.nix"
    marker = tmp_path / "builder"
    slow = (
        'derivation { name = "' + name + '"; system = "x86_64-linux"; builder = "/bin/sh"; '
        f'args = [ "-c" "echo $$ > {marker}; while :; do :; done" ]; }}'
    )
    host.write_text(host.read_text().rstrip().removesuffix("}") + f"  environment.systemPackages = [ ({slow}) ];\n}}\n")
    commit = commit_all(copy)
    git(world.repository, "fetch", "--quiet", os.fspath(copy), f"+main:refs/heads/{name}")
    return commit


def _begun(tmp_path: Path) -> int:
    """The pid of the builder, once it runs."""
    marker = tmp_path / "builder"
    deadline = time.monotonic() + PATIENCE
    while not (marker.exists() and marker.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "nothing is built"
        time.sleep(0.01)
    return int(marker.read_text())


def _left(world: World) -> list[str]:
    """The processes that still have the environment of the program's jobs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(world.state / "program") in environment and state != b"Z":
            found.append(entry.name)
    return found


def test_a_build_stops_when_it_is_cancelled(world: World, tmp_path: Path) -> None:
    commit = _slow(world, tmp_path, "slow-cancel")
    cancellation, ended = Cancellation(), []

    def build() -> None:
        try:
            nix = Nix(world.processes, world.program())
            nix.build(commit, HOST, on_line=lambda _line: None, cancellation=cancellation)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    builder = _begun(tmp_path)
    assert cancellation.request()
    thread.join(PATIENCE)
    assert len(ended) == 1
    assert _nothing_left(world, builder)


def test_a_build_stops_when_nobody_listens_any_more(world: World, tmp_path: Path) -> None:
    commit = _slow(world, tmp_path, "slow-leave")
    pack = world.git.pack(commit)
    with ChildEvaluators(world.processes, world.state / "program").opened() as connection:
        connection.sendall(request_line(Job(Kind.BUILD, commit, HOST), [], len(pack)) + pack)
        builder = _begun(tmp_path)
    assert _nothing_left(world, builder)


def _nothing_left(world: World, builder: int) -> bool:
    """Whether builder, nix and scratch folder are gone."""
    scratch = (world.state / "program" / "scratch").iterdir()
    return not (Path(f"/proc/{builder}").exists() or _left(world) or any(scratch))


def test_what_a_commit_was_built_to_is_noted_where_the_user_of_the_evaluator_alone_writes(
    world: World, tmp_path: Path
) -> None:
    state = tmp_path / "program"
    program = EvaluatorProgram(ChildEvaluators(world.processes, state), world.git)
    nix = Nix(world.processes, program)
    nix.evaluate_host(world.commit, HOST)
    assert not (state / "built").exists(), "an evaluation is no build"
    built = nix.build(world.commit, HOST, on_line=lambda _line: None, cancellation=Cancellation())
    notes = {note.name: note.read_text() for note in (state / "built").iterdir()}
    assert notes == {f"{world.commit}-host-{HOST}": str(built.path)}
    assert (state / "built").stat().st_mode & 0o777 == 0o700


def test_a_build_that_failed_is_not_noted(world: World, tmp_path: Path) -> None:
    state = tmp_path / "program"
    program = EvaluatorProgram(ChildEvaluators(world.processes, state), world.git)
    done = program.run(Job(Kind.BUILD, world.commit, "other"))
    assert done.status != 0
    done = program.run(Job(Kind.BUILD, world.commit, HOST, dry_run=True))
    assert done.status == 0
    assert not (state / "built").exists()


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"{}\n",
        b"\xff\n",
        b'{"job": {"kind": "lock"}, "files": [], "pack": -1}\n',
        b'{"job": {"kind": "run"}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "evaluate", "commit": "' + b"a" * 40 + b'", "host": "../x"}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "lock", "argv": ["id"]}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "lock"}, "files": [["../x", "100644", 0]], "pack": 0}\n',
        b'{"job": {"kind": "lock"}, "files": [["/etc/x", "100644", 0]], "pack": 0}\n',
        b'{"job": {"kind": "lock"}, "files": [["x", "104755", 0]], "pack": 0}\n',
        b'{"job": {"kind": "evaluate", "commit": "main", "host": "laptop"}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "evaluate", "commit": "' + b"a" * 40 + b'", "host": "x\\" + y"}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "build", "commit": "'
        + b"a" * 40
        + b'", "host": "x", "user": "../y"}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "build", "commit": "'
        + b"a" * 40
        + b'", "host": "x", "dry_run": 1}, "files": [], "pack": 0}\n',
        b'{"job": {"kind": "evaluate", "commit": "' + b"a" * 40 + b'", "host": "x"}, "files": [], "pack": 4}\nPACK',
    ],
)
def test_malformed_jobs_are_refused(world: World, line: bytes) -> None:
    with ChildEvaluators(world.processes, world.state / "program").opened() as connection:
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(connection.makefile("rb").readline())
    assert "malformed" in answer["refused"], answer


def test_no_file_is_written_through_a_link(world: World, tmp_path: Path) -> None:
    files = {
        "flake.nix": Leaf(REGULAR, b"{ outputs = _: { }; }"),
        "out": Leaf("120000", os.fsencode(tmp_path)),
        "out/evil": Leaf(REGULAR, b"evil"),
    }
    with pytest.raises(Failed):
        world.program().run(Job(Kind.LOCK), files)
    assert not (tmp_path / "evil").exists()


def test_an_evaluator_that_is_not_there_is_told_with_the_unit_to_look_at(world: World, tmp_path: Path) -> None:
    gone = EvaluatorProgram(EvaluatorSocket(tmp_path / "nobody"), world.git)
    with pytest.raises(Failed, match="can't be reached") as failed:
        gone.run(Job(Kind.EVALUATE, world.commit, HOST))
    assert (failed.value.code, "glixd-eval.socket" in failed.value.hint) == (ErrorCode.UNSUPPORTED_HERE, True)
