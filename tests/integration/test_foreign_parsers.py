# SPDX-License-Identifier: GPL-3.0-or-later
"""What other people's code generators make of our introspection: each reads every method, signal and property of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from glixd.frontends import introspection
from glixd.protocol import MANAGER_INTERFACE, TRANSACTION_INTERFACE
from tests.support.loop import PATIENCE

pytestmark = pytest.mark.integration

DOCUMENTS = {MANAGER_INTERFACE: introspection.manager, TRANSACTION_INTERFACE: introspection.transaction}


@dataclass(frozen=True)
class Generator:
    """A program that writes code from an introspection document."""

    program: str
    arguments: tuple[str, ...]

    def run(self, document: str, folder: Path) -> tuple[int, str]:
        """Its exit status, and all that it wrote."""
        source = folder / "document.xml"
        source.write_text(document, encoding="utf-8")
        output = folder / "written"
        output.mkdir()
        done = subprocess.run(
            [self.program, *(word.format(source=source, output=output) for word in self.arguments)],
            cwd=output,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 3,
        )
        return done.returncode, "\n".join(path.read_text() for path in sorted(output.rglob("*")) if path.is_file())


GENERATORS = (
    Generator(
        "gdbus-codegen",
        ("--generate-c-code", "{output}/glix", "--c-namespace", "G", "--glib-min-required=2.64", "{source}"),
    ),
    Generator("qdbusxml2cpp", ("-p", "{output}/glix", "{source}")),
    Generator("sdbus-c++-xml2cpp", ("--proxy={output}/glix.h", "--adaptor={output}/served.h", "{source}")),
)


def members(document: str, interface: str) -> set[str]:
    """The names of the methods, signals and properties of an interface."""
    found = ElementTree.fromstring(document).find(f"interface[@name='{interface}']")
    assert found is not None
    return {one.get("name", "") for kind in ("method", "signal", "property") for one in found.findall(kind)}


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.program)
@pytest.mark.parametrize("interface", DOCUMENTS)
def test_a_foreign_parser_understands_every_member(tmp_path: Path, generator: Generator, interface: str) -> None:
    document = DOCUMENTS[interface]()
    status, written = generator.run(document, tmp_path)
    assert status == 0
    expected = members(document, interface)
    assert expected
    assert expected <= set(re.findall(r"[A-Za-z]+", written.replace("_", " ")))


@pytest.mark.parametrize(
    ("generator", "damage"),
    [
        (GENERATORS[0], lambda text: text.replace('access="read"', 'access="perhaps"')),
        (GENERATORS[1], lambda text: re.sub(r'<annotation name="org\.qtproject[^>]*>', "", text)),
        (GENERATORS[2], lambda text: text.replace("</interface>", "", 1)),
    ],
    ids=("gdbus-codegen", "qdbusxml2cpp", "sdbus-c++-xml2cpp"),
)
def test_a_foreign_parser_refuses_what_it_does_not_understand(
    tmp_path: Path, generator: Generator, damage: Callable[[str], str]
) -> None:
    status, _ = generator.run(damage(introspection.manager()), tmp_path)
    assert status != 0
