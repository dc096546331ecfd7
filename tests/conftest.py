# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every test: nothing of the user's is read or written, and no test is skipped quietly."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

# Read when hypothesis is imported, which is later than this.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CHECKOUT / ".cache" / "hypothesis"))

from hypothesis import settings  # noqa: E402 - the folder above is read at its import

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("GLIX_HYPOTHESIS", "same"))
"""Two runs in a row say the same, however busy the machine is; GLIX_HYPOTHESIS=explore looks for what nobody saw yet."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell lets what it starts in the background ignore interruptions, and so would every program that a test interrupts."""

_FOREIGN = ("GIT_", "NIX_", "XDG_", "DBUS_", "GLIX_", "LC_", "PYTEST_ADDOPTS")
"""Prefixes of variables that would let the caller's session shine through."""
_KEPT = ("GLIX_PYTHON", "GLIX_CHECKOUT", "NIX_SSL_CERT_FILE")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the closed list of reasons for a skip."""
    parser.addini("allowed_skips", "reasons for which a test may be skipped, as regular expressions", type="linelist")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip whose reason is not on the list into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _refuse_unlisted(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    if report.skipped:
        _refuse_unlisted(report, collector.config)
    return report


def _refuse_unlisted(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not any(re.fullmatch(allowed, reason) for allowed in config.getini("allowed_skips")):
        report.outcome = "failed"
        report.longrepr = f"a skip is no pass, and this reason is not in allowed_skips of pyproject.toml: {reason}"


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the session a home, a runtime folder and a git identity of its own."""
    home = tmp_path_factory.mktemp("home")
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_FOREIGN) and name not in _KEPT]:
            patch.delenv(name)
        for name, folder in {
            "HOME": home,
            "XDG_CACHE_HOME": home / ".cache",
            "XDG_CONFIG_HOME": home / ".config",
            "XDG_DATA_HOME": home / ".local/share",
            "XDG_RUNTIME_DIR": runtime,
            "XDG_STATE_HOME": home / ".local/state",
        }.items():
            patch.setenv(name, str(folder))
        for name, value in {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
            "LANG": "C.UTF-8",
        }.items():
            patch.setenv(name, value)
        yield
