# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of ./check turn red when they should: a gate that cannot fail is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(sys.executable).parent


def _run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)


# --- the floors ------------------------------------------------------------------------------------------------------

MODULES = """
glixd/__init__ glixd/__main__ glixd/daemon glixd/settings glixd/log glixd/errors glixd/protocol glixd/codes glixd/api glixd/engine
glixd/policy glixd/queue glixd/transaction glixd/model/__init__ glixd/model/manifest glixd/backends/__init__
glixd/backends/bus glixd/resolvers/__init__ glixd/frontends/__init__ glixd/frontends/dbus glixd/frontends/jsonrpc
glixd/evaluator/__init__ glixd/activator/__init__
glixctl/__init__ glixctl/__main__ glixctl/cli glixctl/client glixctl/output glixctl/bus glixctl/start glixctl/errors glixctl/commands/__init__
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A house with every floor and no furniture."""
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    for module in MODULES.split():
        path = tmp_path / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _furnish(tmp_path, "glixd/backends/bus_library", "import dbus_next.aio")
    _furnish(tmp_path, "glixctl/client", "from glixd import protocol")
    _furnish(tmp_path, "glixd/protocol", "import glixd.codes")  # the exception that the contract names has to be there
    return tmp_path


def _furnish(house: Path, module: str, statement: str) -> None:
    (house / f"{module}.py").write_text(f"{statement}\n")


def _lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    return _run(str(PROGRAMS / "lint-imports"), "--no-cache", cwd=house)


def test_a_house_with_imports_that_point_down_passes(house: Path) -> None:
    _furnish(house, "glixd/engine", "from glixd import policy, queue, transaction")
    linted = _lint_imports(house)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("glixd/errors", "import glixd.log"),
        ("glixd/policy", "import glixd.queue"),
        ("glixd/values", "import glixd.codes"),
        ("glixd/frontends/dbus", "from glixd.frontends import jsonrpc"),
        ("glixd/frontends/dbus", "import dbus_next"),
        ("glixd/model/manifest", "import asyncio"),
        ("glixd/evaluator/__init__", "import glixd.protocol"),
        ("glixd/a_module_without_a_floor", "import os"),
        ("glixctl/client", "import glixctl.cli"),
        ("glixctl/cli", "from glixd import errors"),
        ("glixctl/cli", "import tomlkit"),
    ],
)
def test_an_import_that_points_up_or_out_is_refused(house: Path, module: str, statement: str) -> None:
    _furnish(house, module, statement)
    linted = _lint_imports(house)
    assert linted.returncode == 1, linted.stdout
    assert "1 broken" in linted.stdout


# --- skips -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A project with our conftest and one allowed reason for a skip."""
    (tmp_path / "tests").mkdir()
    shutil.copy(CHECKOUT / "tests/conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\nallowed_skips =\n    needs a [a-z]+ with arms\n")
    return tmp_path


def _pytest(suite: Path, options: tuple[str, ...], **tests: str) -> subprocess.CompletedProcess[str]:
    for name, text in tests.items():
        (suite / f"tests/test_{name}.py").write_text(f"import pytest\n{text}\n")
    return _run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests", *options, cwd=suite)


WORKERS = pytest.mark.parametrize("options", [(), ("--numprocesses=1",)], ids=["one process", "a worker"])


@WORKERS
def test_a_skip_for_a_listed_reason_is_a_skip(suite: Path, options: tuple[str, ...]) -> None:
    ran = _pytest(suite, options, it="def test_it(): pytest.skip('needs a robot with arms')\ndef test_on(): pass")
    assert ran.returncode == 0, ran.stdout
    assert "1 passed, 1 skipped" in ran.stdout


@WORKERS
def test_a_skip_for_another_reason_is_a_failure(suite: Path, options: tuple[str, ...]) -> None:
    ran = _pytest(
        suite,
        options,
        called="def test_it(): pytest.skip('not today')",
        marked="@pytest.mark.skip(reason='not today')\ndef test_it(): pass",
        conditional="@pytest.mark.skipif(True, reason='not today')\ndef test_it(): pass",
        without_cases="@pytest.mark.parametrize('value', [])\ndef test_it(value): pass",
    )
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout
    assert "1 failed, 3 errors" in ran.stdout.splitlines()[-1]  # marks refuse while the test is set up
    assert ran.stdout.count("a skip is no pass") >= 4


@WORKERS
def test_a_module_that_skips_itself_is_a_failure(suite: Path, options: tuple[str, ...]) -> None:
    ran = _pytest(
        suite,
        options,
        called="pytest.skip('not today', allow_module_level=True)",
        absent="pytest.importorskip('no_such_module', reason='not today')",
    )
    assert ran.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), ran.stdout
    assert " error" in ran.stdout.splitlines()[-1]
    assert "a skip is no pass" in ran.stdout


# --- the runner ------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the runner and a test suite of two, sharing this one's virtual environment."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts/suites.py", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(PROGRAMS.parent)
    (tmp_path / "tests/house").mkdir(parents=True)
    (tmp_path / "tests/house/test_two.py").write_text("def test_one(): pass\ndef test_other(): pass\n")
    return tmp_path


def _suites(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return _run(sys.executable, "-I", "scripts/suites.py", *arguments, cwd=checkout, **environment)


def test_the_runner_says_which_tests_did_not_run_and_does_not_pass(checkout: Path) -> None:
    (checkout / "tests/house/test_two.py").write_text(
        "import pytest\ndef test_one(): pass\ndef test_other(): pytest.skip('no tmpfs can be mounted here')\n"
    )
    ran = _suites(checkout, "house")
    assert ran.returncode == 3, ran.stdout
    assert "NOT RUN house: 1 tests: no tmpfs can be mounted here" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "1 passed, 0 failed"


def test_the_runner_passes_when_all_pass(checkout: Path) -> None:
    ran = _suites(checkout, "house")
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.splitlines()[-1] == "2 passed, 0 failed"


@pytest.mark.parametrize(
    ("test", "last"),
    [
        ("def test_it(): assert False", "2 passed, 1 failed"),
        ("import no_such_module", "0 passed, 1 failed"),
        ("import os\ndef test_it(): os.kill(os.getpid(), 9)", "0 passed, 1 failed"),
        ("import pytest\n@pytest.fixture\ndef bad(): assert False\ndef test_it(bad): pass", "2 passed, 1 failed"),
    ],
)
def test_the_runner_fails_when_a_test_fails_or_a_suite_breaks(checkout: Path, test: str, last: str) -> None:
    (checkout / "tests/house/test_it.py").write_text(f"{test}\n")
    ran = _suites(checkout, "house")
    assert ran.returncode == 1, ran.stdout
    assert "FAILED  house" in ran.stdout
    assert ran.stdout.splitlines()[-1] == last


def test_failed_tests_are_named_at_the_end_with_what_they_said(checkout: Path) -> None:
    (checkout / "tests/house/test_it.py").write_text("def test_it():\n    assert 1 == 2, 'it is not'\n")
    ran = _suites(checkout, "house")
    assert "    failed: tests.house.test_it::test_it: AssertionError: it is not" in ran.stdout.splitlines()


def test_the_longest_suite_has_a_worker_for_each_core_and_nothing_beside_it(checkout: Path) -> None:
    (checkout / "tests/integration").mkdir()
    for name in ("one", "two"):
        (checkout / f"tests/integration/test_{name}.py").write_text("def test_it(): pass\n")
    ran = _suites(checkout, "house", "integration")
    assert "running house, integration; " in ran.stdout
    assert "ok      integration" in ran.stdout
    workers = "created: " in (checkout / ".cache/check/integration.log").read_text()
    assert workers is (len(os.sched_getaffinity(0)) > 1)


def test_a_suite_without_tests_is_a_failure(checkout: Path) -> None:
    (checkout / "tests/house/test_two.py").write_text("")
    ran = _suites(checkout, "house")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_a_static_check_that_fails_is_a_failure(checkout: Path) -> None:
    (checkout / "tests/house/test_two.py").write_text("import   os\n")
    ran = _suites(checkout, "format")
    assert ran.returncode == 1
    assert "would be reformatted" in ran.stdout


def test_what_cannot_run_is_named_and_is_no_pass(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (checkout / "tests/nix").mkdir()
    (checkout / "tests/nix/test_it.py").write_text("def test_it(): pass\n")
    ran = _suites(checkout, "house", "nix", PATH=str(tmp_path_factory.mktemp("empty")))
    assert ran.returncode == 3
    assert "NOT RUN nix: missing: git, nix, openssl" in ran.stdout.splitlines()
    assert ran.stdout.splitlines()[-1] == "0 passed, 0 failed"


def test_a_failure_outweighs_what_cannot_run(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (checkout / "tests/nix").mkdir()
    (checkout / "tests/nix/test_it.py").write_text("def test_it(): pass\n")
    (checkout / "tests/house/test_two.py").write_text("import   os\n")
    ran = _suites(checkout, "format", "nix", PATH=str(tmp_path_factory.mktemp("empty")))
    assert ran.returncode == 1


def test_an_unknown_suite_is_refused(checkout: Path) -> None:
    ran = _suites(checkout, "hosue")
    assert ran.returncode == 2
    assert "no such suite: hosue" in ran.stderr


# --- the package -----------------------------------------------------------------------------------------------------


def _build(kind: str, project: Path, output: Path) -> Path:
    built = _run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(output), cwd=project)
    assert built.returncode == 0, built.stderr
    (archive,) = output.iterdir()
    return archive


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_holds_both_programs_and_the_templates(tmp_path: Path) -> None:
    contents = _contents(_build("wheel", CHECKOUT, tmp_path / "out"))
    assert {"glixd/protocol.py", "glixctl/__main__.py", "glixd/templates/flake.nix"} <= contents.keys()
    assert {name.partition("/")[0].partition("-")[0] for name in contents} == {"glixd", "glixctl"}
    programs = next(text for name, text in contents.items() if name.endswith("entry_points.txt"))
    assert b"glixctl = glixctl.__main__:program" in programs.splitlines()


def test_the_source_distribution_builds_the_same_wheel(tmp_path: Path) -> None:
    sdist = _build("sdist", CHECKOUT, tmp_path / "sdist")
    assert _run("tar", "--extract", f"--file={sdist}", cwd=tmp_path).returncode == 0
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    rebuilt = _contents(_build("wheel", unpacked, tmp_path / "rebuilt"))
    assert rebuilt == _contents(_build("wheel", CHECKOUT, tmp_path / "built"))
