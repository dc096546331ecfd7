# SPDX-License-Identifier: GPL-3.0-or-later
"""The digest of a request: what is authorised is exactly what is carried out."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from glixd import api
from glixd.api import Policy, Scope
from glixd.model.change import Add, Init, Remove, Request, Resolved, Switch
from glixd.policy import Target
from glixd.requests.values import Part, Prepared, digest_of, to_authorise

PACKAGE = Resolved("tool", "tool", "github:o/tool", "uri", "github:o/tool", None, trusted=False, revision="abc")
ADD = Add("laptop", (PACKAGE,), Scope.SYSTEM, None, None, follows=True)


def test_a_digest_is_of_canonical_json() -> None:
    spelt = (
        '{"operation":"Disable","request":{"enabled":false,"host":"laptop","names":["firefox","é"]}}'
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
