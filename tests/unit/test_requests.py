# SPDX-License-Identifier: GPL-3.0-or-later
"""The digest of a request: what is authorised is exactly what is carried out."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import Any, cast

import pytest

from glixd import api, policy
from glixd.api import Caller, Policy, Scope
from glixd.backends.process import Cancellation
from glixd.errors import InvalidRequest
from glixd.model.change import Add, Base, Init, Remove, Request, Resolved, Switch
from glixd.model.manifest import Manifest
from glixd.policy import Target
from glixd.protocol import ErrorCode
from glixd.requests.batch import MAKERS
from glixd.requests.tools import Tools
from glixd.requests.values import Context, Part, Prepared, digest_of, to_authorise

PACKAGE = Resolved("tool", "tool", "github:o/tool", "uri", "github:o/tool", None, trusted=False, revision="abc")
ADD = Add("laptop", (PACKAGE,), Scope.SYSTEM, None, None, follows=True)


def test_a_digest_is_of_canonical_json() -> None:
    spelt = (
        '{"operation":"Disable","request":{"consents":[],"enabled":false,"host":"laptop","names":["firefox","é"]}}'
        # keys in order, no blanks, UTF-8 as it is: RFC 8785
    )
    request = Switch("laptop", ("firefox", "é"), enabled=False)
    assert digest_of("Disable", request) == hashlib.sha256(spelt.encode()).hexdigest()


def test_equal_requests_have_one_digest() -> None:
    assert digest_of("Add", ADD) == digest_of("Add", replace(ADD, packages=(replace(PACKAGE),)))


@pytest.mark.parametrize(
    "other",
    [
        replace(ADD, host="server"),
        replace(ADD, scope=Scope.HOME),
        replace(ADD, user="alice"),
        replace(ADD, pin="v1"),
        replace(ADD, follows=False),
        replace(ADD, packages=(PACKAGE, PACKAGE)),
        replace(ADD, packages=(replace(PACKAGE, ref="x"),)),
        replace(ADD, packages=(replace(PACKAGE, name="x"),)),
        replace(ADD, packages=(replace(PACKAGE, flake="x"),)),
        replace(ADD, packages=(replace(PACKAGE, source="x"),)),
        replace(ADD, packages=(replace(PACKAGE, url="x"),)),
        replace(ADD, packages=(replace(PACKAGE, attribute="x"),)),
        replace(ADD, packages=(replace(PACKAGE, trusted=True),)),
        replace(ADD, packages=(replace(PACKAGE, revision="abd"),)),
        replace(ADD, packages=(replace(PACKAGE, revision=None),)),
    ],
)
def test_every_part_of_a_request_is_in_its_digest(other: Request) -> None:
    assert digest_of("Add", other) != digest_of("Add", ADD)


def test_the_operation_is_in_the_digest() -> None:
    request = Remove("laptop", ("x",))
    assert digest_of("Remove", request) != digest_of("Disable", request)
    assert digest_of("Init", Init("a", "b", "c", "d", "e", None)) != digest_of(
        "Init", Init("a", "b", "c", "d", "e", "")
    )


def test_the_policy_is_asked_about_what_was_resolved_part_by_part() -> None:
    target = Target("tool", "github:o/tool", Scope.SYSTEM, trusted=False, revision="abc")
    parts = (Part(Policy.INSTALL, (target,)), Part(Policy.HOST_MANAGE, (), ("github:o/core",)))
    prepared = Prepared(ADD, parts, "d" * 64)
    first, second = to_authorise(api.operation("Add"), prepared, "01jz", skips_evaluation=True)
    assert (first.policy, first.targets, first.sources) == (Policy.INSTALL, (target,), ())
    assert (second.policy, second.targets, second.sources) == (Policy.HOST_MANAGE, (), ("github:o/core",))
    for asked in (first, second):
        assert (asked.host, asked.transaction, asked.digest) == ("laptop", "01jz", "d" * 64)
        assert asked.skips_evaluation


# -- the stronger of what was and what becomes -------------------------------------------------------------------

MANIFEST = """\
schema = 1

[settings]
primary_user = "wanda"
default_scope = "system"

[packages.own]
flake = "nixpkgs#own"
scope = "home"
user = "alice"

[packages.tool]
flake = "github:o/tool"
scope = "home"
user = "alice"

[packages.pinned]
flake = "nixpkgs#pinned"
pin = "v1"
scope = "system"

[packages.odd]
flake = "?? no reference"
scope = "system"
"""
ALICE = Caller(1000, "alice", "socket:1")


def needed(operation: str, **arguments: object) -> set[str]:
    """The actions that a change of MANIFEST by alice needs."""
    row = api.operation(operation)
    manifest = Manifest.parse(MANIFEST, "hosts/laptop/glix.toml")
    base = Base("", None, {"laptop": manifest}, {"laptop": MANIFEST}, "x86_64-linux")
    nothing = cast(Any, None)
    doors: dict[str, Any] = dict.fromkeys(field.name for field in fields(Tools))
    tools = Tools(**{**doors, "default_host": "laptop", "knock": lambda: None})
    context = Context(nothing, base, ALICE, Cancellation())
    request, parts = MAKERS[operation](tools, row, api.parse(row, arguments), context)
    asked = to_authorise(row, Prepared(request, parts, "d"), "01jz", skips_evaluation=False)
    return {check.action.rpartition(".")[2] for check in policy.all_checks(asked, ALICE)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config.theme": "dark"}, {"home-manage-own"}),
        ({"scope": "system"}, {"home-manage-own", "package-install-trusted"}),
        ({"scope": ""}, {"home-manage-own", "package-install-trusted"}),
        ({"user": "bob"}, {"home-manage-own", "home-manage-other"}),
        ({"user": ""}, {"home-manage-own", "home-manage-other"}),
        ({"user": "alice"}, {"home-manage-own"}),
    ],
)
def test_a_package_is_changed_with_the_right_to_what_it_becomes_too(
    changes: dict[str, str], expected: set[str]
) -> None:
    assert needed("Set", name="own", changes=changes) == expected


def test_what_a_cleared_key_means_counts_and_not_what_it_was() -> None:
    """A home package whose scope is cleared becomes one of the system where that is the default of the host."""
    assert "package-install-untrusted" in needed("Set", name="tool", changes={"scope": ""})
    assert "home-manage-other" in needed("Set", name="tool", changes={"user": ""})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own", {"home-manage-own", "package-install-trusted"}),
        ("tool", {"home-manage-own", "home-manage-own-untrusted", "package-install-untrusted"}),
    ],
)
def test_a_package_that_moves_out_of_a_home_is_installed(name: str, expected: set[str]) -> None:
    assert needed("Move", names=[name], scope="system") == expected


@pytest.mark.parametrize("name", ["pinned", "odd"])
def test_what_may_come_from_anywhere_is_a_stranger_when_it_moves(name: str) -> None:
    assert needed("Move", names=[name], user="alice") == {
        "package-configure",
        "package-install-untrusted",
        "home-manage-own-untrusted",
    }


def test_keys_are_told_and_values_are_not() -> None:
    row = api.operation("Set")
    parts = (Part(Policy.CONFIGURE, (Target("tool"),), keys=("config.password", "enabled")),)
    [asked] = to_authorise(row, Prepared(ADD, parts, "d"), "01jz", skips_evaluation=False)
    [check] = policy.checks(asked, ALICE)
    assert check.details["keys"] == "config.password,enabled"


def test_on_a_system_only_root_may_use_a_folder_of_the_machine() -> None:
    doors: dict[str, Any] = dict.fromkeys(field.name for field in fields(Tools))
    Tools(**{**doors, "local_paths": True}).check_local(ALICE)
    system = Tools(**{**doors, "local_paths": False})
    system.check_local(replace(ALICE, uid=0))
    with pytest.raises(InvalidRequest) as caught:
        system.check_local(ALICE)
    assert caught.value.code is ErrorCode.LOCAL_PATH_REFUSED


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("Add", {"refs": ["hello"], "allow_local": True}),
        ("Set", {"name": "own", "changes": {"flake": "path:/etc"}, "allow_local": True}),
    ],
)
def test_consenting_to_a_local_path_is_refused_before_anything_is_looked_up(
    operation: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        needed(operation, **arguments)
    assert caught.value.code is ErrorCode.LOCAL_PATH_REFUSED
