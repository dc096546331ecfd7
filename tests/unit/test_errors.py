# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of errors: what each class stands for, and what an error carries."""

from __future__ import annotations

import pytest

from glixd import errors
from glixd.errors import Cancelled, Detail, Failed, GlixError, InvalidRequest, NotAllowed, NotFound, Refused, invalid
from glixd.protocol import ErrorCode

CLASSES = {
    GlixError: ErrorCode.INTERNAL,
    InvalidRequest: ErrorCode.INVALID_ARGUMENT,
    NotFound: ErrorCode.UNKNOWN_PACKAGE,
    Refused: ErrorCode.CONFLICT,
    NotAllowed: ErrorCode.NOT_AUTHORISED,
    Failed: ErrorCode.INTERNAL,
    Cancelled: ErrorCode.CANCELLED,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_has_a_code_of_its_own_unless_one_is_given(kind: type[GlixError]) -> None:
    assert kind("It went wrong.").code is CLASSES[kind]
    assert kind("It went wrong.", code=ErrorCode.BUSY).code is ErrorCode.BUSY


def test_the_docstring_draws_every_class() -> None:
    assert errors.__doc__ is not None
    for kind in CLASSES:
        assert kind.__name__ in errors.__doc__
    assert set(GlixError.__subclasses__()) == set(CLASSES) - {GlixError}


def test_an_error_is_its_sentence() -> None:
    error = Refused("The host is there.", hint="Name another.", details={"host": "laptop"})
    assert str(error) == error.message == "The host is there."
    assert (error.hint, error.details) == ("Name another.", {"host": "laptop"})


def test_details_are_a_copy() -> None:
    details: dict[str, Detail] = {"host": "laptop"}
    error = Refused("No.", details=details)
    details["host"] = "other"
    assert error.details == {"host": "laptop"}
    assert GlixError("a").details is not GlixError("b").details


def test_an_invalid_argument_names_which_and_why() -> None:
    error = invalid("host", "it is no name", hint="Choose another.")
    assert isinstance(error, InvalidRequest)
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert error.message == "host: it is no name"
    assert error.hint == "Choose another."
    assert error.details == {"argument": "host", "reason": "it is no name"}
