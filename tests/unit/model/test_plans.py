# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan that was made while a batch was prepared is used for the same batch on the same commit, and for nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glixd.api import Scope
from glixd.errors import Refused
from glixd.model.change import Add, Base, Batch, Plan, Remove, Resolved
from glixd.model.manifest import Manifest
from glixd.model.operations import plan, planned_base, together
from glixd.model.plans import KEPT, Plans

TEXT = 'schema = 1\n\n[packages.git]\nflake = "nixpkgs#git"\n'
BASE = Base("", None, {"laptop": Manifest.parse(TEXT, "x")}, {"laptop": TEXT}, "x86_64-linux", "a" * 40)


def adding(*names: str) -> Batch:
    """A batch that adds packages one by one."""
    hello = Resolved("nixpkgs#hello", "", "nixpkgs#hello", "uri", None, "hello", trusted=True)
    return Batch(
        "laptop",
        tuple(Add("laptop", (replace(hello, name=name),), Scope.SYSTEM, None, None, follows=True) for name in names),
    )


def part_by_part(base: Base, batch: Batch) -> Plan:
    """The plan of a batch as preparing it makes it."""
    made = []
    for part in batch.parts:
        made.append(plan(base, part))
        base = planned_base(base, made[-1])
    return together(batch.host, made)


def test_parts_that_are_planned_one_by_one_make_the_plan_of_the_batch() -> None:
    batch = Batch("laptop", (*adding("a", "b").parts, Remove("laptop", ("git", "a"))))
    made = part_by_part(BASE, batch)
    assert made == plan(BASE, batch)
    assert list(made.manifests["laptop"].packages) == ["b"]


def test_a_kept_plan_is_used_once_for_the_same_request_on_the_same_commit() -> None:
    plans, batch = Plans(), adding("a", "b")
    kept = part_by_part(BASE, batch)
    plans.keep(BASE, batch, kept)
    assert plans.plan(BASE, adding("a")) is not kept
    assert plans.plan(replace(BASE, commit="b" * 40), adding("a", "b")) is not kept
    assert plans.plan(replace(BASE, commit=None), adding("a", "b")) is not kept
    assert plans.plan(BASE, adding("a", "b")) is kept
    again = plans.plan(BASE, batch)
    assert again is not kept
    assert again == kept


def test_what_forbids_a_change_on_another_commit_is_found() -> None:
    plans, batch = Plans(), adding("a", "b")
    plans.keep(BASE, batch, part_by_part(BASE, batch))
    newer = TEXT + '\n[packages.b]\nflake = "nixpkgs#hello"\n'
    moved = replace(BASE, commit="b" * 40, manifests={"laptop": Manifest.parse(newer, "x")}, texts={"laptop": newer})
    with pytest.raises(Refused, match="b already"):
        plans.plan(moved, batch)


def test_a_plan_over_edits_of_people_is_not_kept() -> None:
    plans, batch = Plans(), adding("a")
    edited = replace(BASE, commit=None)
    kept = part_by_part(edited, batch)
    plans.keep(edited, batch, kept)
    assert plans.plan(edited, batch) is not kept
    assert planned_base(BASE, kept).commit is None


def test_only_the_last_few_plans_are_kept() -> None:
    plans = Plans()
    batches = [adding(f"p{number}") for number in range(KEPT + 1)]
    kept = [part_by_part(BASE, batch) for batch in batches]
    for batch, one in zip(batches, kept, strict=True):
        plans.keep(BASE, batch, one)
    assert plans.plan(BASE, batches[0]) is not kept[0]
    assert plans.plan(BASE, batches[1]) is kept[1]
