# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: which polkit actions a request needs, what they are told, and that nothing is allowed by omission."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd import api, authority, policy
from glixd.api import Caller, Policy, Scope
from glixd.backends import polkit
from glixd.errors import NotAllowed
from glixd.policy import OwnerOnly, Request, Target
from glixd.protocol import POLKIT_PREFIX, ErrorCode
from glixd.settings import Settings
from tests.support.loop import on_loop

ALICE = Caller(uid=1000, login="alice", address=":1.7")
ROOT = Caller(uid=0, login="root", address="socket:1")

SYSTEM = Target("firefox", "nixpkgs#firefox", Scope.SYSTEM, trusted=True, revision="c0ffee")
STRANGER = Target("evil", "github:evil/rootkit", Scope.SYSTEM)
OWN = Target("git", "nixpkgs#git", Scope.HOME, "alice", trusted=True)
OWN_STRANGER = Target("tool", "github:o/tool", Scope.HOME, "alice")
OTHER = Target("git", "nixpkgs#git", Scope.HOME, "bob", trusted=True)
OTHER_STRANGER = Target("tool", "github:o/tool", Scope.HOME, "bob")
NOBODYS = Target("git", "nixpkgs#git", Scope.HOME, None, trusted=True)


def request(kind: Policy, *targets: Target) -> Request:
    return Request(kind, host="laptop", transaction="01jzzzzzzzzzzzzzzzzzzzzzzz", digest="d" * 64, targets=targets)


def actions(asked: Request, caller: Caller = ALICE) -> list[str]:
    return [check.action.removeprefix(POLKIT_PREFIX) for check in policy.checks(asked, caller)]


# -- default deny ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Policy)
def test_every_policy_has_a_rule(kind: Policy) -> None:
    policy.checks(request(kind, SYSTEM), ALICE)


@pytest.mark.parametrize("kind", ["made-up", "", "READ", "read "])
@pytest.mark.parametrize("caller", [ALICE, ROOT], ids=["alice", "root"])
def test_a_policy_that_nobody_wrote_a_rule_for_is_refused(kind: str, caller: Caller) -> None:
    with pytest.raises(NotAllowed) as caught:
        policy.checks(request(cast(Policy, kind), SYSTEM), caller)
    assert caught.value.code is ErrorCode.NOT_AUTHORISED


@pytest.mark.parametrize("kind", [Policy.INSTALL, Policy.REMOVE, Policy.CONFIGURE])
@pytest.mark.parametrize("target", [SYSTEM, STRANGER, OWN, OWN_STRANGER, OTHER, OTHER_STRANGER, NOBODYS])
def test_no_change_of_a_package_goes_without_an_action(kind: Policy, target: Target) -> None:
    assert actions(request(kind, target))


# -- the table of actions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        (Policy.INSTALL, SYSTEM, "package-install-trusted"),
        (Policy.INSTALL, STRANGER, "package-install-untrusted"),
        (Policy.INSTALL, OWN, "home-manage-own"),
        (Policy.INSTALL, OWN_STRANGER, "home-manage-own-untrusted"),
        (Policy.INSTALL, OTHER, "home-manage-other"),
        (Policy.INSTALL, OTHER_STRANGER, "home-manage-other"),
        (Policy.INSTALL, NOBODYS, "home-manage-other"),
        (Policy.REMOVE, SYSTEM, "package-remove"),
        (Policy.REMOVE, STRANGER, "package-remove"),
        (Policy.REMOVE, OWN, "home-manage-own"),
        (Policy.REMOVE, OTHER, "home-manage-other"),
        (Policy.REMOVE, NOBODYS, "home-manage-other"),
        (Policy.CONFIGURE, SYSTEM, "package-configure"),
        (Policy.CONFIGURE, OWN, "home-manage-own"),
        (Policy.CONFIGURE, OTHER, "home-manage-other"),
        (Policy.CONFIGURE, NOBODYS, "home-manage-other"),
    ],
)
def test_a_package_needs_the_action_of_its_place_and_trust(kind: Policy, target: Target, expected: str) -> None:
    assert actions(request(kind, target)) == [expected]


def test_a_scope_that_is_not_known_counts_as_the_system() -> None:
    odd = replace(OWN, scope="everywhere", trusted=False)
    assert actions(request(Policy.INSTALL, odd)) == ["package-install-untrusted"]
    assert actions(request(Policy.REMOVE, odd)) == ["package-remove"]


def test_a_home_belongs_to_a_login_and_not_to_who_says_so() -> None:
    assert actions(request(Policy.INSTALL, OWN), replace(ALICE, login="bob")) == ["home-manage-other"]
    assert actions(request(Policy.INSTALL, replace(OWN, user=""))) == ["home-manage-other"]


def test_a_package_is_a_stranger_unless_it_was_found_to_be_trusted() -> None:
    assert Target("x").trusted is False
    assert actions(request(Policy.INSTALL, Target("x"))) == ["package-install-untrusted"]


def test_a_request_needs_the_actions_of_all_its_parts_the_strongest_first() -> None:
    everything = request(Policy.INSTALL, OWN, SYSTEM, OWN_STRANGER, OTHER, STRANGER)
    assert actions(everything) == [
        "package-install-untrusted",
        "home-manage-other",
        "home-manage-own-untrusted",
        "package-install-trusted",
        "home-manage-own",
    ]
    assert actions(request(Policy.REMOVE, OWN, SYSTEM, OTHER)) == [
        "home-manage-other",
        "package-remove",
        "home-manage-own",
    ]
    assert actions(request(Policy.CONFIGURE, OWN, SYSTEM)) == ["package-configure", "home-manage-own"]


@pytest.mark.parametrize("kind", [Policy.INSTALL, Policy.REMOVE, Policy.CONFIGURE, Policy.HOST_MANAGE])
def test_skipping_the_evaluation_is_asked_for_before_anything_weaker(kind: Policy) -> None:
    asked = replace(request(kind, SYSTEM), skips_evaluation=True)
    assert actions(asked)[0] == "evaluation-skip"
    assert actions(asked)[1:] == actions(replace(asked, skips_evaluation=False))


def test_collecting_garbage_needs_an_action_of_its_own_that_is_told_the_rule() -> None:
    asked = request(Policy.GARBAGE, Target("keep=3"), Target("older_than=30d"))
    assert actions(asked) == ["garbage-collect"]
    assert policy.checks(asked, ALICE)[0].details["generations"] == "keep=3,older_than=30d"


def test_rewriting_the_regions_configures_the_host() -> None:
    assert actions(request(Policy.CONFIGURE)) == ["package-configure"]


def test_a_source_of_the_configuration_itself_needs_more_than_a_host() -> None:
    assert actions(request(Policy.HOST_MANAGE)) == ["host-manage"]
    asked = replace(request(Policy.HOST_MANAGE), sources=("github:a/b", "github:c/d"))
    assert actions(asked) == ["source-modify", "source-modify", "host-manage"]
    assert [check.details.get("url") for check in policy.checks(asked, ALICE)] == ["github:a/b", "github:c/d", None]


def test_reading_needs_nothing() -> None:
    assert actions(request(Policy.READ)) == []


def test_a_transaction_is_its_owners_to_read_and_cancel() -> None:
    for kind, action in (
        (Policy.READ_TRANSACTION, "transaction-read-other"),
        (Policy.CANCEL, "transaction-cancel-other"),
    ):
        assert actions(Request(kind, owner=ALICE.uid)) == []
        assert actions(Request(kind, owner=1001)) == [action]
        assert actions(Request(kind, owner=0)) == [action]
        [check] = policy.checks(Request(kind, transaction="01j", owner=1001), ALICE)
        assert check.details == {"owner": "1001", "transaction": "01j"}


def test_a_transaction_without_an_owner_can_not_be_cancelled_by_omission() -> None:
    assert actions(Request(Policy.CANCEL, owner=None)) == ["transaction-cancel-other"]


# -- details -----------------------------------------------------------------------------------------------------


def test_a_dialogue_is_told_what_is_installed_where_and_from_which_revision() -> None:
    [check] = policy.checks(request(Policy.INSTALL, SYSTEM), ALICE)
    assert check.details == {
        "package": "firefox",
        "flake": "nixpkgs#firefox",
        "rev": "c0ffee",
        "trusted": "yes",
        "scope": "system",
        "target_user": "",
        "host": "laptop",
        "transaction": "01jzzzzzzzzzzzzzzzzzzzzzzz",
        "digest": "d" * 64,
    }
    [check] = policy.checks(request(Policy.INSTALL, OTHER_STRANGER), ALICE)
    assert (check.details["trusted"], check.details["target_user"]) == ("no", "bob")


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(Policy))
def test_details_are_short_printable_ascii(text: str, other: str, kind: Policy) -> None:
    target = Target(text, other, text, other, revision=text)
    asked = Request(
        kind, text, other, text, (target, replace(target, scope=Scope.HOME)), 7, skips_evaluation=True, sources=(text,)
    )
    for check in policy.checks(asked, ALICE):
        for value in check.details.values():
            assert len(value) <= 256
            assert all(" " <= character <= "~" for character in value)


def test_a_detail_that_is_cut_says_so() -> None:
    [check] = policy.checks(request(Policy.INSTALL, replace(STRANGER, flake="x" * 512)), ALICE)
    assert check.details["flake"] == "x" * 253 + "..."


def test_a_target_has_no_place_for_a_value_of_a_configuration() -> None:
    assert set(Target.__slots__) == {"name", "flake", "scope", "user", "trusted", "revision"}


# -- the authority of user mode ----------------------------------------------------------------------------------


@on_loop
async def test_the_owner_may_do_everything() -> None:
    authority = OwnerOnly(1000)
    await authority.authorise(ALICE, (), interactive=False)
    await authority.authorise(ALICE, policy.checks(request(Policy.INSTALL, STRANGER), ALICE), interactive=True)


@pytest.mark.parametrize("uid", [0, 999, 1001, 65534, 2**31, 2**32 - 1, -1])
@on_loop
async def test_nobody_else_may_do_anything_not_even_root(uid: int) -> None:
    authority = OwnerOnly(1000)
    for checks in ((), policy.checks(request(Policy.INSTALL, OWN), ALICE)):
        with pytest.raises(NotAllowed) as caught:
            await authority.authorise(replace(ALICE, uid=uid), checks, interactive=True)
        assert caught.value.code is ErrorCode.NOT_AUTHORISED
        assert str(uid) in caught.value.message


# -- nothing around it -------------------------------------------------------------------------------------------


def test_no_mutation_is_behind_a_rule_for_reading() -> None:
    """A setter that is guarded like a getter is a setter for everybody."""
    reading = {Policy.READ, Policy.READ_TRANSACTION, Policy.CANCEL}
    for row in api.OPERATIONS.values():
        if row.kind is api.Kind.MUTATION:
            assert row.policy not in reading, row.name
            unguarded = row.policy in (Policy.BUILD, Policy.ACTIVATE)
            assert bool(actions(request(row.policy, SYSTEM))) is not unguarded, row.name
    assert [row.name for row in api.OPERATIONS.values() if row.policy in (Policy.BUILD, Policy.ACTIVATE)] == ["Rebuild"]


def test_no_setting_or_variable_turns_authorisation_off() -> None:
    source = inspect.getsource(authority) + inspect.getsource(polkit) + inspect.getsource(policy)
    assert "environ" not in source
    assert not [name for name in Settings.model_fields if "auth" in name or "polkit" in name or "policy" in name]


def test_several_parts_are_told_to_the_person_and_change_nothing_for_rules() -> None:
    first, second = policy.checks(request(Policy.INSTALL, STRANGER, SYSTEM), ALICE)
    alone = policy.prompted([first], [first])
    assert alone == first
    both = policy.prompted([first], [first, second])
    assert both.action == first.action
    assert {name: both.details[name] for name in first.details} == first.details
    assert both.details["parts"] == "package-install-untrusted evil; package-install-trusted firefox"
