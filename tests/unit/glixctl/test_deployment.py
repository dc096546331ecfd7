# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said about other machines, before and after anything is done with them."""

from __future__ import annotations

import threading

import pytest

from glixctl.deployment import Row, exit_code, targets
from glixctl.errors import ClientError, UsageError
from glixctl.machine import Machine, parse_address, ssh_environment
from glixctl.programs import Programs
from glixd.activator import system
from glixd.protocol import Activation, Exit


def row(code: int | None = None, activation: Activation = Activation.DONE) -> Row:
    made = Row("pi", "root@pi")
    made.facts |= {"state": "switched", "activation": activation.value, "failed_units": ["web.service"]}
    if code is not None:
        made.fail(ClientError("No luck:\n  at all", name="X", exit_code=code))
    return made


def test_machines_are_named_by_host_and_address() -> None:
    assert [(one.host, one.target) for one in targets(["pi=root@pi.lan", "desk=desk"], None)] == [
        ("pi", "root@pi.lan"),
        ("desk", "desk"),
    ]
    assert [(one.host, one.target) for one in targets(["root@10.0.0.7"], "pi")] == [("pi", "root@10.0.0.7")]


@pytest.mark.parametrize(
    ("texts", "host", "said"),
    [
        (["root@pi"], None, "names no host"),
        (["root@pi", "root@desk"], "pi", "host pi is named twice"),
        (["pi=root@x", "desk=root@x"], None, "machine root@x is named twice"),
        (["pi=-oProxyCommand=x"], None, "no address"),
        (["pi=root@-oProxyCommand"], None, "no address"),
        (["pi=a b"], None, "no address"),
        (["pi=root@pi;reboot"], None, "no address"),
        (["pi="], None, "no address"),
    ],
)
def test_what_names_no_machine_or_one_twice_is_refused(texts: list[str], host: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        targets(texts, host)


def test_an_address_may_be_one_of_ipv6_which_nix_wants_in_brackets() -> None:
    assert Machine(parse_address("root@fe80::1"), {}).store == "ssh://root@[fe80::1]"
    assert Machine(parse_address("pi"), {}).store == "ssh://pi"


def test_the_options_of_the_caller_come_before_ours_for_ssh_and_for_nix() -> None:
    environment = {"NIX_SSHOPTS": "-p 2222"}
    assert Machine("pi", environment).look()[:4] == ["ssh", "-p", "2222", "-oBatchMode=yes"]
    assert ssh_environment(environment)["NIX_SSHOPTS"].startswith("-p 2222 -oBatchMode=yes ")


def test_an_exit_status_of_an_activation_means_the_same_here_and_in_the_activator() -> None:
    for status in range(256):
        assert Activation.of(status) == system._STATUS.get(status, "failed")


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row(), row()], Exit.DONE),
        ([row(), row(activation=Activation.REBOOT_NEEDED)], Exit.REBOOT_NEEDED),
        ([row(activation=Activation.UNITS_FAILED), row(activation=Activation.REBOOT_NEEDED)], Exit.UNITS_FAILED),
        ([row(activation=Activation.UNITS_FAILED), row(Exit.UNREACHABLE)], Exit.UNREACHABLE),
        ([row(Exit.UNREACHABLE), row(Exit.UNREACHABLE)], Exit.UNREACHABLE),
        ([row(Exit.UNREACHABLE), row(Exit.NOT_AUTHORISED)], Exit.FAILED),
    ],
)
def test_the_exit_code_is_the_worst_of_all(rows: list[Row], code: int) -> None:
    assert exit_code(rows) == code


def test_a_line_of_the_table_says_what_became_of_a_machine() -> None:
    assert row().cells()[2] == "switched"
    assert row(activation=Activation.UNITS_FAILED).cells()[2] == "switched; failed: web.service"
    assert row(activation=Activation.REBOOT_NEEDED).cells()[2] == "switched; needs a reboot"
    assert row(1).cells()[2] == "failed: No luck"


def test_an_interruption_ends_what_may_be_ended_and_nothing_else() -> None:
    programs = Programs({"PATH": "/usr/bin:/bin"})
    ready, ended, kept = threading.Event(), [], []

    def copy() -> None:
        with pytest.raises(ClientError, match="interrupted"):
            programs.run(["sh", "-c", "echo x; sleep 600"], hear=lambda _line: ready.set(), stoppable=True)
        ended.append(True)

    def switch() -> None:
        kept.append(programs.run(["sh", "-c", "read gone; exit 4"], stoppable=False).status)

    threads = [threading.Thread(target=each) for each in (copy, switch)]
    for thread in threads:
        thread.start()
    assert ready.wait(60)
    programs.stop()
    for thread in threads:
        thread.join(60)
    assert (ended, kept) == ([True], [4])
    with pytest.raises(ClientError, match="interrupted"):
        programs.run(["true"], stoppable=True)
    assert programs.run(["true"], stoppable=False).status == 0


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ClientError, match="no-such-program can't be run: No such file"):
        Programs({}).run(["no-such-program"], stoppable=True)


@pytest.mark.parametrize("words", [["build", "--target-host=pi=pi"], ["--home", "--target-host=pi=pi"]])
def test_what_is_for_no_other_machine_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from glixctl.__main__ import main

    assert main(["rebuild", *words]) == Exit.USAGE
    assert "is for no other machine" in capsys.readouterr().err


def test_a_confirmation_without_another_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from glixctl.__main__ import main

    assert main(["rebuild", "--confirm-within", "5"]) == Exit.USAGE
    assert "--target-host" in capsys.readouterr().err
