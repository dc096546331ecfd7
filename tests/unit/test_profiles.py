# SPDX-License-Identifier: GPL-3.0-or-later
"""The one list of profiles: what Python reads of it, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixd.errors import InvalidRequest
from glixd.profiles import PLACES, chosen, load

CORE = Path(__file__).resolve().parents[2] / "core"


def test_every_profile_has_a_description_systems_and_modules_that_exist() -> None:
    profiles = load()
    assert set(profiles) >= {"minimal", "desktop"}
    for profile in profiles.values():
        assert profile.description
        assert profile.systems
        assert profile.modules[0] == "core"
        for module in profile.modules:
            assert (CORE / "modules" / module / "default.nix").is_file()


def test_every_module_of_the_core_belongs_to_a_profile() -> None:
    named = {module for profile in load().values() for module in profile.modules}
    assert named == {path.parent.name for path in (CORE / "modules").glob("*/default.nix")}


def test_a_profile_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="no profile desktp") as refused:
        chosen("desktp", "x86_64-linux")
    assert refused.value.hint == "Did you mean desktop?"
    with pytest.raises(InvalidRequest) as refused:
        chosen("zebra", "x86_64-linux")
    assert refused.value.hint == f"There are: {', '.join(load())}."


def test_a_profile_for_another_system_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="riscv64-linux"):
        chosen("desktop", "riscv64-linux")


def test_a_new_profile_is_found_without_a_change_of_the_code(tmp_path: Path) -> None:
    text = (CORE / "profiles.toml").read_text()
    more = '\n[profiles.server]\ndescription = "d"\nmodules = ["core"]\nsystems = ["x86_64-linux"]\n'
    (tmp_path / "profiles.toml").write_text(text + more)
    assert "server" in load((tmp_path / "profiles.toml", *PLACES))
