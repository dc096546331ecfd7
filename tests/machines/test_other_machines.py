# SPDX-License-Identifier: GPL-3.0-or-later
"""Other machines are switched over a real ssh: each has an address in a network, a store and a profile of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glixd.protocol import Exit
from tests.support.daemon import RunningDaemon, Site, glixctl_command
from tests.support.network import NOWHERE, PATIENCE, Machine, Network

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("daemon")]

BOTH = ("--target-host", "pi=root@pi", "--target-host", "desk=root@desk")
PI = ("--host", "pi", "--target-host", "root@pi")


@contextmanager
def begun(site: Site, lan: Network, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A glixctl that runs in the network, and no longer than this."""
    with subprocess.Popen(
        lan.command(*glixctl_command(*words)),
        env=site.environment(lan.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def glixctl(site: Site, lan: Network, *words: str) -> subprocess.CompletedProcess[str]:
    """Run glixctl in the network to its end."""
    with begun(site, lan, *words) as process:
        output, said = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, said)


def documents(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What --json says of each host."""
    return {row["host"]: row for row in json.loads(done.stdout)["hosts"]}


def configure(site: Site, daemon: RunningDaemon, text: str, host: str = "pi") -> None:
    """Commit a default.nix that holds these settings."""
    site.write({f"hosts/{host}/default.nix": f"{{ ... }}: {{ users.users.alice.isNormalUser = true; {text} }}\n"})
    daemon.done("Adopt", everything=True)


def switched(site: Site, lan: Network, pi: Machine) -> str:
    """Switch pi for the first time; its system."""
    done = glixctl(site, lan, "rebuild", *PI)
    assert done.returncode == Exit.DONE, done.stderr
    assert pi.profile == "system-1-link"
    return pi.running


# -- several machines ----------------------------------------------------------------------------------------------


def test_one_is_switched_and_stays_so_where_another_is_unreachable(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    lan.name("desk", NOWHERE)
    done = glixctl(site, lan, "rebuild", *BOTH)
    assert done.returncode == Exit.UNREACHABLE
    header, first, second = done.stdout.splitlines()
    commit = site.git("rev-parse", "--short=7", "HEAD")
    assert header.split() == ["HOST", "MACHINE", "RESULT", "GENERATION", "COMMIT"]
    assert first.split() == ["pi", "root@pi", "switched", "1", commit]
    assert second.split() == ["desk", "root@desk", "failed:", "root@desk", "can't", "be", "reached", commit]
    assert "glixctl: desk: root@desk can't be reached." in done.stderr
    assert "ssh: connect to host 10.77.0.250 port 22: No route to host" in done.stderr
    assert "hint: This has to work: ssh root@desk true" in done.stderr
    assert pi.profile == "system-1-link"
    assert pi.running == pi.boots
    assert pi.running.endswith("-nixos-system-pi-26.05.mini")
    assert (pi.root / "store" / Path(pi.running).name / "nixos-version").exists(), "it is in the store of that machine"


def test_both_are_switched_each_to_its_own_and_json_says_the_same(site: Site, lan: Network) -> None:
    machines = {name: lan.start(name) for name in ("pi", "desk")}
    done = glixctl(site, lan, "rebuild", *BOTH, "--parallel", "1", "--json")
    assert done.returncode == Exit.DONE, done.stderr
    for host, row in documents(done).items():
        assert (row["state"], row["activation"], row["generation"]) == ("switched", "done", 1)
        assert row["commit"] == site.git("rev-parse", "HEAD")
        assert machines[host].running == row["path"]
        assert f"-nixos-system-{host}-" in row["path"]


def test_a_generation_of_another_machine_is_tagged_and_listed_as_one_of_this_is(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    row = documents(glixctl(site, lan, "rebuild", *PI, "--json"))["pi"]
    [listed] = json.loads(glixctl(site, lan, "generations", "--host", "pi", "--json").stdout)["generations"]
    assert listed["number"] == row["generation"] == 1
    assert listed["path"] == row["path"] == pi.running
    assert listed["commit"] == row["commit"] == site.git("rev-parse", "glix/gen/pi/1^{commit}")
    assert listed["transaction"] == row["transaction"]
    assert site.git("cat-file", "-t", "glix/gen/pi/1") == "tag"


def test_what_did_not_become_a_generation_gets_no_tag(site: Site, lan: Network, daemon: RunningDaemon) -> None:
    pi = lan.start("pi")
    switched(site, lan, pi)
    configure(site, daemon, 'system.extraActivation = "false";')
    for words in (("switch", "--rollback-on-failure"), ("test",), ("dry-activate",), ("switch", "--dry-run")):
        glixctl(site, lan, "rebuild", *words, *PI)
    assert site.git("tag", "--list", "glix/gen/*") == "glix/gen/pi/1"


def test_only_what_was_built_for_another_machine_is_tagged(site: Site, daemon: RunningDaemon) -> None:
    added = daemon.done("Add", refs=["hello"], evaluate=False)["id"]
    here = daemon.done("Rebuild", host="laptop", action="build")["id"]
    for transaction, name in ((added, "Conflict"), (here, "UnknownGeneration"), ("0" * 26, "UnknownTransaction")):
        error = daemon.failed("RememberGeneration", build=transaction, generation=1)
        assert error["name"] == name, error
    assert site.git("tag", "--list") == ""


def test_that_no_tag_could_be_written_is_a_warning(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    (site.repository / ".git/refs/tags").mkdir(exist_ok=True)
    (site.repository / ".git/refs/tags/glix").write_text(f"{site.git('rev-parse', 'HEAD')}\n")
    done = glixctl(site, lan, "rebuild", *PI)
    assert done.returncode == Exit.DONE
    assert "warning: pi: generation 1 has no tag in the repository: " in done.stderr
    assert pi.running == pi.boots != ""


@pytest.mark.parametrize("parallel", [1, 2])
def test_machines_are_switched_at_once_and_no_more_than_is_allowed(
    site: Site, lan: Network, daemon: RunningDaemon, tmp_path: Path, parallel: int
) -> None:
    gates = {name: tmp_path / name for name in ("pi", "desk")}
    for name, gate in gates.items():
        os.mkfifo(gate)
        lan.start(name)
        script = f"printf 'at the \\\\033[31mgate\\\\n' >&2; read word < {gate}"
        configure(site, daemon, f'system.extraActivation = "{script}";', name)
    with begun(site, lan, "rebuild", *BOTH, "--parallel", str(parallel)) as process:
        said: list[str] = []
        for passed in range(2):
            waiting = min(2, passed + parallel)
            while len(at_gates := [line for line in said if "at the" in line]) < waiting:
                said.append(process.stderr.readline() if process.stderr else "")
                assert said[-1], said
            assert len([line for line in said if "activating /" in line]) == waiting, "no more than that"
            gates[at_gates[passed].partition(":")[0]].write_text("go\n")
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.DONE, output
    assert "\x1b" not in "".join(said)
    assert r"at the \x1b[31mgate" in "".join(said)


def test_a_host_that_does_not_build_keeps_no_other_from_being_switched(
    site: Site, lan: Network, daemon: RunningDaemon
) -> None:
    pi = lan.start("pi")
    configure(site, daemon, 'system.extraActivation = throw "no such thing";', host="desk")
    done = glixctl(site, lan, "rebuild", *BOTH, "--json")
    rows = documents(done)
    assert done.returncode == Exit.FAILED
    assert rows["desk"]["error"]["name"] == "EvaluationFailed"
    assert rows["pi"]["state"] == "switched"
    assert pi.running == rows["pi"]["path"]


# -- who can be reached --------------------------------------------------------------------------------------------


def test_a_machine_whose_key_is_not_known_is_refused_with_the_command_to_look_at_it(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    lan.trust("pi", None)
    done = glixctl(site, lan, "rebuild", *PI, "--json")
    error = documents(done)["pi"]["error"]
    assert (done.returncode, error["name"]) == (Exit.REFUSED, "HostKeyUnknown")
    assert error["hint"] == "Look at its key and accept it once with: ssh root@pi true"
    assert pi.running == ""


def test_a_machine_with_another_key_than_the_known_one_is_refused(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    lan.trust("pi", (lan.root / "key.pub").read_text())
    done = glixctl(site, lan, "rebuild", *PI, "--json")
    error = documents(done)["pi"]["error"]
    assert (done.returncode, error["name"]) == (Exit.REFUSED, "HostKeyChanged")
    assert "ssh-keygen -R pi" in error["hint"]
    assert pi.running == ""


def test_a_machine_that_does_not_let_us_in_says_what_is_missing(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    (pi.root / "authorized_keys").write_text("")
    done = glixctl(site, lan, "rebuild", *PI, "--json")
    error = documents(done)["pi"]["error"]
    assert (done.returncode, error["name"]) == (Exit.NOT_AUTHORISED, "LoginRefused")
    assert "Permission denied" in error["message"]


# -- what an activation can come to --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code", "activation"),
    [
        ('system.failedUnits = [ "web.service" ]; system.switchStatus = 4;', Exit.UNITS_FAILED, "units-failed"),
        ("system.switchStatus = 100;", Exit.REBOOT_NEEDED, "reboot-needed"),
    ],
)
def test_exit_codes_mean_there_what_they_mean_here(
    site: Site, lan: Network, daemon: RunningDaemon, settings: str, code: int, activation: str
) -> None:
    pi = lan.start("pi")
    configure(site, daemon, settings)
    done = glixctl(site, lan, "rebuild", *PI, "--json")
    row = documents(done)["pi"]
    assert (done.returncode, row["state"], row["activation"]) == (code, "switched", activation)
    assert pi.running == row["path"]


@pytest.mark.parametrize("goes_back", [False, True])
def test_a_failed_activation_is_told_and_undone_where_that_is_wanted(
    site: Site, lan: Network, daemon: RunningDaemon, goes_back: bool
) -> None:
    pi = lan.start("pi")
    before = switched(site, lan, pi)
    configure(site, daemon, 'system.extraActivation = "echo no luck >&2; false";')
    done = glixctl(site, lan, "rebuild", *PI, "--json", *(["--rollback-on-failure"] if goes_back else []))
    row = documents(done)["pi"]
    assert (done.returncode, row["error"]["name"]) == (Exit.FAILED, "ActivationFailed")
    assert "no luck" in row["error"]["message"]
    assert row.get("restored") == (1 if goes_back else None)
    assert pi.profile == ("system-1-link" if goes_back else "system-2-link")
    assert pi.boots == (before if goes_back else row["path"])
    assert pi.running == before


def test_boot_and_test_do_there_what_they_do_here(site: Site, lan: Network, daemon: RunningDaemon) -> None:
    pi = lan.start("pi")
    before = switched(site, lan, pi)
    configure(site, daemon, 'boot.kernelVersion = "6.12";')
    assert glixctl(site, lan, "rebuild", "test", *PI).returncode == Exit.DONE
    tested = pi.running
    assert (pi.profile, pi.boots) == ("system-1-link", before)
    assert tested != before
    configure(site, daemon, 'boot.kernelVersion = "6.13";')
    assert glixctl(site, lan, "rebuild", "boot", *PI).returncode == Exit.DONE
    assert pi.running == tested
    assert pi.profile == "system-2-link"
    assert pi.boots not in (before, tested)


# -- looking first -------------------------------------------------------------------------------------------------


def test_a_dry_run_says_the_commands_which_do_the_same_by_hand(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    done = glixctl(site, lan, "rebuild", *PI, "--dry-run", "--json")
    row = documents(done)["pi"]
    assert (done.returncode, row["state"]) == (Exit.DONE, "dry run")
    assert not list((pi.root / "store").iterdir())
    assert pi.running == pi.profile == ""
    shown = glixctl(site, lan, "rebuild", *PI, "--dry-run").stdout
    assert [line for line in shown.splitlines() if line.startswith("pi: ")] == [
        f"pi: {command}" for command in row["commands"]
    ]
    for command in row["commands"]:
        subprocess.run(lan.command(*shlex.split(command)), env=site.environment(lan.environment), check=True)
    assert pi.running == row["path"]
    assert pi.profile == "system-1-link"


def test_a_dry_activation_says_which_units_would_change_there(site: Site, lan: Network, daemon: RunningDaemon) -> None:
    pi = lan.start("pi")
    before = switched(site, lan, pi)
    configure(site, daemon, 'systemd.services = { web = "one"; };')
    done = glixctl(site, lan, "rebuild", "dry-activate", *PI)
    assert done.returncode == Exit.DONE
    assert "pi: would start the following units: web" in done.stderr
    assert (pi.running, pi.profile) == (before, "system-1-link")


def test_a_confirmation_is_refused_where_nothing_could_go_back_by_itself(site: Site, lan: Network) -> None:
    pi = lan.start("pi")
    before = switched(site, lan, pi)
    done = glixctl(site, lan, "rebuild", *PI, "--confirm-within", "5", "--json")
    assert documents(done)["pi"]["error"]["name"] == "UnsupportedHere"
    assert (pi.running, pi.profile) == (before, "system-1-link")


# -- building elsewhere --------------------------------------------------------------------------------------------


def test_a_system_is_built_on_another_machine_and_comes_from_there(
    site: Site, lan: Network, daemon: RunningDaemon
) -> None:
    pi, desk = lan.start("pi"), lan.start("desk")
    configure(site, daemon, 'boot.kernelVersion = "6.12.4711";')  # which nobody has built yet
    done = glixctl(site, lan, "rebuild", *PI, "--build-host", "root@desk", "--json")
    row = documents(done)["pi"]
    assert done.returncode == Exit.DONE, done.stderr
    assert pi.running == row["path"]
    assert desk.has(row["path"])
    assert not os.path.exists(row["path"]), "it was not built here, and did not come by"


# -- interrupting --------------------------------------------------------------------------------------------------


def test_an_interruption_waits_for_a_machine_that_is_being_switched(
    site: Site, lan: Network, daemon: RunningDaemon, tmp_path: Path
) -> None:
    pi = lan.start("pi")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    configure(site, daemon, f'system.extraActivation = "echo at the gate >&2; read word < {gate}";')
    with begun(site, lan, "rebuild", *PI) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("at the gate" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert any("is waited for" in line for line in lines)
        gate.write_text("go\n")
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.DONE
    assert "switched" in output
    assert pi.running == pi.boots
