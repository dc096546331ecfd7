# SPDX-License-Identifier: GPL-3.0-or-later
"""What callers are told about errors and people."""

from __future__ import annotations

import os
import pwd

from structlog.testing import capture_logs

from glixd.errors import NotFound
from glixd.frontends.wire import explained, login
from glixd.protocol import ErrorCode


def test_an_error_for_callers_is_told_as_it_is() -> None:
    error = NotFound("No.")
    assert explained(error, "Show") is error


def test_any_other_is_internal_and_the_log_has_the_rest() -> None:
    with capture_logs() as logs:
        told = explained(KeyError("a secret"), "Show")
    assert told.code is ErrorCode.INTERNAL
    assert "secret" not in told.message + told.hint
    assert [(entry["event"], entry["operation"], str(entry["exc_info"])) for entry in logs] == [
        ("defect", "Show", "'a secret'")
    ]


def test_a_uid_has_a_login_or_stands_for_itself() -> None:
    assert login(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert login(4_000_000_001) == "4000000001"
