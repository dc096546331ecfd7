# SPDX-License-Identifier: GPL-3.0-or-later
"""The managed regions of flake.nix: glixd writes between its markers, everything outside stays byte for byte.

A region is what stands between two marker lines, each alone on its line at any indentation:

    # >>> glix-managed inputs >>>
    # <<< glix-managed inputs <<<

There is one for `inputs` and one for `hosts`. A file in which either is missing, doubled, swapped or nested is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple, Self, TypeVar

from glixd.api import HOST_NAME, SYSTEM
from glixd.errors import Detail, Refused, invalid
from glixd.model.inputs import INPUT_NAME, RESERVED_INPUTS
from glixd.model.nixtext import nix_key, nix_string
from glixd.protocol import ErrorCode
from glixd.values import dataclass

__all__ = ["RESERVED_INPUTS", "FlakeFile", "HostEntry", "Input"]


@dataclass(frozen=True, slots=True)
class Input:
    """One managed input of the flake."""

    name: str
    url: str
    follows: bool = True
    """Whether its nixpkgs is the user's own."""

    def __post_init__(self) -> None:
        if not INPUT_NAME.fullmatch(self.name):
            raise invalid("input", "an input name has letters, digits, _ and -, and starts with a letter")
        if self.name in RESERVED_INPUTS:
            raise invalid("input", f"the name {self.name} belongs to an input that the flake declares itself")


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One host that the flake builds."""

    name: str
    system: str

    def __post_init__(self) -> None:
        if not HOST_NAME.fullmatch(self.name):
            raise invalid("host", "a host name has lower-case letters, digits and -, at most 63, no - in front")
        if not SYSTEM.fullmatch(self.system):
            raise invalid("system", "a system is one that Nix knows, such as x86_64-linux or aarch64-linux")


@dataclass(frozen=True, slots=True)
class FlakeFile:
    """A flake.nix whose two regions are in order."""

    text: str
    _inputs: _Region
    _hosts: _Region

    @classmethod
    def parse(cls, text: str, path: str = "flake.nix") -> Self:
        """Find both regions; refuse what is missing, doubled, swapped or nested, naming the marker and the line."""
        markers = _markers(text)
        inputs = _region(markers, "inputs", path)
        hosts = _region(markers, "hosts", path)
        first, second = sorted((inputs, hosts), key=lambda region: region.start)
        if second.opening.start < first.end:
            raise _broken(path, second.opening, "stands inside another managed region")
        return cls(text, inputs, hosts)

    @property
    def inputs_region(self) -> str:
        """What stands between the markers of the inputs."""
        return self._inputs.of(self.text)

    @property
    def input_names(self) -> list[str]:
        """The inputs that the region declares, one on each line."""
        return _INPUT_LINE.findall(self.inputs_region)

    @property
    def hosts_region(self) -> str:
        """What stands between the markers of the hosts."""
        return self._hosts.of(self.text)

    def render(self, inputs: Iterable[Input], hosts: Iterable[HostEntry]) -> str:
        """The file with these inputs and hosts, sorted by name; the lines look like the marker above them."""
        return self._with(
            [_input_line(entry) for entry in _by_name(inputs, "input")],
            [_host_line(entry) for entry in _by_name(hosts, "host")],
        )

    def outside(self) -> str:
        """Everything but the contents of the regions, to compare two versions of the file."""
        return self._with([], [])

    def _with(self, input_lines: list[str], host_lines: list[str]) -> str:
        contents = sorted(((self._inputs, input_lines), (self._hosts, host_lines)), key=lambda pair: pair[0].start)
        pieces = []
        position = 0
        for region, lines in contents:
            pieces += [self.text[position : region.start], *(region.line(line) for line in lines)]
            position = region.end
        return "".join([*pieces, self.text[position:]])


class _Marker(NamedTuple):
    """One marker line."""

    region: str
    opens: bool
    line: int
    start: int
    end: int
    indentation: str
    ending: str

    @property
    def text(self) -> str:
        return _marker_text(self.region, opens=self.opens)


class _Region(NamedTuple):
    """The characters between two markers."""

    opening: _Marker
    start: int
    end: int

    def of(self, text: str) -> str:
        return text[self.start : self.end]

    def line(self, content: str) -> str:
        """A line of the region, indented and ended like the marker above it."""
        return f"{self.opening.indentation}{content}{self.opening.ending}"


_MARKER: Final = re.compile(r"^([ \t]*)# (>>>|<<<) glix-managed (inputs|hosts) \2[ \t]*(\r?\n|\Z)", re.MULTILINE)


def _marker_text(region: str, *, opens: bool) -> str:
    arrows = ">>>" if opens else "<<<"
    return f"# {arrows} glix-managed {region} {arrows}"


def _markers(text: str) -> list[_Marker]:
    markers = []
    line = 1
    position = 0
    for match in _MARKER.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        indentation, arrows, region, ending = match.groups()
        markers.append(_Marker(region, arrows == ">>>", line, match.start(), match.end(), indentation, ending))
    return markers


def _region(markers: list[_Marker], name: str, path: str) -> _Region:
    """The one region of that name."""
    opening = _only(markers, name, path, opens=True)
    closing = _only(markers, name, path, opens=False)
    if closing.start < opening.start:
        raise _broken(path, closing, f"stands before “{opening.text}”")
    return _Region(opening, opening.end, closing.start)


def _only(markers: list[_Marker], name: str, path: str, *, opens: bool) -> _Marker:
    found = [marker for marker in markers if marker.region == name and marker.opens is opens]
    if not found:
        text = _marker_text(name, opens=opens)
        details = {"path": path, "marker": text, "reason": "is missing"}
        message = f"{path}: the line “{text}” is missing"
        raise Refused(message, code=ErrorCode.MANAGED_REGION_BROKEN, hint=_HINT, details=details)
    if len(found) > 1:
        raise _broken(path, found[1], f"is there twice; it is on line {found[0].line} already")
    return found[0]


_INPUT_LINE: Final = re.compile(rf'^[ \t]*"?({INPUT_NAME.pattern})"?[ \t]*=', re.MULTILINE | re.ASCII)

_HINT: Final = "Put the marker lines back, each alone on its line, or restore the file from its last commit."


def _broken(path: str, marker: _Marker, reason: str) -> Refused:
    details: dict[str, Detail] = {"path": path, "line": marker.line, "marker": marker.text, "reason": reason}
    message = f"{path}:{marker.line}: the line “{marker.text}” {reason}"
    return Refused(message, code=ErrorCode.MANAGED_REGION_BROKEN, hint=_HINT, details=details)


_Entry = TypeVar("_Entry", Input, HostEntry)


def _by_name(entries: Iterable[_Entry], what: str) -> list[_Entry]:
    """The entries sorted; equal ones once, different ones of the same name refused."""
    ordered = sorted(set(entries), key=lambda entry: entry.name)
    for before, entry in pairwise(ordered):
        if before.name == entry.name:
            raise Refused(f"two different {what}s are named {entry.name}", details={what: entry.name})
    return ordered


def _input_line(entry: Input) -> str:
    follows = ' inputs.nixpkgs.follows = "nixpkgs";' if entry.follows else ""
    return f"{nix_key(entry.name)} = {{ url = {nix_string(entry.url)};{follows} }};"


def _host_line(entry: HostEntry) -> str:
    return f"{nix_key(entry.name)} = mkHost {nix_string(entry.name)} {nix_string(entry.system)};"
