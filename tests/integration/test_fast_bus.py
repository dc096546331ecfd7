# SPDX-License-Identifier: GPL-3.0-or-later
"""The other D-Bus library: all that holds on the bus holds with it too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.hermetic import PROJECT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CONTRACT = (
    "tests/integration/test_bus_transport.py",
    "tests/integration/test_dbus_frontend.py",
    "tests/unit/frontends/test_bus_values.py",
)


def _run(library: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GLIXD_BUS_LIBRARY": library}
    return subprocess.run(
        [sys.executable, *words], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_contract_of_the_bus_holds_with_the_fast_library(tmp_path_factory: pytest.TempPathFactory) -> None:
    report = tmp_path_factory.mktemp("fast") / "report.xml"
    done = _run(
        "dbus-fast", "-m", "pytest", "-q", "-o", f"cache_dir={report.parent}", f"--junitxml={report}", *CONTRACT
    )
    assert done.returncode == 0, done.stdout
    (suite,) = ElementTree.parse(report).iter("testsuite")
    assert int(suite.get("tests", "0")) >= 80
    assert suite.get("skipped") == suite.get("failures") == suite.get("errors") == "0"


@pytest.mark.parametrize("library", ["dbus-next", "dbus-fast"])
def test_the_variable_chooses_the_library_and_the_other_is_not_loaded(library: str) -> None:
    loaded = (
        "import sys; from glixd.backends import bus; print(*sorted({'dbus_next', 'dbus_fast'} & sys.modules.keys()))"
    )
    assert _run(library, "-c", loaded).stdout.split() == [library.replace("-", "_")]


def test_a_library_that_nobody_knows_is_refused_in_a_sentence(tmp_path: Path) -> None:
    places = [f"--{name}={tmp_path / name}" for name in ("repository", "state", "socket")]
    done = _run("dbus-quick", "-m", "glixd", "--bus", "session", *places)
    assert done.returncode == 1
    assert not (tmp_path / "socket").exists()
    assert done.stderr.startswith("glixd: GLIXD_BUS_LIBRARY is 'dbus-quick'")
    assert "Traceback" not in done.stderr


def test_another_release_than_the_known_one_fails_at_import() -> None:
    other = "import dbus_fast.__version__ as v; v.__version__ = '9.9'; import glixd.backends.bus"
    done = _run("dbus-fast", "-c", other)
    assert "dbus-fast 5.2.0 is needed, and 9.9 was found" in done.stderr


def test_another_inside_than_the_known_one_fails_at_import() -> None:
    other = "import dbus_next; del dbus_next.SignatureTree._cache; import glixd.backends.bus"
    done = _run("dbus-next", "-c", other)
    assert "dbus-next has other private parts" in done.stderr
