# SPDX-License-Identifier: GPL-3.0-or-later
"""What setting, moving, updating and batches do to the files, in memory: golden plans, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from glixd.api import Scope
from glixd.errors import GlixError
from glixd.model.change import (
    ALL_HOSTS,
    Add,
    Adopt,
    Base,
    Batch,
    Change,
    Move,
    Plan,
    Planned,
    Remove,
    RemoveHost,
    RenameHost,
    Resolved,
    SetHost,
    Switch,
    Update,
    manifest_path,
)
from glixd.model.flakefile import FlakeFile
from glixd.model.manifest import Manifest
from glixd.model.operations import features, plan, plan_renamed_host, plan_without_host, regenerated
from glixd.protocol import ErrorCode

HEAD = """\
# mine
schema = 1

[settings]
system = "x86_64-linux"
primary_user = "alice"
"""
TOOL = """
[packages.tool] # beside
# inside
flake = "github:o/tool"
scope = "system"
"""
GIT = """
[packages.git]
flake = "nixpkgs#git"
"""
FLAKE = """{
  # >>> glix-managed inputs >>>
  # <<< glix-managed inputs <<<
  # >>> glix-managed hosts >>>
  # <<< glix-managed hosts <<<
}
"""
OWN = ("nixpkgs", "glixos-core", "home-manager")


def lock(revisions: dict[str, str]) -> str:
    nodes: dict[str, Any] = {"root": {"inputs": {name: name for name in revisions}}}
    for name, revision in revisions.items():
        nodes[name] = {"locked": {"rev": revision}, "original": {"type": "indirect", "id": name}}
    return json.dumps({"nodes": nodes, "root": "root", "version": 7})


def base(*, home_manager: bool = True, **texts: str) -> Base:
    """A repository with these manifests; laptop has the tool and git unless it is given."""
    texts = {"laptop": HEAD + TOOL + GIT, **texts}
    manifests = {host: Manifest.parse(text, manifest_path(host)) for host, text in texts.items()}
    names = OWN if home_manager else OWN[:2]
    start = Base(FLAKE, lock(dict.fromkeys((*names, "tool"), "old")), manifests, texts, "x86_64-linux")
    return replace(start, flake=regenerated(start, {}))


def flake(name: str, url: str, revision: str | None = None) -> Resolved:
    return Resolved(url, name, url, "uri", url, None, trusted=False, revision=revision)


def attribute(name: str) -> Resolved:
    return Resolved(name, name, f"nixpkgs#{name}", "nixpkgs", None, name, trusted=True)


def change(name: str, resolved: Resolved | None = None, **values: str) -> Change:
    pairs = {key.replace("__", "."): value for key, value in values.items()}
    return Change("laptop", name, tuple(sorted(pairs.items())), resolved)


def text_of(planned: Plan, host: str = "laptop") -> str:
    """The manifest that a plan writes, which reads back as the plan says."""
    text = planned.files[manifest_path(host)]
    assert Manifest.parse(text, "glix.toml") == planned.manifests[host]
    return text


def inputs_of(start: Base, planned: Plan) -> list[str]:
    region = FlakeFile.parse(regenerated(start, planned.manifests, planned.gone)).inputs_region
    return [line.strip() for line in region.splitlines()]


def refusal(start: Base, request: Planned) -> GlixError:
    with pytest.raises(GlixError) as caught:
        plan(start, request)
    return caught.value


# -- set -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ({"enabled": "false"}, TOOL + "enabled = false\n"),
        ({"scope": ""}, TOOL.replace('scope = "system"\n', "")),
        ({"scope": "home"}, TOOL.replace('"system"', '"home"')),
        ({"scope": "home", "user": "bob"}, TOOL.replace('"system"', '"home"') + 'user = "bob"\n'),
        ({"follows": "false"}, TOOL + "follows = false\n"),
        ({"config__a": "b"}, TOOL + '[packages.tool.config]\na = "b"\n'),
    ],
)
def test_a_key_is_one_line_and_nothing_else_changes(values: dict[str, str], written: str) -> None:
    assert text_of(plan(base(), change("tool", None, **values))) == HEAD + written + GIT


def test_clearing_what_is_not_there_is_nothing_to_do() -> None:
    for values in ({"enabled": ""}, {"pin": ""}, {"user": ""}, {"config__a": ""}, {"scope": "system"}):
        planned = plan(base(), change("tool", None, **values))
        assert (planned.changes, planned.files) == ((), {})


def test_leaving_a_home_leaves_its_user() -> None:
    start = base(laptop=HEAD + TOOL.replace('"system"', '"home"\nuser = "bob"'))
    assert text_of(plan(start, change("tool", scope="system"))) == HEAD + TOOL


def test_another_reference_is_another_url_at_the_revision_that_was_resolved() -> None:
    start = base()
    planned = plan(start, change("tool", flake("tool", "github:p/tool", "abc"), flake="github:p/tool"))
    assert planned.expected == {"tool": "abc"}
    assert inputs_of(start, planned) == ['"tool" = { url = "github:p/tool"; inputs.nixpkgs.follows = "nixpkgs"; };']


def test_becoming_an_attribute_of_nixpkgs_takes_the_input_and_its_name_away() -> None:
    other = HEAD + TOOL.replace("o/tool", "p/tool") + 'input = "tool-12345678"\n'
    start = base(pi=other)
    request = Change("pi", "tool", (("flake", "nixpkgs#git"),), attribute("git"))
    planned = plan(start, request)
    assert "input" not in text_of(planned, "pi")
    assert [line.split(" ")[0] for line in inputs_of(start, planned)] == ['"tool"']


def test_a_name_that_is_no_input_gets_one_that_fits() -> None:
    start = base(laptop=HEAD + '\n[packages.7zip]\nflake = "nixpkgs#7zip"\n')
    planned = plan(start, change("7zip", flake("7zip", "github:o/x"), flake="github:o/x"))
    assert 'input = "p-7zip"' in text_of(planned)


def test_an_input_of_the_same_url_is_shared_and_any_other_is_left_alone() -> None:
    pi = HEAD + TOOL.replace('scope = "system"\n', 'pin = "v1"\ninput = "tool-12345678"\n')
    start = base(pi=pi)
    shared = plan(start, Change("pi", "tool", (("pin", ""),), flake("tool", "github:o/tool")))
    assert "input" not in text_of(shared, "pi")
    apart = plan(start, Change("pi", "tool", (("pin", "v2"),), flake("tool", "github:o/tool/v2")))
    assert 'input = "tool-12345678"' in text_of(apart, "pi")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (change("nosuch", scope="home"), ErrorCode.NOT_INSTALLED),
        (change("tool", user="bob"), ErrorCode.INVALID_ARGUMENT),
        (Move("laptop", ("tool", "nosuch"), Scope.HOME, None), ErrorCode.NOT_INSTALLED),
    ],
)
def test_what_makes_no_sense_is_refused(request_: Planned, code: ErrorCode) -> None:
    assert refusal(base(), request_).code is code


def test_a_home_needs_a_repository_that_manages_homes() -> None:
    start = base(home_manager=False)
    for request in (
        change("tool", scope="home"),
        Move("laptop", ("tool",), Scope.HOME, None),
        SetHost("laptop", (("default_scope", "home"),)),
    ):
        assert refusal(start, request).code is ErrorCode.CONFLICT


# -- move and settings ---------------------------------------------------------------------------------------------


def test_moving_writes_scope_and_user_of_what_is_elsewhere() -> None:
    planned = plan(base(), Move("laptop", ("tool", "git"), Scope.SYSTEM, None))
    assert (planned.changes, planned.files) == ((), {})
    planned = plan(base(), Move("laptop", ("git", "git"), Scope.HOME, "bob"))
    assert text_of(planned) == HEAD + TOOL + GIT + 'scope = "home"\nuser = "bob"\n'
    assert planned.subject == "glix move laptop: git (nixpkgs#git, home of bob)"


def test_settings_are_written_and_cleared() -> None:
    planned = plan(base(), SetHost("laptop", (("auto_apply", "true"), ("system", "aarch64-linux"))))
    assert text_of(planned).startswith(HEAD.replace("x86_64", "aarch64") + "auto_apply = true\n")
    cleared = plan(base(), SetHost("laptop", (("system", ""),)))
    assert text_of(cleared) == HEAD.replace('system = "x86_64-linux"\n', "") + TOOL + GIT


def test_a_primary_user_stays_while_a_package_needs_one() -> None:
    start = base(laptop=HEAD + TOOL.replace('"system"', '"home"'))
    assert refusal(start, SetHost("laptop", (("primary_user", ""),))).code is ErrorCode.INVALID_ARGUMENT
    own = base(laptop=HEAD + TOOL.replace('"system"', '"home"\nuser = "bob"'))
    plan(own, SetHost("laptop", (("primary_user", ""),)))


# -- updates, adoptions, hosts ---------------------------------------------------------------------------------------


def test_an_update_says_what_moved_and_expects_exactly_that() -> None:
    planned = plan(base(), Update(ALL_HOSTS, ("nixpkgs", "tool"), ("old", "new")))
    assert (planned.updates, planned.expected) == (("nixpkgs", "tool"), {"tool": "new"})
    assert planned.subject == "glix update all-hosts: tool (tool, input)"
    assert plan(base(), Update(ALL_HOSTS, ("nixpkgs",), ("old",))).updates == ()


def test_an_adoption_carries_the_words_of_who_asked() -> None:
    planned = plan(base(), Adopt(ALL_HOSTS, "My words", everything=True))
    assert (planned.note, planned.regenerates, planned.changes) == ("My words", True, ())


def test_a_host_that_goes_takes_its_inputs_along() -> None:
    start = base(pi=HEAD + TOOL.replace("packages.tool", "packages.other").replace("o/tool", "o/other"))
    planned = plan_without_host(start, RemoveHost("pi"))
    assert planned.gone == {"pi"}
    assert [line.split(" ")[0] for line in inputs_of(start, planned)] == ['"tool"']
    assert planned.subject == "glix remove-host pi: host (x86_64-linux, 1 packages)"


def test_a_renamed_host_is_the_same_under_another_name() -> None:
    start = base(pi=HEAD)
    planned = plan_renamed_host(start, RenameHost("pi", "attic"))
    assert planned.gone == {"pi"}
    assert planned.files == {manifest_path("attic"): HEAD}
    region = FlakeFile.parse(regenerated(start, planned.manifests, planned.gone)).hosts_region
    assert [line.split('"')[1] for line in region.splitlines()] == ["attic", "laptop"]
    with pytest.raises(GlixError):
        plan_renamed_host(start, RenameHost("pi", "laptop"))


# -- batches -------------------------------------------------------------------------------------------------------


def test_parts_start_from_where_the_ones_before_end() -> None:
    start = base(pi=HEAD)
    new = Add("laptop", (flake("new", "github:o/new", "abc"),), Scope.SYSTEM, None, None, follows=True)
    batch = Batch(
        "laptop",
        (
            Remove("laptop", ("tool",)),
            new,
            change("new", config__a="b"),
            Switch("laptop", ("git",), enabled=False),
            replace(new, host="pi"),
        ),
    )
    planned = plan(start, batch)
    assert [one.action for one in planned.changes] == ["removed", "added", "changed", "disabled", "added"]
    assert planned.expected == {"new": "abc"}
    assert "tool" not in text_of(planned)
    assert 'a = "b"' in text_of(planned)
    assert "[packages.new]" in text_of(planned, "pi")
    assert [line.split(" ")[0] for line in inputs_of(start, planned)] == ['"new"']


def test_an_error_names_its_part() -> None:
    batch = Batch("laptop", (Remove("laptop", ("tool",)), change("tool", enabled="false")))
    error = refusal(base(), batch)
    assert (error.code, error.details["part"]) == (ErrorCode.NOT_INSTALLED, 2)
    assert error.message == "operations.2: laptop has no package tool."


def test_a_batch_needs_what_its_parts_need() -> None:
    parts = (change("tool", config__a="b"), change("tool", follows="false"), change("tool", config__a=""))
    assert [features(part) for part in parts] == [{"module-config"}, {"follows"}, set()]
    assert features(Batch("laptop", parts)) == {"module-config", "follows"}
