# SPDX-License-Identifier: GPL-3.0-or-later
"""The managed regions: what is written inside, and that nothing outside moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.errors import GlixError, Refused
from glixd.model.flakefile import RESERVED_INPUTS, FlakeFile, HostEntry, Input
from glixd.protocol import ErrorCode

IN = "# >>> glix-managed inputs >>>"
IN_END = "# <<< glix-managed inputs <<<"
HOSTS = "# >>> glix-managed hosts >>>"
HOSTS_END = "# <<< glix-managed hosts <<<"

FLAKE = f"""\
{{
  inputs = {{
    nixpkgs.url = "github:NixOS/nixpkgs";
    {IN}
    stale = {{ }};
    {IN_END}
  }};
  outputs = inputs: inputs.glixos-core.lib.mkFlake {{
    inherit inputs;
    hosts = mkHost: {{
      {HOSTS}
      {HOSTS_END}
    }};
  }};
}}
"""


def test_regions_are_written_sorted_and_indented_like_their_marker() -> None:
    inputs = [Input("zed", "github:o/zed", follows=False), Input("greeting", "path:./pkgs/greeting")]
    result = FlakeFile.parse(FLAKE).render(
        inputs, [HostEntry("pi", "aarch64-linux"), HostEntry("laptop", "x86_64-linux")]
    )
    greeting = '    "greeting" = { url = "path:./pkgs/greeting"; inputs.nixpkgs.follows = "nixpkgs"; };\n'
    zed = '    "zed" = { url = "github:o/zed"; };\n'
    hosts = '      "laptop" = mkHost "laptop" "x86_64-linux";\n      "pi" = mkHost "pi" "aarch64-linux";\n'
    expected = FLAKE.replace("    stale = { };\n", greeting + zed).replace(f"{HOSTS}\n", f"{HOSTS}\n{hosts}")
    assert result == expected
    again = FlakeFile.parse(result)
    assert again.inputs_region == greeting + zed
    assert again.hosts_region == hosts
    assert again.outside() == FlakeFile.parse(FLAKE).outside()


def test_a_url_can_not_leave_its_string() -> None:
    line = FlakeFile.parse(FLAKE).render([Input("x", 'a"; ${evil}\n')], [])
    assert r'"x" = { url = "a\"; \${evil}\n"; inputs' in line


def test_equal_inputs_are_written_once_and_different_ones_of_one_name_refused() -> None:
    flake = FlakeFile.parse(FLAKE)
    assert flake.render([Input("x", "u"), Input("x", "u")], []).count('"x"') == 1
    with pytest.raises(Refused) as caught:
        flake.render([Input("x", "u"), Input("x", "v")], [])
    assert caught.value.code is ErrorCode.CONFLICT


BROKEN: list[tuple[str, list[str], str, int | None]] = [
    ("no marker at all", [], IN, None),
    ("inputs not opened", [IN_END, HOSTS, HOSTS_END], IN, None),
    ("inputs not closed", [IN, HOSTS, HOSTS_END], IN_END, None),
    ("hosts not opened", [IN, IN_END, HOSTS_END], HOSTS, None),
    ("hosts not closed", [IN, IN_END, HOSTS], HOSTS_END, None),
    ("opened twice", [IN, IN, IN_END, HOSTS, HOSTS_END], IN, 2),
    ("closed twice", [IN, IN_END, HOSTS, HOSTS_END, IN_END], IN_END, 5),
    ("the region twice", [IN, IN_END, HOSTS, HOSTS_END, HOSTS, HOSTS_END], HOSTS, 5),
    ("swapped", [IN_END, IN, HOSTS, HOSTS_END], IN_END, 1),
    ("hosts in inputs", [IN, HOSTS, HOSTS_END, IN_END], HOSTS, 2),
    ("inputs in hosts", [HOSTS, IN, IN_END, HOSTS_END], IN, 2),
    ("crossed", [IN, HOSTS, IN_END, HOSTS_END], HOSTS, 2),
    ("not alone on its line", [f"x = 1; {IN}", IN_END, HOSTS, HOSTS_END], IN, None),
    ("text behind it", [f"{IN} please", IN_END, HOSTS, HOSTS_END], IN, None),
    ("mixed arrows", ["# >>> glix-managed inputs <<<", IN_END, HOSTS, HOSTS_END], IN, None),
]


@pytest.mark.parametrize(("lines", "marker", "line"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_markers_are_refused_by_name_and_line(lines: list[str], marker: str, line: int | None) -> None:
    with pytest.raises(Refused) as caught:
        FlakeFile.parse("\n".join([*lines, ""]), "repo/flake.nix")
    assert caught.value.code is ErrorCode.MANAGED_REGION_BROKEN
    assert caught.value.details["marker"] == marker
    assert caught.value.details["path"] == "repo/flake.nix"
    assert caught.value.details.get("line") == line
    assert marker in caught.value.message


@pytest.mark.parametrize("name", [*sorted(RESERVED_INPUTS), "7zip", "a.b", "", "a b", 'x"', "a\n", "-x"])
def test_an_input_name_that_nix_or_the_flake_needs_otherwise_is_refused(name: str) -> None:
    with pytest.raises(GlixError) as caught:
        Input(name, "github:o/r")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("name", "system"),
    [("../x", "x86_64-linux"), ("A", "x86_64-linux"), ("a\n", "x86_64-linux"), ("a", "x86_64-darwin"), ("a", "")],
)
def test_a_host_entry_keeps_to_the_grammar(name: str, system: str) -> None:
    with pytest.raises(GlixError) as caught:
        HostEntry(name, system)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


SURROUNDINGS = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: "glix-managed" not in text)
ENTRIES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True), SURROUNDINGS.filter(str.isprintable), max_size=4
)


@given(
    st.lists(SURROUNDINGS, min_size=5, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "  ", "\t"]),
    st.booleans(),
    ENTRIES,
)
def test_everything_outside_the_regions_stays_byte_for_byte(
    around: list[str], newline: str, indentation: str, swapped: bool, entries: dict[str, str]
) -> None:
    regions = [(IN, IN_END), (HOSTS, HOSTS_END)]
    if swapped:
        regions.reverse()
    (one, one_end), (two, two_end) = ((f"{indentation}{a}{newline}", f"{indentation}{b}") for a, b in regions)
    head, tail = f"{around[0]}\n{one}", f"{one_end}{newline}{around[2]}\n{two}"
    end = two_end if not around[4] else f"{two_end}{newline}{around[4]}"
    flake = FlakeFile.parse(f"{head}{around[1]}\n{tail}{around[3]}\n{end}")
    inputs = [Input(name, url) for name, url in entries.items() if name not in RESERVED_INPUTS]
    result = flake.render(inputs, [HostEntry("h", "x86_64-linux")])
    assert result.startswith(head)
    assert tail in result
    assert result.endswith(end)
    again = FlakeFile.parse(result)
    assert again.outside() == flake.outside() == head + tail + end
    assert again.render(inputs, [HostEntry("h", "x86_64-linux")]) == result
    lines = (again.inputs_region + again.hosts_region).split(newline)
    assert lines.pop() == ""
    assert all(line.startswith(f'{indentation}"') and line.endswith(";") for line in lines)
    assert len(lines) == len(inputs) + 1
