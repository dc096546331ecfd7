# SPDX-License-Identifier: GPL-3.0-or-later
"""What each mutation does to the files: golden plans, and that whatever stays stays byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from glixd.api import Consent, Scope
from glixd.errors import GlixError, InvalidRequest, NotFound, Refused
from glixd.model.change import Add, Base, Init, Plan, Planned, Regenerate, Remove, Resolved, Switch, manifest_path
from glixd.model.flakefile import FlakeFile
from glixd.model.manifest import Manifest
from glixd.model.operations import features, new_flake, plan, plan_host, regenerated
from glixd.protocol import ErrorCode

FOLDER = Path(__file__).resolve().parents[3] / "glixd" / "templates"
TEMPLATES = {path.name: path.read_text() for path in FOLDER.iterdir() if path.is_file()}
SYSTEM = "x86_64-linux"
INIT = Init(
    "laptop",
    "alice",
    SYSTEM,
    "github:NixOS/nixpkgs/nixos-unstable",
    "github:o/core",
    "github:nix-community/home-manager",
)

MANIFEST = """\
# mine
schema = 1

[settings]
default_scope = "system"
primary_user = "alice"

# browsers
[packages.firefox]   # fast
flake = "nixpkgs#firefox"

[packages.tool]
flake = "github:o/tool"
scope = "home"
enabled = false
note = "a key that nobody knows"
# the end
"""
FIREFOX = """\
[packages.firefox]   # fast
flake = "nixpkgs#firefox"
"""
TOOL = '    "tool" = { url = "github:o/tool"; inputs.nixpkgs.follows = "nixpkgs"; };\n'


def lock(*names: str) -> str:
    nodes = {name: {"locked": {}, "original": {"type": "indirect", "id": name}} for name in names}
    root = {"inputs": {name: name for name in names}}
    return json.dumps({"nodes": {"root": root, **nodes}, "root": "root", "version": 7})


def base(*more: tuple[str, str], home_manager: bool = True) -> Base:
    """A repository with the host laptop, and more hosts with their manifests."""
    texts = {"laptop": MANIFEST, **dict(more)}
    names = ("nixpkgs", "glixos-core", *(("home-manager",) if home_manager else ()))
    manifests = {host: Manifest.parse(text, manifest_path(host)) for host, text in texts.items()}
    start = Base(new_flake(INIT, TEMPLATES), lock(*names), manifests, texts, SYSTEM)
    return replace(start, flake=regenerated(start, {}))


def attribute(name: str) -> Resolved:
    return Resolved(name, name, f"nixpkgs#{name}", "nixpkgs", None, name, trusted=True)


def flake(name: str, text: str, url: str | None = None, revision: str | None = None) -> Resolved:
    return Resolved(text, name, text, "uri", url or text, None, trusted=False, revision=revision)


def add(*packages: Resolved, scope: Scope = Scope.SYSTEM, user: str | None = None, pin: str | None = None) -> Add:
    return Add("laptop", packages, scope, user, pin, follows=True)


def text_of(planned: Plan) -> str:
    """The one file that a plan writes: the manifest, which reads back as the plan says."""
    assert list(planned.files) == [manifest_path("laptop")]
    text = planned.files[manifest_path("laptop")]
    assert Manifest.parse(text, "glix.toml") == planned.manifests["laptop"]
    return text


def inputs_of(start: Base, planned: Plan) -> str:
    """The managed inputs after a plan; whatever is outside the regions is as it was."""
    after = FlakeFile.parse(regenerated(start, planned.manifests))
    assert after.outside() == FlakeFile.parse(start.flake).outside()
    return after.inputs_region


def refusal(start: Base, request: Planned) -> GlixError:
    with pytest.raises(GlixError) as caught:
        plan(start, request)
    return caught.value


# -- add ---------------------------------------------------------------------------------------------------------


def test_an_attribute_of_nixpkgs_is_one_table_and_no_input() -> None:
    planned = plan(base(), add(attribute("git")))
    assert text_of(planned) == MANIFEST + '\n[packages.git]\nflake = "nixpkgs#git"\nscope = "system"\n'
    assert inputs_of(base(), planned) == TOOL
    assert planned.subject == "glix add laptop: git (nixpkgs#git, system, via nixpkgs)"
    assert planned.summary == "added git to laptop (nixpkgs#git, system, via nixpkgs)"
    assert planned.body == []
    assert planned.expected == {}
    assert planned.regenerates


def test_a_flake_is_an_input_at_the_revision_that_was_resolved() -> None:
    start = base()
    request = Add(
        "laptop",
        (flake("7zip", "github:o/7zip", "github:o/7zip?ref=v1", revision="abc"),),
        Scope.HOME,
        "bob",
        "v1",
        follows=False,
    )
    planned = plan(start, request)
    assert text_of(planned).removeprefix(MANIFEST) == (
        '\n[packages.7zip]\nflake = "github:o/7zip"\nscope = "home"\nuser = "bob"\npin = "v1"\n'
        'input = "p-7zip"\nfollows = false\n'
    )
    assert inputs_of(start, planned) == '    "p-7zip" = { url = "github:o/7zip?ref=v1"; };\n' + TOOL
    assert planned.expected == {"p-7zip": "abc"}
    assert planned.subject == "glix add laptop: 7zip (github:o/7zip, home of bob, via uri)"


def test_several_packages_are_one_change_with_a_line_for_each() -> None:
    planned = plan(base(), add(*(attribute(name) for name in ("git", "emacs", "vim", "hello"))))
    assert planned.subject == "glix add laptop: git, emacs, vim and 1 more"
    assert planned.summary == "added git, emacs, vim and 1 more to laptop"
    assert planned.body[0] == "added git (nixpkgs#git, system, via nixpkgs)"
    assert len(planned.body) == 4
    assert list(planned.manifests["laptop"].packages) == ["firefox", "tool", "git", "emacs", "vim", "hello"]


def test_the_scope_is_written_whatever_the_default_is() -> None:
    planned = plan(base(), add(attribute("git"), scope=Scope.HOME))
    assert planned.manifests["laptop"].packages["git"].scope is Scope.HOME
    assert planned.changes[0].user == "alice"


def test_the_same_url_on_two_hosts_is_one_input_and_another_url_gets_a_name_of_its_own() -> None:
    other = 'schema = 1\n[packages.tool]\nflake = "github:o/tool"\n[packages.x]\nflake = "github:o/x"\n'
    start = base(("server", other))
    same = plan(start, add(flake("x", "github:o/x")))
    assert same.manifests["laptop"].packages["x"].input is None
    assert inputs_of(start, same).count('"x" =') == 1
    different = plan(start, add(flake("x", "github:other/x", revision="abc")))
    assigned = different.manifests["laptop"].packages["x"].input
    assert assigned is not None
    assert assigned.startswith("x-")
    assert different.expected == {assigned: "abc"}
    assert f'"{assigned}" = {{ url = "github:other/x";' in inputs_of(start, different)


def test_what_is_there_already_is_refused_with_what_to_do() -> None:
    error = refusal(base(), add(attribute("git"), attribute("firefox")))
    assert error.code is ErrorCode.ALREADY_INSTALLED
    assert error.hint == "Nothing needs to be done."
    disabled = refusal(base(), add(flake("tool", "github:o/tool")))
    assert disabled.hint == "It is disabled; enable it with: glixctl enable tool --host laptop"
    consented = replace(attribute("firefox"), consents=(Consent.UNFREE,))
    hints = {
        refusal(base(), asked).hint
        for asked in (
            add(consented),
            add(attribute("firefox"), pin="v1"),
            add(attribute("firefox"), scope=Scope.HOME),
            add(attribute("firefox"), scope=Scope.HOME, user="bob"),
        )
    }
    assert hints == {
        "Consent to what it needs with: glixctl enable firefox --allow-unfree --host laptop",
        "Pin it with: glixctl set firefox pin=v1 --host laptop",
        "Move it with: glixctl move firefox --scope home --host laptop",
        "Move it with: glixctl move firefox --user bob --host laptop",
    }
    other = refusal(base(), add(flake("firefox", "github:o/firefox")))
    assert "--name" in other.hint


def test_a_home_needs_a_user_and_a_repository_that_manages_homes() -> None:
    nobody = base()
    text = MANIFEST.replace('primary_user = "alice"\n', "").replace('scope = "home"\n', "")
    manifests = {"laptop": Manifest.parse(text, "x")}
    error = refusal(
        replace(nobody, manifests=manifests, texts={"laptop": text}), add(attribute("git"), scope=Scope.HOME)
    )
    assert isinstance(error, InvalidRequest)
    assert error.details["argument"] == "user"
    without = refusal(base(home_manager=False), add(attribute("git"), scope=Scope.HOME))
    assert isinstance(without, Refused)
    assert "home-manager" in without.message


# -- remove, enable, disable -------------------------------------------------------------------------------------


def test_removing_takes_the_table_and_nothing_around_it() -> None:
    planned = plan(base(), Remove("laptop", ("firefox", "firefox")))
    assert text_of(planned) == MANIFEST.replace(FIREFOX, "")
    assert planned.subject == "glix remove laptop: firefox (nixpkgs#firefox, system)"
    assert planned.summary == "removed firefox from laptop (nixpkgs#firefox, system)"


def test_removing_the_last_user_of_an_input_takes_the_input() -> None:
    start = base()
    assert inputs_of(start, plan(start, Remove("laptop", ("tool",)))) == ""
    shared = base(("server", 'schema = 1\n[packages.tool]\nflake = "github:o/tool"\n'))
    assert inputs_of(shared, plan(shared, Remove("laptop", ("tool",)))) == TOOL


def test_what_is_not_there_is_refused_and_the_nearest_named() -> None:
    for request in (
        Remove("laptop", ("firefox", "firefix")),
        Switch("laptop", ("firefix",), enabled=True),
        Switch("laptop", ("firefix",), enabled=False),
    ):
        error = refusal(base(), request)
        assert isinstance(error, NotFound)
        assert error.code is ErrorCode.NOT_INSTALLED
        assert error.details["closest"] == ["firefox"]


def test_disabling_writes_one_key_and_keeps_the_input() -> None:
    start = base()
    planned = plan(start, Switch("laptop", ("firefox",), enabled=False))
    assert text_of(planned) == MANIFEST.replace(FIREFOX, FIREFOX + "enabled = false\n")
    assert planned.subject == "glix disable laptop: firefox (nixpkgs#firefox, system)"
    assert inputs_of(start, planned) == TOOL
    assert not planned.regenerates


def test_enabling_changes_what_is_disabled_and_nothing_else() -> None:
    planned = plan(base(), Switch("laptop", ("firefox", "tool", "tool"), enabled=True))
    assert text_of(planned) == MANIFEST.replace("enabled = false", "enabled = true")
    assert [change.name for change in planned.changes] == ["tool"]
    assert planned.subject == "glix enable laptop: tool (github:o/tool, home of alice)"


@pytest.mark.parametrize(("name", "enabled"), [("firefox", True), ("tool", False)])
def test_what_is_so_already_is_nothing_to_do(name: str, *, enabled: bool) -> None:
    planned = plan(base(), Switch("laptop", (name,), enabled))
    assert (planned.changes, planned.files, planned.manifests) == ((), {}, {})
    assert planned.summary == "nothing to do on laptop"


# -- init and regenerate -----------------------------------------------------------------------------------------


def values_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def test_a_new_repository_has_its_inputs_and_one_host() -> None:
    planned = plan_host(None, INIT, TEMPLATES)
    assert sorted(planned.files) == ["hosts/laptop/default.nix", "hosts/laptop/glix.toml"]
    settings = planned.manifests["laptop"].settings
    assert (settings.primary_user, settings.system, settings.default_scope) == ("alice", SYSTEM, Scope.SYSTEM)
    assert planned.summary == "made the host laptop (x86_64-linux, alice)"
    assert planned.subject == "glix init laptop: host (x86_64-linux, alice)"
    start = Base(new_flake(INIT, TEMPLATES), None, {}, {}, SYSTEM)
    after = FlakeFile.parse(regenerated(start, planned.manifests))
    assert after.hosts_region == '      "laptop" = mkHost "laptop" "x86_64-linux";\n'
    assert after.inputs_region == ""
    for url in (INIT.nixpkgs, INIT.core, INIT.home_manager):
        assert f'url = "{url}";' in start.flake


def test_no_file_of_a_new_host_has_a_password() -> None:
    for text in plan_host(None, INIT, TEMPLATES).files.values():
        assert not [line for line in values_in(text) if "assword" in line]


def test_a_repository_without_home_manager_names_none() -> None:
    assert "home-manager" not in new_flake(replace(INIT, home_manager=None), TEMPLATES)


def test_every_placeholder_is_filled_once() -> None:
    """A value that looks like a placeholder is a value: filling is one pass."""
    url = "git+https://example.org/r?ref=v1@CORE_URL@HOME_MANAGER_BLOCK@"
    text = new_flake(replace(INIT, nixpkgs=url), TEMPLATES)
    assert f'nixpkgs.url = "{url}";' in text
    assert text.replace(url, "").count("@") == 0
    for made in plan_host(None, INIT, TEMPLATES).files.values():
        assert "@" not in made


def test_a_value_can_not_leave_its_string() -> None:
    text = new_flake(replace(INIT, core='x"; evil = "${y}'), TEMPLATES)
    assert r'url = "x\"; evil = \"\${y}";' in text


def test_a_second_host_joins_and_the_first_is_untouched() -> None:
    start = base()
    planned = plan_host(start, replace(INIT, host="pi", user="bob", system="aarch64-linux"), TEMPLATES)
    after = FlakeFile.parse(regenerated(start, planned.manifests))
    assert after.hosts_region == (
        '      "laptop" = mkHost "laptop" "x86_64-linux";\n      "pi" = mkHost "pi" "aarch64-linux";\n'
    )
    assert after.inputs_region == TOOL
    assert planned.summary == "added the host pi (aarch64-linux, bob)"
    assert not [path for path in planned.files if not path.startswith("hosts/pi/")]


def test_a_host_that_is_there_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        plan_host(base(), INIT, TEMPLATES)
    assert caught.value.code is ErrorCode.CONFLICT
    assert caught.value.details == {"host": "laptop"}


def test_regenerating_writes_the_regions_and_no_manifest() -> None:
    start = base()
    planned = plan(start, Regenerate("laptop"))
    assert (planned.files, planned.changes, planned.regenerates) == ({}, (), True)
    stale = replace(start, flake=start.flake.replace(TOOL, '    "stale" = { url = "github:o/stale"; };\n'))
    assert regenerated(stale, planned.manifests) == start.flake


def test_a_manifest_with_a_bad_reference_is_refused_with_its_path_and_package() -> None:
    text = 'schema = 1\n[packages.odd]\nflake = "github:a/../b"\n'
    start = base()
    broken = replace(start, manifests={"laptop": Manifest.parse(text, "x")}, texts={"laptop": text})
    with pytest.raises(Refused) as caught:
        regenerated(broken, {})
    assert caught.value.code is ErrorCode.MANIFEST_INVALID
    assert caught.value.message.startswith("hosts/laptop/glix.toml: packages.odd: ")


# -- what a change needs -----------------------------------------------------------------------------------------


def test_a_change_needs_of_the_core_what_it_writes() -> None:
    needs: Mapping[str, set[str]] = {
        "attribute": features(add(attribute("git"))),
        "package": features(add(flake("x", "github:o/x"))),
        "path": features(add(replace(flake("y", "github:o/x#y"), attribute="y"))),
        "own nixpkgs": features(replace(add(flake("x", "github:o/x")), follows=False)),
        "removing": features(Remove("laptop", ("x",))),
    }
    assert needs == {
        "attribute": {"host-attributes"},
        "package": set(),
        "path": {"attribute-paths"},
        "own nixpkgs": {"follows"},
        "removing": set(),
    }


def test_the_reference_in_a_commit_is_the_users_and_no_value_of_a_configuration_is() -> None:
    text = MANIFEST + '[packages.tool.config]\ntoken = "hunter2"\n'
    start = replace(base(), texts={"laptop": text}, manifests={"laptop": Manifest.parse(text, "x")})
    for request in (Switch("laptop", ("tool",), enabled=True), Remove("laptop", ("tool", "firefox"))):
        planned = plan(start, request)
        assert "hunter2" not in " ".join([planned.subject, planned.summary, *planned.body, repr(planned.changes)])
