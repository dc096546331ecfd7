# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole system on a real systemd: each scenario of `inside/` runs in a booted machine, once with either bus.

A scenario is an ordinary test, run as root within the machine; here each is a test again, which fails when the scenario
failed and also when it did not run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from tests.support.container import boot, installed
from tests.support.hermetic import PROJECT

pytestmark = [pytest.mark.booted, pytest.mark.timeout(1500)]

INSIDE: Final = PROJECT / "tests" / "booted" / "inside"
BUSES: Final = {
    "dbus-daemon": (),
    "dbus-broker": ("--bind-ro=+/usr/lib/systemd/system/dbus-broker.service:/etc/systemd/system/dbus.service",),
}
"""How a bus is chosen: the broker's unit under the name that everything asks for."""
SETTINGS: Final = """\
[pytest]
addopts = --import-mode=importlib -ra -p no:cacheprovider
pythonpath = /checkout
python_files = scenario_*.py
junit_family = xunit1
"""
SCRIPT: Final = """\
set -eu
export PYTHONPATH=/pytest:/checkout PYTHONDONTWRITEBYTECODE=1
python3 -m pytest -c /shared/pytest.ini --rootdir=/checkout --confcutdir={inside} --junitxml=/shared/result.xml {inside}
"""


def _scenarios() -> Iterator[str]:
    """The tests in the files of `inside/`, by file and name; read, because they can be imported in the machine alone."""
    for path in sorted(INSIDE.glob("scenario_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.stem.removeprefix('scenario_')}::{node.name}"


@dataclass(frozen=True)
class Boot:
    """What became of the scenarios in one boot."""

    outcomes: dict[str, list[str]]
    """By scenario: for each of its cases nothing, or why it failed."""
    log: str


@pytest.fixture(scope="session", params=BUSES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """The outcome of one boot."""
    shared = tmp_path_factory.mktemp("shared")
    (shared / "pytest.ini").write_text(SETTINGS)
    script = SCRIPT.format(inside="/checkout/tests/booted/inside")
    status = boot(installed(), script, shared, *BUSES[request.param])
    log = f"the machine ended with {status}\n{_tail(shared / 'console.log')}\n{_tail(shared / 'log')}"
    result = shared / "result.xml"
    return Boot(_outcomes(result) if result.exists() else {}, log)


def _tail(file: Path) -> str:
    return file.read_text(errors="replace")[-6000:] if file.exists() else f"there is no {file.name}"


def _outcomes(result: Path) -> dict[str, list[str]]:
    outcomes: dict[str, list[str]] = {}
    for case in ElementTree.parse(result).iter("testcase"):
        file = Path(case.get("file") or case.get("classname", "").replace(".", "/") + ".py").stem
        name = f"{file.removeprefix('scenario_')}::{case.get('name', '').partition('[')[0]}"
        problems = [child for child in case if child.tag in ("failure", "error", "skipped")]
        outcomes.setdefault(name, []).append("\n".join(child.text or child.get("message") or "" for child in problems))
    return outcomes


@pytest.mark.parametrize("scenario", list(_scenarios()))
def test_scenario_holds_in_a_booted_machine(machine: Boot, scenario: str) -> None:
    cases = machine.outcomes.get(scenario)
    assert cases, f"it did not run: {machine.log}"
    problems = [problem for problem in cases if problem]
    assert not problems, "\n".join(problems)


def test_a_scenario_that_fails_or_does_not_run_is_a_failure(tmp_path: Path) -> None:
    result = tmp_path / "result.xml"
    result.write_text(
        '<testsuites><testsuite><testcase file="inside/scenario_a.py" name="test_one[x]"/>'
        '<testcase file="inside/scenario_a.py" name="test_one[y]"><failure message="no">wrong</failure></testcase>'
        '<testcase file="inside/scenario_a.py" name="test_two"><skipped message="no reason"/></testcase>'
        "</testsuite></testsuites>"
    )
    outcomes = _outcomes(result)
    assert outcomes == {"a::test_one": ["", "wrong"], "a::test_two": ["no reason"]}
    for scenario in ("a::test_one", "a::test_two", "a::test_three"):
        with pytest.raises(AssertionError):
            test_scenario_holds_in_a_booted_machine(Boot(outcomes, ""), scenario)
