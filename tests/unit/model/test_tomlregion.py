# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits of long manifests are judged by the part they touch, and say the same as if the whole were read."""

from __future__ import annotations

import random
import tomllib
from typing import Any

import pytest

from glixd.api import Scope
from glixd.errors import Refused
from glixd.model import document, reading, tomlregion
from glixd.model.manifest import Package

HEAD = """schema = 1
numbers = [
  [1, 2], # [packages.no]
  ["packages"],
]

[settings]
system = "x86_64-linux" # [packages.no]
"""
LAYOUTS = (
    '[packages."{0}"] # of {0}\n# inside of {0}\nflake = "nixpkgs#hello"\n',
    "[ packages . '{0}' ]\nflake = \"nixpkgs#hello\"\nscope = 'system' # beside of {0}\n# below {0}\n",
    '[packages."{0}"]\nflake = "nixpkgs#hello"\n[packages."{0}".config]\n"[packages.no]" = "[packages.no]"\n',
    '[packages."{0}"]\nflake = "nixpkgs#hello"\nconfig = {{ a = "b" }}\n',
    '[packages."{0}".config] # first of {0}\na = "b"\n\n[packages."{0}"]\nflake = "nixpkgs#hello"\n',
    '[packages]\n"{0}".flake = "nixpkgs#hello"\n',
)


def long_text(order: random.Random, count: int = 450, end: str = "\n") -> str:
    """A manifest long enough, in which packages stand in several layouts; the table `packages` itself at most once."""
    layouts = [order.choice(LAYOUTS[:5]) for _ in range(count)]
    layouts[order.randrange(count)] = LAYOUTS[5]
    tables = [layout.format(f"p{number}.x") for number, layout in enumerate(layouts)]
    text = HEAD + "\n" + "\n".join(tables)
    assert len(text) > reading.LONG
    return text.rstrip("\n") + end


def told(text: str) -> dict[str, Any]:
    """What a manifest says of its packages, whatever the layout; an empty config is none."""
    packages = tomllib.loads(text)["packages"]
    return {
        name: {key: value for key, value in table.items() if (key, value) != ("config", {})}
        for name, table in packages.items()
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_random_edits_of_a_long_manifest_say_what_they_should(seed: int, newline: str) -> None:
    order = random.Random(seed)
    text = long_text(order, end=order.choice(["\n", "", "\n\n"])).replace("\n", newline)
    expected = told(text)
    rest = {key: value for key, value in tomllib.loads(text).items() if key != "packages"}
    for number in range(16):
        name = order.choice(sorted(expected))
        match order.choice(["add", "remove", "change", "config"]):
            case "add":
                text = document.add_package(text, Package(f"new-{number}", "nixpkgs#git", Scope.HOME))
                expected[f"new-{number}"] = {"flake": "nixpkgs#git", "scope": "home"}
            case "remove":
                try:
                    text = document.remove_package(text, name)
                except Refused:
                    continue  # its layout forbids it
                del expected[name]
            case "change":
                text = document.change_package(text, name, {"enabled": False, "pin": f"v{number}"})
                expected[name] |= {"enabled": False, "pin": f"v{number}"}
            case "config":
                text = document.change_package(text, name, {"config": {"k": f"{number}"}})
                expected[name] = {**expected[name], "config": {**expected[name].get("config", {}), "k": f"{number}"}}
        assert told(text) == expected
        assert {key: value for key, value in tomllib.loads(text).items() if key != "packages"} == rest
    for line in HEAD.splitlines():
        assert line in text


def test_only_the_touched_tables_are_read() -> None:
    text = "[packages.a]\nx = 1\n\n[packages.b]\nx = 1\n\n[packages.c]\nx = 1\n"
    assert tomlregion.touched(text, text.replace("[packages.b]\nx = 1", "[packages.b]\nx = 2")) == (
        "[packages.b]\nx = 1\n\n",
        "[packages.b]\nx = 2\n\n",
    )
    assert tomlregion.touched(text, text + "\n[packages.d]\nx = 1\n") == (
        "[packages.c]\nx = 1\n",
        "[packages.c]\nx = 1\n\n[packages.d]\nx = 1\n",
    )
    below = text.replace("\n\n[packages.c]", "\n[packages.b.config]\ny = 1\n\n[packages.c]")
    assert tomlregion.touched(text, below) == (
        "[packages.b]\nx = 1\n\n",
        "[packages.b]\nx = 1\n[packages.b.config]\ny = 1\n\n",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[packages.a]\nx = """\n[packages.b]\n"""\ny = 1\n', '[packages.a]\nx = """\n[packages.b]\n"""\ny = 2\n'),
        ("x = 1\n[packages.a]\n", "x = 2\n[packages.a]\n"),
        ("[packages.a]\nx = 1\n[packages.b]\n", "[packages.a]\nx = 1[packages.b]\n"),
        ("[packages.a]\n", '["packages.a"]\n'),
    ],
)
def test_whole_is_read_where_a_part_could_mean_something_else(before: str, after: str) -> None:
    assert tomlregion.touched(before, after) is None
