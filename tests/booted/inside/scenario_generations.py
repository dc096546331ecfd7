# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way with the nix of the machine: built, switched to, changed, compared, gone back from, and tidied up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.booted.inside.conftest import HOST
from tests.booted.inside.machine import answer, git, glixctl, run

PROFILE = Path("/nix/var/nix/profiles/system")
CURRENT = Path("/run/current-system")
MANIFEST = f"hosts/{HOST}/glix.toml"

pytestmark = pytest.mark.usefixtures("repository")


def _programs() -> set[str]:
    return set(os.listdir(CURRENT / "sw/bin"))


def _system(number: int) -> str:
    return os.readlink(PROFILE.with_name(f"system-{number}-link"))


def test_build_switch_second_generation_diff_rollback_and_garbage() -> None:
    glixctl("add", "hello")
    built = answer("rebuild", "build")["outcome"]["rebuild"]
    assert (built["action"], built.get("generation")) == ("build", None)
    first = answer("rebuild")
    one = first["outcome"]["rebuild"]["generation"]
    assert os.readlink(PROFILE) == f"system-{one}-link"
    assert _system(one) == os.path.realpath(CURRENT) == built["path"]
    assert "hello" in _programs()
    manifest, lock = git("show", f"main:{MANIFEST}"), git("show", "main:flake.lock")

    glixctl("add", "tmux", "--no-evaluate")
    glixctl("remove", "hello", "--no-evaluate")
    second = answer("rebuild")["outcome"]["rebuild"]
    two = second["generation"]
    assert (second["previous"], two) == (one, one + 1)
    assert {"tmux"} == _programs() & {"hello", "tmux"}

    shown = {line["number"]: line for line in answer("generations")["generations"]}
    assert [shown[number].get("current", False) for number in (one, two)] == [False, True]
    change = answer("diff", str(one), str(two))["change"]["packages"]
    assert {package["name"]: package["kind"] for package in change} == {"hello": "removed", "tmux": "added"}
    said = glixctl("diff", str(one), str(two)).stdout
    assert "hello" in said
    assert "tmux" in said

    before = git("rev-parse", "main")
    back = answer("rollback", "--to", str(one))
    assert back["outcome"]["rebuild"]["generation"] == one
    assert os.readlink(PROFILE) == f"system-{one}-link"
    assert _system(one) == os.path.realpath(CURRENT)
    assert git("rev-parse", "main~1") == before, "one commit"
    assert (git("show", f"main:{MANIFEST}"), git("show", "main:flake.lock")) == (manifest, lock)
    again = answer("rebuild")["outcome"]["rebuild"]
    assert again["change"]["packages"] == [], "what is built from the manifest is what runs"
    assert {"hello"} == _programs() & {"hello", "tmux"}

    tag = f"refs/tags/glix/gen/{HOST}/{two}"
    assert git("rev-parse", "--verify", tag)
    gone = _system(two)
    run("nix-env", "--profile", str(PROFILE), "--delete-generations", str(two))
    told = answer("gc", "--dry-run")["outcome"]["garbage"]
    collected = answer("gc")["outcome"]["garbage"]
    assert told["tags"] == collected["tags"] == [tag]
    assert collected["paths"] > 0
    assert not Path(gone).exists()
    assert run(str(CURRENT / "sw/bin/hello")).returncode == 0, "what runs is still there"
