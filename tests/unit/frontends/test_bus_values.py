# SPDX-License-Identifier: GPL-3.0-or-later
"""Every value of the table has a type on the bus and comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from glixd import api
from glixd.backends.bus import Variant
from glixd.frontends.bus_values import empty, encoded, plain, signature


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, "s"),
        (bool, "b"),
        (int, "x"),
        (float, "d"),
        (api.Scope | None, "s"),
        (api.PackageName, "s"),
        (tuple[api.Reference, ...], "as"),
        (api.Health, "a{sv}"),
        (tuple[api.Host, ...], "aa{sv}"),
        (dict[str, str], "a{ss}"),
        (dict[str, str | int | bool | list[str]], "a{sv}"),
        (api.Outcome | None, "a{sv}"),
    ],
)
def test_annotations_have_signatures(annotation: Any, expected: str) -> None:
    assert signature(annotation) == expected


def test_what_has_no_type_on_the_bus_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError):
        signature(complex)


def test_every_parameter_and_result_of_the_table_has_a_type_on_the_bus() -> None:
    for row in api.OPERATIONS.values():
        for model in (row.parameters, row.result):
            for field in model.model_fields.values():
                assert signature(field.annotation)


def test_a_model_comes_back_as_its_json() -> None:
    transaction = api.Transaction(
        id="01jzzzzzzzzzzzzzzzzzzzzzzz",
        operation="Add",
        state="failed",
        uid=1000,
        login="ada",
        created="2026-01-01T00:00:00Z",
        dry_run=False,
        warnings=("one", "two"),
        outcome=api.Outcome(
            summary="Nothing.",
            changed=False,
            changes=(api.Change(action="added", host="laptop", name="a", flake="f", scope="home"),),
        ),
        error=api.ErrorInfo(
            code=-32038, name="Internal", message="It broke.", details={"n": 1, "yes": True, "all": ["a"], "s": "t"}
        ),
    )
    assert plain(encoded(transaction)) == transaction.model_dump(mode="json", exclude_none=True)


def test_a_truth_is_no_number() -> None:
    details = encoded(api.ErrorInfo(code=1, name="n", message="m", details={"yes": True, "n": 1}))["details"]
    assert details == Variant("a{sv}", {"yes": Variant("b", True), "n": Variant("x", 1)})


def test_text_that_would_end_the_connection_is_mended_everywhere() -> None:
    event = api.ProgressEvent(transaction="t", state="running", step="a\0b", lines=("c\0",))
    assert plain(encoded(event)) == {"transaction": "t", "state": "running", "step": "a\ufffdb", "lines": ["c\ufffd"]}


@pytest.mark.parametrize("kind", ["s", "b", "x", "d", "as", "aa{sv}", "a{sv}", "a{ss}"])
def test_every_type_has_an_empty_value(kind: str) -> None:
    assert not Variant(kind, empty(kind)).value
