# SPDX-License-Identifier: GPL-3.0-or-later
"""The table: what every operation takes, and that nothing else passes the door."""

from __future__ import annotations

import math
import re
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from glixd import api
from glixd.api import Kind, Operation, Policy
from glixd.errors import InvalidRequest
from glixd.frontends import bus_values
from glixd.protocol import MAX_REFERENCE_BYTES, MAX_REFERENCES, PAGE_SIZE, ErrorCode

MUTATION = {"host": "s", "dry_run": "b", "evaluate": "b", "interactive": "b", "reason": "s"}
TAKEN = {
    "Ping": {},
    "GetCapabilities": {},
    "ListHosts": {},
    "List": {"host": "s", "all_hosts": "b", "include_disabled": "b", "limit": "x", "after": "s"},
    "Show": {"name": "s", "host": "s"},
    "Info": {},
    "Resolve": {"refs": "as", "host": "s"},
    "Search": {"query": "s", "host": "s", "limit": "x", "offset": "x"},
    "RefreshIndex": {"host": "s", "timeout": "d"},
    "ListRegistries": {"host": "s"},
    "RefreshRegistries": {"host": "s"},
    "ShowRegistry": {"url": "s", "host": "s", "limit": "x", "after": "s"},
    "History": {"limit": "x", "before": "s"},
    "ListTransactions": {"states": "as", "limit": "x"},
    "GetTransaction": {"transaction": "s"},
    "Watch": {"transaction": "s"},
    "Unwatch": {"transaction": "s"},
    "Wait": {"transaction": "s", "timeout": "d"},
    "Cancel": {"transaction": "s"},
    "Init": MUTATION | {"user": "s", "system": "s", "nixpkgs": "s", "core": "s", "home_manager": "s"},
    "Add": MUTATION
    | {"refs": "as", "scope": "s", "user": "s", "pin": "s", "name": "s", "follows": "b", "allow_local": "b"}
    | {"allow_unfree": "b", "allow_insecure": "b", "allow_broken": "b"},
    "Remove": MUTATION | {"names": "as"},
    "Enable": MUTATION | {"names": "as"},
    "Disable": MUTATION | {"names": "as"},
    "Regenerate": MUTATION,
}
"""Published operations with their parameters and types on the bus. Others may join; nothing here goes or changes."""

REQUIRED = {
    "Show": ["name"],
    "Resolve": ["refs"],
    "Search": ["query"],
    "ShowRegistry": ["url"],
    "GetTransaction": ["transaction"],
    "Watch": ["transaction"],
    "Unwatch": ["transaction"],
    "Wait": ["transaction"],
    "Cancel": ["transaction"],
    "Add": ["refs"],
    "Remove": ["names"],
    "Enable": ["names"],
    "Disable": ["names"],
}

FITTING: dict[str, object] = {
    "name": "firefox",
    "names": ["firefox"],
    "refs": ["firefox"],
    "transaction": "01jzzzzzzzzzzzzzzzzzzzzzzz",
    "changes": {"scope": "home"},
    "operations": [{"operation": "Remove", "names": ["firefox"]}],
    "to": "server",
    "upload": "0" * 32,
    "data": "QQ==",
    "generation": 1,
    "build": "0" * 26,
    "query": "web browser",
    "url": "https://registry.example/registry.json",
}

OF_HOSTS: dict[tuple[str, str], object] = {("SetHost", "changes"): {"default_scope": "home"}}

OF_ANOTHER_TYPE: dict[str, tuple[object, ...]] = {
    "s": (1, 1.5, True, b"firefox", ["firefox"], {"firefox": "x"}),
    "b": (0, 1, 1.0, "true", "", ["x"], {}),
    "x": ("1", 1.5, True, math.nan, [1], {}),
    "d": ("1", True, [1.0], {}, math.nan, math.inf, -math.inf),
    "as": ("firefox", 1, True, {"firefox": 1}, [1], [True], [None], [["firefox"]], [b"firefox"]),
    "a{ss}": ("scope", 1, True, ["scope"], {"scope": 1}, {"scope": None}, {"scope": ["home"]}),
    "a{sv}": ("scope", 1, True, ["scope"], {"scope": 1}, {"scope": None}, {"scope": ["home"]}),
    "aa{sv}": ("Remove", 1, True, {"operation": "Remove"}, ["Remove"], [1], [None], [["Remove"]]),
}


def rows() -> list[Operation]:
    return list(api.OPERATIONS.values())


def signature(row: Operation, name: str) -> str:
    return bus_values.signature(row.parameters.model_fields[name].annotation)


def arguments(row: Operation) -> dict[str, object]:
    """A request with all that it must have."""
    return {name: OF_HOSTS.get((row.name, name), FITTING[name]) for name in api.required(row.parameters)}


def refusal(name: str, arguments: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        api.parse(api.operation(name), arguments)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert caught.value.message.isprintable()
    return caught.value


def every_parameter() -> list[Any]:
    return [pytest.param(row, name, id=f"{row.name}-{name}") for row in rows() for name in row.parameters.model_fields]


# -- the rows ----------------------------------------------------------------------------------------------------


def test_every_operation_takes_what_was_published() -> None:
    for operation, taken in TAKEN.items():
        row = api.operation(operation)
        found = {name: signature(row, name) for name in row.parameters.model_fields}
        assert {name: found[name] for name in taken} == taken
        assert api.required(row.parameters) == REQUIRED.get(operation, [])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_row_is_whole(row: Operation) -> None:
    assert isinstance(row.policy, Policy)
    assert row.summary.endswith(".")
    assert {*api.required(row.parameters), *api.optional(row.parameters)} == set(row.parameters.model_fields)
    assert all(field.description for field in row.parameters.model_fields.values())
    if row.kind is Kind.MUTATION:
        assert issubclass(row.parameters, api.MutationParameters)
        assert row.result is api.Started
    else:
        assert not issubclass(row.parameters, api.MutationParameters)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_an_answer_can_be_told_on_the_bus(row: Operation) -> None:
    assert {bus_values.signature(field.annotation) for field in row.result.model_fields.values()} <= {
        *("s", "b", "x", "d", "as", "a{sv}", "aa{sv}", "a{ss}")
    }


@pytest.mark.parametrize("row", [row for row in rows() if row.kind is Kind.QUERY], ids=lambda row: row.name)
def test_only_a_mutation_needs_more_than_a_right_to_read_or_cancel(row: Operation) -> None:
    assert row.policy in (Policy.READ, Policy.READ_TRANSACTION, Policy.CANCEL)


# -- the door ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_request_with_all_that_it_must_have_is_taken_and_frozen(row: Operation) -> None:
    parsed = api.parse(row, arguments(row))
    assert type(parsed) is row.parameters
    for name in row.parameters.model_fields:
        with pytest.raises(ValidationError):
            setattr(parsed, name, None)


@pytest.mark.parametrize(("row", "name"), every_parameter())
def test_a_value_of_another_type_is_refused_and_its_parameter_named(row: Operation, name: str) -> None:
    for value in OF_ANOTHER_TYPE[signature(row, name)]:
        error = refusal(row.name, {**arguments(row), name: value})
        assert str(error.details["argument"]).split(".")[0] == name, value
        assert error.message.startswith(name)
        assert not re.search("Input should|String should|Value should|Field ", error.message), error.message


@pytest.mark.parametrize("row", [row for row in rows() if api.required(row.parameters)], ids=lambda row: row.name)
def test_what_is_missing_is_named(row: Operation) -> None:
    for name in api.required(row.parameters):
        given = {key: value for key, value in arguments(row).items() if key != name}
        assert refusal(row.name, given).details == {"argument": name, "reason": "it is missing"}
        assert name in refusal(row.name, {**given, name: None}).message


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.parametrize(
    "name", ["trusted", "uid", "caller", "policy", "Host", "host ", "", "\x1b[31m", "\ud800", "x" * 999]
)
def test_a_parameter_that_nobody_knows_is_refused_by_name(row: Operation, name: str) -> None:
    error = refusal(row.name, {**arguments(row), name: "x"})
    assert f"{row.name} has no such parameter" in error.message
    assert len(error.message) < 200
    assert error.hint.startswith("It knows: ")


@pytest.mark.parametrize("name", ["Nope", "ping", "Ping ", "Add\n", "__class__", "", "\x1b]0;x\x07", "x" * 5000, "Ädd"])
def test_an_operation_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        api.operation(name)
    assert caught.value.code is ErrorCode.UNKNOWN_OPERATION
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 120


def test_an_operation_that_was_meant_is_suggested() -> None:
    with pytest.raises(InvalidRequest) as caught:
        api.operation("Xyzzy")
    assert caught.value.hint == "GetCapabilities lists them."
    with pytest.raises(InvalidRequest) as caught:
        api.operation("ListHost")
    assert "ListHosts" in caught.value.hint


# -- the grammars ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["firefox", "7zip", "_1password", "gtk+", "a.b", "x" * 128, "python3Packages.requests"]
)
def test_package_names_that_fit(name: str) -> None:
    assert cast(api.NamesParameters, api.parse(api.operation("Remove"), {"names": [name]})).names == (name,)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-rf", "--help", ".hidden", "+x", "a b", "a/b", "../x", "a\n", "\na", "a\0", "a\x1b[0m", "a;b", "$(id)"),
        *("${pkgs}", '"', "a'b", "a\\b", "a#b", "a:b", "fir\u0435fox", "ﬁrefox", "a\u202eb", "a\u200bb", "é"),
        *("x" * 129, "１", "a\u2028", "a\ud800"),
    ],
)
def test_package_names_that_do_not(name: str) -> None:
    assert str(refusal("Remove", {"names": ["ok", name]}).details["argument"]) == "names.1"
    refusal("Show", {"name": name})


@pytest.mark.parametrize("host", ["laptop", "0", "a-b", "x" * 63, "7"])
def test_host_names_that_fit(host: str) -> None:
    assert cast(api.ListParameters, api.parse(api.operation("List"), {"host": host})).host == host


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            "-",
            "-a",
            "Laptop",
            "a.b",
            "a_b",
            "a b",
            "a/b",
            "../..",
            "..",
            "/etc",
            "a\n",
            "a\r",
            "\ta",
            "a\0",
            "x" * 64,
        ),
        *("läptop", "l\u0430ptop", "a\u202e", "٣", "${x}", "a'b"),
    ],
)
@pytest.mark.parametrize("operation", ["List", "Regenerate", "Init"])
def test_host_names_that_do_not(host: str, operation: str) -> None:
    assert refusal(operation, {"host": host}).details["argument"] == "host"


@pytest.mark.parametrize(
    "user", ["", "Alice", "al ice", "a" * 33, "../x", "0alice", "al\n", "$", "a$b", "älice", "al\u200b"]
)
def test_user_names_that_do_not_fit(user: str) -> None:
    assert refusal("Init", {"user": user}).details["argument"] == "user"


@pytest.mark.parametrize(
    "system", ["", "x86_64-darwin", "x86_64-linux\n", "X86_64-linux", "any", "x86_64-linux;", "../x"]
)
def test_systems_that_nix_does_not_know(system: str) -> None:
    assert refusal("Init", {"system": system}).details["argument"] == "system"


@pytest.mark.parametrize(
    "identifier",
    [
        *("", "0" * 25, "0" * 27, "8" + "0" * 25, "0" * 25 + "i", "0" * 25 + "U", "0" * 25 + "\n", "../" * 9),
        *("01JZZZZZZZZZZZZZZZZZZZZZZZ", "٠" * 26, "0" * 25 + "l", "0" * 25 + "o"),
    ],
)
@pytest.mark.parametrize("operation", ["GetTransaction", "Watch", "Unwatch", "Wait", "Cancel"])
def test_transaction_ids_that_are_none(identifier: str, operation: str) -> None:
    assert refusal(operation, {"transaction": identifier}).details["argument"] == "transaction"


@pytest.mark.parametrize(
    "commit", ["", "abc", "0" * 65, "HEAD", "main", "--all", "abcd\n", "ABCD", "abcd^", "abcd~1", "g" * 8]
)
def test_commits_that_are_none(commit: str) -> None:
    assert refusal("History", {"before": commit}).details["argument"] == "before"


@pytest.mark.parametrize(
    "text",
    ["two\nlines", "cr\r", "\x1b[31mred", "bidi \u202e", "nul \0", "tab\t", "\u2028", "\x85", "x" * 257, "\u200f"],
)
def test_a_reason_is_one_short_line_of_plain_text(text: str) -> None:
    assert refusal("Regenerate", {"reason": text}).details["argument"] == "reason"


def test_a_reason_may_be_in_any_language() -> None:
    asked = cast(api.RegenerateParameters, api.parse(api.operation("Regenerate"), {"reason": "für später — 後で"}))
    assert asked.reason == "für später — 後で"


def test_references_are_bounded_in_number_and_length() -> None:
    longest = "x" * MAX_REFERENCE_BYTES
    api.parse(api.operation("Add"), {"refs": [longest] * MAX_REFERENCES})
    assert refusal("Add", {"refs": [longest + "x"]}).details["argument"] == "refs.0"
    assert refusal("Add", {"refs": ["a"] * (MAX_REFERENCES + 1)}).details["argument"] == "refs"
    assert refusal("Add", {"refs": []}).details["argument"] == "refs"
    assert refusal("Remove", {"names": ["a"] * (MAX_REFERENCES + 1)}).details["argument"] == "names"
    assert refusal("Resolve", {"refs": [""]}).details["argument"] == "refs.0"


def test_a_long_reference_in_another_script_is_measured_in_bytes() -> None:
    assert refusal("Add", {"refs": ["é" * (MAX_REFERENCE_BYTES // 2 + 1)]}).details["argument"] == "refs.0"


@pytest.mark.parametrize(
    ("operation", "name", "value"),
    [
        ("List", "limit", 0),
        ("List", "limit", -1),
        ("List", "limit", PAGE_SIZE + 1),
        ("List", "limit", 1 << 64),
        ("History", "limit", -(1 << 63)),
        ("ListTransactions", "limit", 10**40),
        ("Wait", "timeout", 0.0),
        ("Wait", "timeout", -1.0),
        ("Wait", "timeout", 86401.0),
        ("Wait", "timeout", 1e308),
        ("Add", "scope", "System"),
        ("Add", "scope", ""),
        ("ListTransactions", "states", ["done"]),
        ("ListTransactions", "states", ["succeeded", "Failed"]),
    ],
)
def test_a_value_out_of_range_is_refused(operation: str, name: str, value: object) -> None:
    given = {**arguments(api.operation(operation)), name: value}
    error = refusal(operation, given)
    assert str(error.details["argument"]).split(".")[0] == name
    assert " should " not in error.message


def test_a_lone_surrogate_is_no_text_wherever_it_stands() -> None:
    places: dict[str, dict[str, Any]] = {
        "refs.0": {"refs": ["\ud800"]},
        "pin": {"refs": ["a"], "pin": "\udfff"},
        "reason": {"refs": ["a"], "reason": "x\udc80"},
    }
    for place, asked in places.items():
        assert refusal("Add", asked).message.startswith(f"{place}: it holds a lone surrogate")


def test_a_key_that_nobody_knows_is_refused_with_the_nearest_one() -> None:
    assert refusal("Set", {"name": "a", "changes": {"scpe": "home"}}).hint == "Did you mean scope?"
    assert refusal("SetHost", {"changes": {"xyz": "home"}}).hint.startswith("There are: default_scope, ")


@given(st.text(max_size=80))
def test_no_refusal_repeats_what_could_move_a_terminal(text: str) -> None:
    for operation, asked in (
        ("Show", {"name": text + "\n"}),
        ("List", {"host": f"/{text}"}),
        ("Regenerate", {"reason": f"\x1b{text}"}),
        ("Ping", {text: 1}),
        ("ListTransactions", {"states": [f"no {text}"]}),
        ("Set", {"name": "x", "changes": {f"no {text}": "x"}}),
        ("SetHost", {"changes": {f"\x1b{text}": "x"}}),
    ):
        error = refusal(operation, asked)
        assert error.hint.isprintable()
        assert len(error.message) < 800


def test_a_closed_word_may_be_written_as_text() -> None:
    asked = cast(api.AddParameters, api.parse(api.operation("Add"), {"refs": ["x"], "scope": "home"}))
    assert asked.scope is api.Scope.HOME


def test_every_value_that_crosses_the_wire_is_frozen_and_closed() -> None:
    pending: list[type[BaseModel]] = [api.Value]
    while pending:
        model = pending.pop()
        pending += model.__subclasses__()
        assert model.model_config["frozen"] is True
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["strict"] is True
