# SPDX-License-Identifier: GPL-3.0-or-later
"""What the three uids buy: a hostile evaluation reads and moves nothing, and only whom polkit lets may switch the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from glixd.backends.evaluator import EvaluatorProgram, EvaluatorSocket, Leaf, OwnEvaluator
from glixd.backends.git import Git
from glixd.backends.objects import REGULAR
from glixd.backends.process import Processes
from glixd.evaluator.jobs import Job, Kind
from glixd.protocol import Exit
from tests.support.daemon import HOST
from tests.support.hermetic import make_git_flake
from tests.support.machine import UIDS
from tests.support.split import EVALUATOR, Split, split

pytestmark = [pytest.mark.integration, pytest.mark.nix]

CANARY = "canary-3f1c9a5d27"
RULES = """
polkit.addRule(function (action, subject) {
    var own = "org.glixos.glix1.";
    if (subject.user != "alice" || action.id.indexOf(own) != 0) { return polkit.Result.NOT_HANDLED; }
    var name = action.id.substring(own.length);
    var known = /^[1-9] since [0-9a-f]{12}$/.test(action.lookup("changes")) && /^[0-9a-f]{40}$/.test(action.lookup("commit"))
        && action.lookup("host") == "laptop" && action.lookup("action") == "switch";
    if (name == "system-activate-trusted") {
        return known && action.lookup("contains_untrusted") == "no" ? polkit.Result.YES : polkit.Result.NO;
    }
    if (name == "system-activate") {
        return known && action.lookup("contains_untrusted") == "yes" ? polkit.Result.NO : polkit.Result.YES;
    }
    return name == "package-install-trusted" || name == "home-manage-own" ? polkit.Result.YES : polkit.Result.NO;
});
"""
"""Alice may install what is trusted and put it into effect; the details have to be as they are, or it comes out otherwise."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Split]:
    """One machine for all of this, which runs what its repository says."""
    with split(rules={"40-test.rules": RULES}) as made:
        switch(made)
        yield made


def switch(machine: Split) -> None:
    """Let root put everything into effect that is committed."""
    with machine.at.as_root() as client:
        done = client.run("Rebuild")
    assert done["state"] == "succeeded", done.get("error")


def test_nix_of_the_system_runs_with_a_uid_of_its_own(machine: Split) -> None:
    with machine.at.as_root() as client:
        done = client.run("Add", refs=["hello"])
    assert done["state"] == "succeeded", done.get("error")
    owners = {path.stat().st_uid for path in (machine.helpers.root / "evaluator").iterdir()}
    assert owners == {EVALUATOR}
    assert machine.helpers.evaluator.running
    message = machine.at.git("log", "-1", "--format=%B")
    assert "Glix-Trust: trusted" in message


def test_a_change_that_breaks_a_host_is_refused_by_its_name_and_main_stays(machine: Split, tmp_path: Path) -> None:
    boom = _flake(machine, tmp_path, "boom", '{ outputs = _: { packages.x86_64-linux.default = throw "boom"; }; }')
    head, refs = machine.head, machine.at.git("for-each-ref")
    with machine.at.as_root() as client:
        for options in ({}, {"dry_run": True}):
            failed = client.run("Add", refs=[boom], allow_local=True, **options)
            assert failed["state"] == "failed", failed
            assert failed["error"]["name"] == "EvaluationFailed"
            assert failed["error"]["message"].startswith(f"{HOST} does not evaluate because of boom: ")
            assert failed["error"]["message"].endswith("\nNothing was changed.")
        assert (machine.head, machine.at.git("for-each-ref")) == (head, refs)
        # who may leave the evaluation out breaks it for everybody, and then others are warned, not held up
        done = client.run("Add", refs=[boom], allow_local=True, evaluate=False)
        assert done["state"] == "succeeded", done.get("error")
        assert "Glix-Trust: untrusted" in machine.at.git("log", "-1", "--format=%B")
        warned = client.run("Add", refs=["ripgrep"])
        assert warned["state"] == "succeeded"
        assert warned["warnings"][0].endswith("did not evaluate before this change either.")
        assert client.run("Remove", names=["boom", "ripgrep"])["state"] == "succeeded"
        assert not client.run("Remove", names=["hello"]).get("warnings")
    assert machine.at.git("status", "--porcelain") == ""


def test_a_free_package_that_needs_a_refused_one_is_declined_by_both_names(machine: Split) -> None:
    path = f"hosts/{HOST}/default.nix"
    before = machine.at.git("show", f"HEAD:{path}") + "\n"
    overlay = "nixpkgs.overlays = [ (_: old: { free = old.hello // { inherit (old.unfreepkg) drvPath outPath; }; }) ];"
    machine.at.commit({path: before.replace("imports =", f"{overlay}\n  imports =", 1)})
    head = machine.head
    with machine.at.as_root() as client:
        error = client.run("Add", refs=["free"])["error"]
        assert error["name"] == "ConsentNeeded", error
        assert error["message"] == "This needs your consent: free needs unfreepkg-1.0, which is unfree."
        assert "--allow-unfree" in error["hint"]
        assert (error["details"]["packages"], error["details"]["options"]) == (["free"], ["allow_unfree"])
        assert machine.head == head
        done = client.run("Add", refs=["free"], allow_unfree=True)
        assert done["state"] == "succeeded", done.get("error")
        assert client.run("Remove", names=["free"])["state"] == "succeeded"
    machine.at.commit({path: before})


def _flake(machine: Split, tmp_path: Path, name: str, text: str) -> str:
    """A flake in a repository that everybody can read."""
    folder = machine.at.root / "tmp" / f"{tmp_path.name}-{name}" / name
    url = make_git_flake(folder, {"flake.nix": text})
    for place in (folder.parent, folder):
        place.chmod(0o755)
    subprocess.run(["chown", "-R", f"{EVALUATOR}:{EVALUATOR}", os.fspath(folder)], check=True)
    return url


# -- a hostile evaluation ----------------------------------------------------------------------------------------------


def _in_store(machine: Split) -> bool:
    """Whether the canary is anywhere in the store or in the log of the daemon."""
    store = machine.environment["NIX_STORE_DIR"]
    found = subprocess.run(["grep", "-rqF", CANARY, store], check=False).returncode
    assert found in (0, 1)
    return found == 0 or CANARY in machine.at.log()


def test_a_hostile_evaluation_reads_no_file_of_root_and_not_the_repository(machine: Split, tmp_path: Path) -> None:
    secret = machine.at.root / "secret"
    secret.mkdir(mode=0o755)
    (secret / "canary").write_text(CANARY)
    (secret / "canary").chmod(0o600)
    apart = EvaluatorProgram(
        EvaluatorSocket(machine.helpers.evaluator.path), Git(machine.at.repository, Processes(machine.environment))
    )
    head = machine.head
    for url in (f"path:{secret}", f"git+file://{machine.at.repository}", f"path:{machine.at.repository}"):
        flake = f'{{ inputs.x = {{ url = "{url}"; flake = false; }}; outputs = _: {{ }}; }}'
        done = apart.run(Job(Kind.LOCK), {"flake.nix": Leaf(REGULAR, flake.encode())})
        assert done.status != 0, url
        assert CANARY.encode() not in done.stdout + done.stderr
    for body in (
        f"builtins.readFile {secret}/canary",
        f'builtins.readFile "{secret}/canary"',
        'builtins.getEnv "HOME"',
    ):
        done = apart.run(Job(Kind.EXPRESSION, head, body=body))
        assert CANARY.encode() not in done.stdout + done.stderr
        assert done.stdout in (b"", b'""'), body
    assert not _in_store(machine)
    assert machine.head == head
    # the same as root: nix copies what only root may read to where everybody reads it
    own = OwnEvaluator(
        Processes({**machine.environment, "NIX_REMOTE": "local", "HOME": os.fspath(tmp_path)}), secret, tmp_path / "own"
    )
    flake = f'{{ inputs.x = {{ url = "path:{secret}"; flake = false; }}; outputs = _: {{ }}; }}'
    done = own.run(Job(Kind.LOCK), {"flake.nix": Leaf(REGULAR, flake.encode())})
    assert done.status == 0, done.stderr
    assert _in_store(machine)


def test_the_evaluator_can_not_move_the_branch_nor_reach_the_other_sockets(machine: Split) -> None:
    head = machine.head
    tries = (
        [
            "git",
            "-c",
            "safe.directory=*",
            "-C",
            f"{machine.at.repository}",
            "update-ref",
            "refs/heads/main",
            f"{head}~1",
        ],
        ["sh", "-c", f"echo > {machine.at.repository}/.git/refs/heads/main"],
        ["sh", "-c", f"cat {machine.at.repository}/flake.nix"],
        ["python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect('{machine.helpers.socket}')"],
        ["python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect('{machine.helpers.evaluator.path}')"],
    )
    for words in tries:
        done = subprocess.run(
            machine.as_evaluator(*words), env=machine.environment, capture_output=True, cwd="/", check=False
        )
        assert done.returncode != 0, words
        assert b"denied" in done.stderr.lower() or b"not permitted" in done.stderr.lower(), done.stderr
    assert machine.head == head


# -- who may switch ------------------------------------------------------------------------------------------------------


def test_a_user_switches_to_what_is_trusted_and_not_to_what_is_not(machine: Split, tmp_path: Path) -> None:
    current = machine.helpers.current
    switch(machine)
    assert (current / "nixos-version").exists()
    (done,) = machine.at.ask("alice", "bus", [("Add", {"refs": ["firefox"], "apply": True})])
    assert done["state"] == "succeeded", done
    assert (current / "sw" / "bin" / "firefox").exists()

    tool = _flake(
        machine,
        tmp_path,
        "tool",
        '{ outputs = _: { packages.x86_64-linux.default = derivation { name = "tool"; system = "x86_64-linux"; '
        'builder = "/bin/sh"; args = [ "-c" "/bin/mkdir -p $out/bin; echo > $out/bin/tool" ]; }; }; }',
    )
    with machine.at.as_root() as client:
        done = client.run("Add", refs=[tool], allow_local=True)
        assert done["state"] == "succeeded", done.get("error")
    before = os.readlink(machine.helpers.profile)
    (refused,) = machine.at.ask("alice", "bus", [("Rebuild", {})])
    assert (refused["state"], refused["error"]) == ("failed", "NotAuthorised")
    assert os.readlink(machine.helpers.profile) == before
    assert not (current / "sw" / "bin" / "tool").exists()


def test_nobody_else_switches(machine: Split) -> None:
    before = os.readlink(machine.helpers.profile)
    for user in ("bob", "nobody"):
        (refused,) = machine.at.ask(user, "bus", [("Rebuild", {})])
        assert refused["error"] == "NotAuthorised", refused
    (dismissed,) = machine.at.ask("wanda", "socket", [("Rebuild", {})])
    assert dismissed["error"] == "NotAuthorised", dismissed
    assert os.readlink(machine.helpers.profile) == before


def test_polkit_that_is_gone_lets_nobody_through(machine: Split) -> None:
    before = os.readlink(machine.helpers.profile)
    machine.at.machine.end_polkitd()
    try:
        (refused,) = machine.at.ask("alice", "bus", [("Rebuild", {})])
    finally:
        machine.at.machine.start_polkitd()
    assert refused["error"] == "AuthorisationUnavailable", refused
    assert os.readlink(machine.helpers.profile) == before


# -- one's own home ------------------------------------------------------------------------------------------------------


def test_a_user_puts_packages_of_the_own_home_into_effect_without_an_administrator(machine: Split) -> None:
    before = os.readlink(machine.helpers.profile)
    home = machine.at.root / "tmp" / "home"
    home.mkdir(mode=0o700)
    os.chown(home, UIDS["alice"], UIDS["alice"])
    words = ("add", "git", "--scope", "home", "--user", "alice", "--apply")
    done = machine.at.glixctl("alice", *words, extra={"HOME": os.fspath(home)})
    assert done.returncode == 0, done.stderr
    assert "activated the home of alice" in done.stdout
    current = home / ".local/state/home-manager/gcroots/current-home"
    assert (current / "home-path" / "bin" / "git").exists()
    assert current.lstat().st_uid == UIDS["alice"]
    assert os.readlink(machine.helpers.profile) == before

    words = ("add", "ripgrep", "--scope", "home", "--user", "alice", "--apply")
    refused = machine.at.glixctl("bob", *words, extra={"HOME": os.fspath(home)})
    assert refused.returncode == Exit.UNAVAILABLE, refused.stderr  # an administrator, and nobody asks for one
    nothing = machine.at.glixctl("bob", "rebuild", "--home")
    assert (nothing.returncode, "has no packages for the home of bob" in nothing.stderr) == (Exit.NOT_FOUND, True)
