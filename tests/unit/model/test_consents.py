# SPDX-License-Identifier: GPL-3.0-or-later
"""Consents for unfree, insecure and broken packages: how the manifest records them, and how they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixd.api import Consent, Scope
from glixd.errors import Refused
from glixd.model.change import Add, Base, Remove, Resolved
from glixd.model.document import change_settings
from glixd.model.manifest import Manifest
from glixd.model.operations import features, plan

PATH = "hosts/laptop/glix.toml"
PLAIN = """\
# my machine
schema = 1

[settings]
system = "x86_64-linux" # this one

[packages.hello]
flake = "nixpkgs#hello"
"""


def package(name: str, *consents: Consent) -> Resolved:
    return Resolved(name, name, f"nixpkgs#{name}", "nixpkgs", None, name, trusted=True, consents=consents)


def base(text: str) -> Base:
    template = Path(__file__).parents[3] / "glixd" / "templates" / "flake.nix"
    return Base(template.read_text(), None, {"laptop": Manifest.parse(text, PATH)}, {"laptop": text}, "x86_64-linux")


def added(text: str, *packages: Resolved) -> str:
    planned = plan(base(text), Add("laptop", packages, Scope.SYSTEM, None, None, follows=True))
    assert Manifest.parse(planned.files[PATH], PATH) == planned.manifests["laptop"]
    return planned.files[PATH]


def removed(text: str, *names: str) -> str:
    planned = plan(base(text), Remove("laptop", names))
    assert Manifest.parse(planned.files[PATH], PATH) == planned.manifests["laptop"]
    return planned.files[PATH]


def test_a_consent_is_recorded_in_the_settings_and_every_other_line_stays() -> None:
    text = added(PLAIN, package("steam", Consent.UNFREE))
    assert text.startswith(PLAIN.replace("# this one\n", '# this one\nallow_unfree = ["steam"]\n'))


def test_a_manifest_without_settings_gets_them_with_the_first_consent() -> None:
    text = added("schema = 1\n", package("steam", Consent.UNFREE, Consent.BROKEN))
    settings = Manifest.parse(text, PATH).settings
    assert (settings.allow_unfree, settings.allow_insecure, settings.allow_broken) == (("steam",), (), ("steam",))


def test_consents_of_several_packages_stand_in_one_list_once() -> None:
    text = added(PLAIN, package("steam", Consent.UNFREE))
    text = added(text, package("vscode", Consent.UNFREE), package("plain"))
    assert Manifest.parse(text, PATH).settings.allow_unfree == ("steam", "vscode")


def test_a_consent_goes_with_its_package_and_an_empty_list_goes_too() -> None:
    both = added(PLAIN, package("steam", Consent.UNFREE), package("vscode", Consent.UNFREE))
    one = removed(both, "steam")
    assert Manifest.parse(one, PATH).settings.allow_unfree == ("vscode",)
    assert removed(one, "vscode") == PLAIN


def test_a_package_without_a_consent_leaves_the_settings_alone() -> None:
    assert added(PLAIN, package("firefox")).startswith(PLAIN)


def test_comments_inside_a_list_stay() -> None:
    text = 'schema = 1\n[settings]\nallow_unfree = [\n  "steam", # games\n  # work\n  "vscode",\n]\n'
    changed = change_settings(text, {"allow_unfree": ["steam", "vscode", "zoom"]})
    assert "# games" in changed
    assert "# work" in changed
    assert Manifest.parse(changed, PATH).settings.allow_unfree == ("steam", "vscode", "zoom")


def test_the_manifest_says_what_was_consented_to_for_a_package() -> None:
    text = 'schema = 1\n[settings]\nallow_unfree = ["a", "b"]\nallow_broken = ["b", "b"]\n'
    manifest = Manifest.parse(text, PATH)
    assert manifest.consents_of("b") == (Consent.UNFREE, Consent.BROKEN)
    assert manifest.consents_of("c") == ()


@pytest.mark.parametrize("value", ['"steam"', "true", "[1]", '["a b"]', '[""]', '[["steam"]]'])
def test_a_list_of_consents_holds_names_of_packages_and_nothing_else(value: str) -> None:
    with pytest.raises(Refused, match=r"glix\.toml:3"):
        Manifest.parse(f"schema = 1\n[settings]\nallow_unfree = {value}\n", PATH)


def test_a_consent_needs_a_core_that_honours_it() -> None:
    def needed(*consents: Consent) -> set[str]:
        return features(Add("laptop", (package("steam", *consents),), Scope.SYSTEM, None, None, follows=True))

    assert "consents" in needed(Consent.UNFREE)
    assert "consents" not in needed()
